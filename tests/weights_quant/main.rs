//! Dequantisation against an independent implementation's numbers, bit for bit.

#[rustfmt::skip]
mod vectors;

use pacer::types::Dtype;
use pacer::weights::quant::dequantise;
use vectors::*;

fn agrees(dtype: Dtype, blocks: &[u8], bits: &[u32], sum: u32) {
    let n = blocks.len() / dtype.block_bytes() * dtype.block_len();
    let mut out = vec![0.0; n];
    dequantise(dtype, blocks, &mut out);
    let found: Vec<u32> = out.iter().map(|y| y.to_bits()).collect();
    for (i, want) in bits.iter().enumerate() {
        let (y, want) = (out[i * 8], f32::from_bits(*want));
        assert_eq!(y.to_bits(), want.to_bits(), "{} element {}: {y} {want}", dtype.name(), i * 8);
    }
    assert_eq!(found.iter().fold(0u32, |s, b| s.wrapping_add(*b)), sum, "{}", dtype.name());
}

#[test]
fn every_block_format_agrees_bit_for_bit() {
    agrees(Dtype::Q8_0, &Q8_0_BLOCKS, &Q8_0_BITS, Q8_0_SUM);
    agrees(Dtype::Q4_0, &Q4_0_BLOCKS, &Q4_0_BITS, Q4_0_SUM);
    agrees(Dtype::Q4_1, &Q4_1_BLOCKS, &Q4_1_BITS, Q4_1_SUM);
    agrees(Dtype::Q5_0, &Q5_0_BLOCKS, &Q5_0_BITS, Q5_0_SUM);
    agrees(Dtype::Q5_1, &Q5_1_BLOCKS, &Q5_1_BITS, Q5_1_SUM);
    agrees(Dtype::Q4K, &Q4_K_BLOCKS, &Q4_K_BITS, Q4_K_SUM);
    agrees(Dtype::Q5K, &Q5_K_BLOCKS, &Q5_K_BITS, Q5_K_SUM);
    agrees(Dtype::Q6K, &Q6_K_BLOCKS, &Q6_K_BITS, Q6_K_SUM);
}

#[test]
fn plain_types_convert_exactly() {
    let numbers = [0.0f32, -0.0, 1.0, -2.5, 1e-3, f32::INFINITY];
    let mut out = [0.0; 6];
    let bytes: Vec<u8> = numbers.iter().flat_map(|x| x.to_le_bytes()).collect();
    dequantise(Dtype::F32, &bytes, &mut out);
    assert_eq!(out.map(f32::to_bits), numbers.map(f32::to_bits));
    let bytes: Vec<u8> =
        numbers.iter().flat_map(|x| half::bf16::from_f32(*x).to_le_bytes()).collect();
    dequantise(Dtype::BF16, &bytes, &mut out);
    assert_eq!(out[3], -2.5);
    assert_eq!(out[4], f32::from_bits(0x3a83_0000));
    let bytes: Vec<u8> =
        numbers.iter().flat_map(|x| half::f16::from_f32(*x).to_le_bytes()).collect();
    dequantise(Dtype::F16, &bytes, &mut out);
    assert_eq!((out[3], out[4], out[5]), (-2.5, 0.001_000_404_4, f32::INFINITY));
}

#[test]
#[should_panic(expected = "agree")]
fn a_row_of_the_wrong_size_is_a_bug() {
    dequantise(Dtype::Q8_0, &[0; 33], &mut [0.0; 32]);
}
