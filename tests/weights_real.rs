//! A real checkpoint, if one is given: `PACER_GGUF=… cargo test --test weights_real -- --nocapture`.

use pacer::weights::digest::digest;
use pacer::weights::open::{Format, open};
use pacer::weights::quant::dequantise;

#[test]
fn a_given_gguf_opens_whole() {
    let Some(path) = std::env::var_os("PACER_GGUF") else {
        eprintln!("skipped: PACER_GGUF names no file");
        return;
    };
    let start = std::time::Instant::now();
    let opened = open(&path, Format::Auto).unwrap();
    let took = start.elapsed();
    let gguf = opened.gguf.as_ref().unwrap();
    let vocab = gguf.vocab.as_ref().unwrap();
    let (mut parameters, mut sum, mut most) = (0, 0.0, 0.0f32);
    let mut types = std::collections::BTreeMap::<&str, usize>::new();
    for name in opened.weights.names() {
        let t = opened.weights.tensor(name).unwrap();
        let mut out = vec![0.0; t.shape.iter().product()];
        dequantise(t.dtype, t.data, &mut out);
        assert!(out.iter().all(|x| x.is_finite()), "{name}");
        parameters += out.len();
        sum += out.iter().map(|x| f64::from(x.abs())).sum::<f64>();
        most = out.iter().fold(most, |m, x| m.max(x.abs()));
        *types.entry(t.dtype.name()).or_default() += 1;
    }
    opened.weights.check().unwrap();
    println!("{opened:?} in {took:?}");
    println!("{parameters} parameters, mean |w| {}, max {most}", sum / parameters as f64);
    println!("{types:?}, {} tokens, {} merges", vocab.tokens.len(), vocab.merges.len());
    println!("pre {:?} bos {:?} eos {:?}", vocab.pre, vocab.bos_id, vocab.eos_id);
    println!("{:?}", gguf.meta.iter().filter(|(k, _)| k.len() < 40).collect::<Vec<_>>());
    let start = std::time::Instant::now();
    println!("digest {} in {:?}", digest(&opened.weights), start.elapsed());
    let q = opened.weights.tensor("model.layers.0.self_attn.q_proj.weight").unwrap();
    println!("{:?} {:?} {:?}", q.shape, q.dtype, q.order);
}
