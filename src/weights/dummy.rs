//! Seeded numbers instead of a checkpoint (`--load-format dummy`): speed can be measured from a
//! `config.json` alone.

use std::sync::OnceLock;

use half::{bf16, f16};

use super::table::{shown, sorted_by_name};
use super::{Description, RowOrder, Source, Tensor};
use crate::error::{Error, Result};
use crate::types::Dtype;

/// Standard deviation of matrices, what most models are initialised with, and of norm weights
/// around 1.
const WEIGHT: f32 = 0.02;
/// Standard deviation of biases.
const BIAS: f32 = 0.002;

/// Tensors made of numbers from `(seed, name)`, each when it is first asked for: the same whatever
/// else is in the list and whatever is read first.
pub struct Dummy {
    seed: u64,
    entries: Vec<Entry>,
    by_name: Vec<u32>,
}

struct Entry {
    name: String,
    shape: Vec<usize>,
    dtype: Dtype,
    bytes: usize,
    data: OnceLock<Option<Box<[u8]>>>,
}

impl Dummy {
    /// Describes the tensors `(name, shape, type)`; nothing is made yet.
    ///
    /// # Errors
    /// A name is there twice, a size overflows, or a type is quantised.
    pub fn new<'a>(
        seed: u64,
        tensors: impl IntoIterator<Item = (&'a str, Vec<usize>, Dtype)>,
    ) -> Result<Dummy> {
        let entries = tensors.into_iter().map(entry).collect::<Result<Vec<_>>>()?;
        let by_name = sorted_by_name(&entries, |e| &e.name);
        let name = |i: u32| &entries[i as usize].name;
        if let Some(w) = by_name.windows(2).find(|w| name(w[0]) == name(w[1])) {
            return Err(Error::usage(format!("dummy tensor {} is there twice", name(w[0]))));
        }
        Ok(Dummy { seed, entries, by_name })
    }

    fn find(&self, name: &str) -> Option<&Entry> {
        let key = |&i: &u32| self.entries[i as usize].name.as_str().cmp(name);
        let at = self.by_name.binary_search_by(key).ok()?;
        Some(&self.entries[self.by_name[at] as usize])
    }

    /// Bytes of all tensors.
    pub fn bytes(&self) -> u64 {
        self.entries.iter().map(|e| e.bytes as u64).sum()
    }
}

fn entry((name, shape, dtype): (&str, Vec<usize>, Dtype)) -> Result<Entry> {
    if dtype.is_quantised() {
        return Err(Error::unsupported(format!(
            "dummy weights of type {} cannot be made: use float32, float16 or bfloat16",
            dtype.name()
        )));
    }
    let elements = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
    let bytes = elements.and_then(|n| dtype.bytes(n)).ok_or_else(|| {
        Error::limit(format!("dummy tensor {}: the size of {shape:?} overflows", shown(name)))
    })?;
    Ok(Entry { name: name.to_owned(), shape, dtype, bytes, data: OnceLock::new() })
}

impl Source for Dummy {
    fn tensor(&self, name: &str) -> Option<Tensor<'_>> {
        let entry = self.find(name)?;
        Some(Tensor {
            name: &entry.name,
            dtype: entry.dtype,
            shape: &entry.shape,
            data: entry.data.get_or_init(|| make(self.seed, entry)).as_deref()?,
            order: RowOrder::Plain,
        })
    }

    fn describe(&self, name: &str) -> Option<Description<'_>> {
        let Entry { dtype, shape, bytes, .. } = self.find(name)?;
        Some(Description { dtype: *dtype, shape, bytes: *bytes })
    }

    fn names(&self) -> Vec<&str> {
        self.entries.iter().map(|e| e.name.as_str()).collect()
    }

    fn check(&self) -> Result<()> {
        Ok(())
    }
}

/// The numbers of a tensor; `None` if there is no memory for them.
fn make(seed: u64, entry: &Entry) -> Option<Box<[u8]>> {
    let start = stream(seed, &entry.name);
    let (mean, deviation) = match (entry.shape.len(), entry.name.ends_with("bias")) {
        (_, true) => (0.0, BIAS),
        (..=1, false) => (1.0, WEIGHT),
        _ => (0.0, WEIGHT),
    };
    let number = |unit: f32| mean + deviation * unit;
    match entry.dtype {
        Dtype::F16 => fill(entry.bytes, start, |x| f16::from_f32(number(x)).to_le_bytes()),
        Dtype::BF16 => fill(entry.bytes, start, |x| bf16::from_f32(number(x)).to_le_bytes()),
        _ => fill(entry.bytes, start, |x| number(x).to_le_bytes()),
    }
}

/// `bytes` bytes of numbers; number i depends on `start` and i alone. Each is `store` of a nearly
/// normal number (mean 0, deviation 1): the sum of four random bytes, of which there are so few
/// that a table holds them all.
fn fill<const B: usize>(
    bytes: usize,
    start: u64,
    store: impl Fn(f32) -> [u8; B],
) -> Option<Box<[u8]>> {
    // Four bytes: mean 4 · 127.5, variance 4 · (256² - 1) / 12.
    const MEAN: f32 = 510.0;
    const DEVIATION: f32 = 147.801;
    let table: [[u8; B]; 1024] = std::array::from_fn(|sum| store((sum as f32 - MEAN) / DEVIATION));
    let mut out = Vec::new();
    out.try_reserve_exact(bytes).ok()?;
    out.resize(bytes, 0u8);
    let (numbers, _) = out.as_chunks_mut::<B>();
    let (pairs, last) = numbers.as_chunks_mut::<2>();
    let odd = pairs.len() as u64;
    for (i, pair) in (0u64..).zip(pairs) {
        *pair = two_sums(start, i).map(|sum| table[sum]);
    }
    for (number, sum) in last.iter_mut().zip(two_sums(start, odd)) {
        *number = table[sum];
    }
    Some(out.into_boxed_slice())
}

/// Two sums of four random bytes each, below 1024.
fn two_sums(start: u64, i: u64) -> [usize; 2] {
    let bits = mix(start.wrapping_add(i.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
    let twos = (bits & 0x00ff_00ff_00ff_00ff) + (bits >> 8 & 0x00ff_00ff_00ff_00ff);
    let fours = (twos & 0x0000_ffff_0000_ffff) + (twos >> 16 & 0x0000_ffff_0000_ffff);
    [fours as usize & 1023, (fours >> 32) as usize & 1023]
}

/// The finaliser of SplitMix64 (Steele, Lea, Flood 2014).
fn mix(mut z: u64) -> u64 {
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

/// Where the numbers of `name` start: FNV-1a over the name, mixed with the seed.
fn stream(seed: u64, name: &str) -> u64 {
    let step = |h: u64, b: u8| (h ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01b3);
    mix(name.bytes().fold(0xcbf2_9ce4_8422_2325, step) ^ mix(seed))
}

#[cfg(test)]
mod tests {
    use super::super::quant::dequantise;
    use super::*;

    fn numbers(dummy: &Dummy, name: &str) -> Vec<f32> {
        let t = dummy.tensor(name).unwrap();
        let mut out = vec![0.0; t.shape.iter().product()];
        dequantise(t.dtype, t.data, &mut out);
        out
    }

    fn list(dtype: Dtype) -> [(&'static str, Vec<usize>, Dtype); 4] {
        [
            ("a.weight", vec![300, 333], dtype),
            ("b.weight", vec![300, 333], dtype),
            ("norm.weight", vec![1001], dtype),
            ("a.bias", vec![1001], dtype),
        ]
    }

    #[test]
    fn numbers_have_the_wanted_spread_in_every_type() {
        for dtype in [Dtype::F32, Dtype::F16, Dtype::BF16] {
            let dummy = Dummy::new(1, list(dtype)).unwrap();
            for (name, mean, deviation) in
                [("a.weight", 0.0, WEIGHT), ("norm.weight", 1.0, WEIGHT), ("a.bias", 0.0, BIAS)]
            {
                let x = numbers(&dummy, name);
                let m = x.iter().sum::<f32>() / x.len() as f32;
                let v = x.iter().map(|y| (y - m).powi(2)).sum::<f32>() / x.len() as f32;
                assert!((m - mean).abs() < 0.1 * deviation, "{name} {dtype:?} mean {m}");
                let d = v.sqrt() / deviation;
                assert!((0.9..1.2).contains(&d), "{name} {dtype:?} deviation {d}");
            }
        }
    }

    #[test]
    fn numbers_depend_on_seed_and_name_only() {
        let dummy = Dummy::new(1, list(Dtype::BF16)).unwrap();
        let mut reversed = list(Dtype::BF16);
        reversed.reverse();
        let other = Dummy::new(1, reversed).unwrap();
        let a = numbers(&dummy, "a.weight");
        assert_eq!(a, numbers(&other, "a.weight"));
        assert_ne!(a, numbers(&other, "b.weight"));
        assert_ne!(a, numbers(&Dummy::new(2, list(Dtype::BF16)).unwrap(), "a.weight"));
        // Neighbours, and the same place of another tensor, have nothing to do with each other.
        let b = numbers(&dummy, "b.weight");
        let corr = |x: &[f32], y: &[f32]| {
            x.iter().zip(y).map(|(x, y)| x * y).sum::<f32>() / (x.len() as f32 * WEIGHT * WEIGHT)
        };
        assert!(corr(&a, &b).abs() < 0.02 && corr(&a, &a[1..]).abs() < 0.02);
    }

    #[test]
    fn what_cannot_be_made_is_refused() {
        let message = |t| Dummy::new(0, t).err().unwrap().message;
        assert!(message(vec![("a", vec![32], Dtype::Q8_0)]).contains("q8_0"));
        assert!(message(vec![("a", vec![1 << 40, 1 << 40], Dtype::F32)]).contains("overflows"));
        let twice = vec![("a", vec![1], Dtype::F32), ("a", vec![1], Dtype::F32)];
        assert!(message(twice).contains("twice"));
    }
}
