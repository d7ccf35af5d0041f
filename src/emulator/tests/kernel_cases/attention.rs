//! Split paged decode attention and its combination.

use half::bf16;

use super::bench::{Arg, Bench, Grid};
use super::data::{self, Bytes, Rng};
use super::{Failure, compare};

const D: usize = 64;
const PAGE: usize = 16;
const GROUP: usize = 4;

/// A paged cache: slots beyond a sequence's end hold NaN, which a kernel that reads them spreads.
struct Cache {
    k: Vec<bf16>,
    v: Vec<bf16>,
    table: Vec<i32>,
    max_pages: usize,
    kv_heads: usize,
}

impl Cache {
    fn new(rng: &mut Rng, lens: &[usize], kv_heads: usize) -> Self {
        let max_pages = lens.iter().map(|l| l.div_ceil(PAGE)).max().unwrap_or(1);
        let pages = rng.shuffled(lens.len() * max_pages);
        let size = pages.len() * PAGE * kv_heads * D;
        let mut cache = Self {
            k: vec![bf16::NAN; size],
            v: vec![bf16::NAN; size],
            table: pages.iter().map(|&p| p as i32).collect(),
            max_pages,
            kv_heads,
        };
        for (b, &len) in lens.iter().enumerate() {
            for t in 0..len {
                for h in 0..kv_heads {
                    let at = cache.slot(b, t, h);
                    cache.k[at..at + D].copy_from_slice(&rng.bf16s(D));
                    cache.v[at..at + D].copy_from_slice(&rng.bf16s(D));
                }
            }
        }
        cache
    }

    fn slot(&self, b: usize, t: usize, head: usize) -> usize {
        let page = self.table[b * self.max_pages + t / PAGE] as usize;
        ((page * PAGE + t % PAGE) * self.kv_heads + head) * D
    }
}

pub fn paged(ptx: &str, shape: usize, seed: u64) -> Result<(), Failure> {
    let (lens, kv_heads, splits): (&[usize], usize, usize) =
        [(&[5][..], 1, 1), (&[16, 33], 2, 2), (&[1, 100], 1, 3), (&[200], 1, 2)][shape];
    let (batch, heads) = (lens.len(), kv_heads * GROUP);
    let mut rng = Rng::new(seed);
    let q = rng.bf16s(batch * heads * D);
    let cache = Cache::new(&mut rng, lens, kv_heads);
    let lengths: Vec<i32> = lens.iter().map(|&l| l as i32).collect();
    let scale = 0.125f32;
    let mut bench = Bench::new(ptx, seed)?;
    let part_o = bench.alloc(batch * heads * splits * D * 4);
    let part_ml = bench.alloc(batch * heads * splits * 8);
    let out = bench.alloc(batch * heads * D * 2);
    let args = [
        Arg::Ptr(bench.upload(&q.bytes())),
        Arg::Ptr(bench.upload(&cache.k.bytes())),
        Arg::Ptr(bench.upload(&cache.v.bytes())),
        Arg::Ptr(bench.upload(&cache.table.bytes())),
        Arg::Ptr(bench.upload(&lengths.bytes())),
        Arg::Ptr(part_o),
        Arg::Ptr(part_ml),
        Arg::I32(cache.max_pages as i32),
        Arg::F32(scale),
    ];
    bench.launch("paged_decode", Grid::new(kv_heads, 128).y(splits).z(batch), &args)?;
    let args = [Arg::Ptr(part_o), Arg::Ptr(part_ml), Arg::Ptr(out), Arg::I32(splits as i32)];
    bench.launch("paged_combine", Grid::new(heads, 64).y(batch), &args)?;
    let got = data::bf16s(&bench.download(out, batch * heads * D * 2)?);
    compare(&got, |i| {
        let (b, head, d) = (i / D / heads, i / D % heads, i % D);
        let query = &q[i / D * D..][..D];
        let score = |t: usize| {
            let at = cache.slot(b, t, head / GROUP);
            let dot = query.iter().zip(&cache.k[at..]).map(|(x, y)| x.to_f64() * y.to_f64());
            dot.sum::<f64>() * f64::from(scale)
        };
        let scores: Vec<f64> = (0..lens[b]).map(score).collect();
        let top = scores.iter().copied().fold(f64::MIN, f64::max);
        let weight: f64 = scores.iter().map(|s| (s - top).exp()).sum();
        let value = |t: usize| cache.v[cache.slot(b, t, head / GROUP) + d].to_f64();
        let terms = || scores.iter().enumerate().map(|(t, s)| (s - top).exp() / weight * value(t));
        let want = terms().sum();
        (want, data::bf16_error(want, terms().map(f64::abs).sum::<f64>() * 1e-4))
    })
}
