//! moe_topk.cu, moe_permute.cu, moe_combine.cu, and the three in a row.

use super::{Bench, Case, Geometry, Rng, Store, Traffic};
use crate::device::formula;
use crate::device::gpu::abi;

pub fn cases(list: &mut Vec<Case>) {
    for (rows, experts, top_k) in [(1, 8, 2), (5, 60, 4), (37, 128, 8), (3, 512, 10), (9, 33, 32)] {
        for renormalise in [false, true] {
            let name = format!("moe_topk {rows}x{experts} top {top_k}, {renormalise}");
            list.push(Case::new(name, move |b| topk(b, (rows, experts, top_k), renormalise)));
        }
    }
    for (rows, experts, top_k) in [(1, 8, 2), (131, 16, 4), (300, 5, 2)] {
        let name = format!("moe_permute {rows} rows, {experts} experts, top {top_k}");
        list.push(Case::new(name, move |b| permute(b, rows, experts, top_k)));
    }
    for store in Store::HALVES {
        for (rows, width, top_k, pad) in [(1, 64, 2, 0), (3, 2056, 8, 8), (2, 37, 3, 1)] {
            let name = format!("moe_combine {} {rows}x{width} top {top_k}", store.name());
            list.push(Case::new(name, move |b| combine(b, store, (rows, width, top_k, pad))));
        }
    }
}

fn topk(
    b: &mut Bench,
    (rows, experts, top_k): (usize, usize, usize),
    renormalise: bool,
) -> Result<(), String> {
    let mut values = Rng::new(1).values(rows * experts);
    // Equal logits: the lower index goes first.
    (values[experts - 1], values[1], values[experts / 2]) = (9.0, 9.0, 9.0);
    let logits = b.input(Store::F32, experts, 3, &values)?;
    let (chosen, shares) = (b.alloc(rows * top_k * 4)?, b.alloc(rows * top_k * 4)?);
    let params = abi::MoeTopkParams {
        logits: logits.address,
        chosen,
        shares,
        rows: rows as u32,
        experts: experts as u32,
        top_k: top_k as u32,
        stride: logits.stride as u32,
        renormalise: u32::from(renormalise),
        reserved: 0,
    };
    let traffic = Traffic { read: rows * experts * 4, written: rows * top_k * 8 };
    let geometry = Geometry::new(rows.div_ceil(4), 128);
    b.launch("sm80_f32_moe_topk", geometry, &params, Some(traffic))?;
    let chosen = b.download_u32(chosen, rows * top_k)?;
    let shares = Store::F32.decode(&b.download(shares, rows * top_k * 4)?);
    for r in 0..rows {
        let soft = formula::softmax(logits.row(r));
        let best = formula::largest(&soft, top_k);
        let total: f64 = best.iter().map(|e| soft[*e]).sum();
        for (j, e) in best.into_iter().enumerate() {
            let (got, share) = (chosen[r * top_k + j] as usize, shares[r * top_k + j]);
            let want = if renormalise { soft[e] / total } else { soft[e] };
            if got != e || (share - want).abs() > 4e-6 * want {
                return Err(format!("row {r}, choice {j}: {got} {share}; {e} {want} expected"));
            }
        }
    }
    Ok(())
}

fn permute(b: &mut Bench, rows: usize, experts: usize, top_k: usize) -> Result<(), String> {
    let mut rng = Rng::new(2);
    // Expert 1 gets nothing.
    let skip = |e: u32| if e == 1 { 0 } else { e };
    let chosen: Vec<u32> = (0..rows * top_k).map(|_| skip(rng.below(experts) as u32)).collect();
    let count = chosen.len();
    let (offsets, gather) = (b.alloc((experts + 1) * 4)?, b.alloc(count * 4)?);
    let places = b.alloc(count * 4)?;
    let params = abi::MoePermuteParams {
        chosen: b.upload_u32(&chosen)?,
        offsets,
        gather,
        places,
        count: count as u32,
        top_k: top_k as u32,
        experts: experts as u32,
        reserved: 0,
    };
    let traffic = Traffic { read: 2 * experts * count * 4, written: (experts + 1) * 4 + count * 8 };
    b.launch("sm80_moe_permute", Geometry::new(experts, 256), &params, Some(traffic))?;
    let mut order: Vec<usize> = (0..count).collect();
    order.sort_by_key(|a| chosen[*a]);
    let below = |e: usize| chosen.iter().filter(|c| (**c as usize) < e).count() as u32;
    let want: Vec<u32> = (0..=experts).map(below).collect();
    if b.download_u32(offsets, experts + 1)? != want {
        return Err("offsets are wrong".to_owned());
    }
    let (gather, places) = (b.download_u32(gather, count)?, b.download_u32(places, count)?);
    for (place, a) in order.into_iter().enumerate() {
        if places[a] as usize != place || gather[place] as usize != a / top_k {
            return Err(format!("assignment {a} went to {}; {place} expected", places[a]));
        }
    }
    Ok(())
}

fn combine(
    b: &mut Bench,
    store: Store,
    (rows, width, top_k, pad): (usize, usize, usize, usize),
) -> Result<(), String> {
    let count = rows * top_k;
    let y = b.input(store, width, pad, &Rng::new(3).values(count * width))?;
    let places = Rng::new(4).shuffled(count);
    let shares = b.input(Store::F32, top_k, 0, &Rng::new(5).values(count))?;
    let out = b.output(store, rows, width, pad)?;
    let params = abi::MoeCombineParams {
        y: y.address,
        places: b.upload_u32(&places)?,
        shares: shares.address,
        out: out.address,
        rows: rows as u32,
        width: width as u32,
        top_k: top_k as u32,
        y_stride: y.stride as u32,
        out_stride: out.stride as u32,
        reserved: 0,
    };
    let (form, piece) = if width % 8 == 0 && pad % 8 == 0 { ("vec", 8) } else { ("any", 1) };
    let geometry = Geometry::new(rows, 256).y(width.div_ceil(256 * piece));
    let read = count * width * 2 + count * width / piece * 8;
    let traffic = Traffic { read, written: rows * width * 2 };
    let symbol = format!("sm80_{}_moe_combine_{form}", store.name());
    b.launch(&symbol, geometry, &params, Some(traffic))?;
    b.compare(&out, |r, c| {
        let term = |j: usize| shares.row(r)[j] * y.row(places[r * top_k + j] as usize)[c];
        let want = (0..top_k).map(term).sum();
        (want, store.tolerance(want, (0..top_k).map(|j| term(j).abs()).sum()))
    })
}
