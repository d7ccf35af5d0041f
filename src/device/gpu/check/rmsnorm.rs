//! rmsnorm.cu.

use super::{Bench, Case, Geometry, Rng, Store, Traffic};
use crate::device::formula;
use crate::device::gpu::abi;

#[derive(Clone, Copy)]
struct Shape {
    form: &'static str,
    rows: usize,
    groups: usize,
    width: usize,
    pad: usize,
    residual: bool,
    offset: f32,
}

pub fn cases(list: &mut Vec<Case>) {
    for store in Store::HALVES {
        for shape in shapes() {
            let Shape { form, rows, groups, width, residual, .. } = shape;
            let plus = if residual { " + residual" } else { "" };
            let name = format!("rmsnorm {} {form} {rows}x{groups}x{width}{plus}", store.name());
            list.push(Case::new(name, move |b| check(b, store, shape)));
        }
    }
}

fn shapes() -> Vec<Shape> {
    let shape = |form, rows, groups, width, pad, residual, offset| Shape {
        form,
        rows,
        groups,
        width,
        pad,
        residual,
        offset,
    };
    vec![
        shape("warp1", 3, 5, 64, 0, false, 0.0),
        shape("warp1", 5, 1, 256, 16, true, 1.0),
        shape("warp1", 2, 3, 80, 16, false, 0.0),
        shape("warp4", 3, 1, 576, 0, true, 0.0),
        shape("warp4", 1, 1, 1024, 8, false, 1.0),
        shape("block1", 2, 1, 2048, 0, true, 0.0),
        shape("block1", 1, 1, 2072, 16, true, 1.0),
        shape("block2", 1, 1, 9216, 0, true, 0.0),
        shape("any", 3, 1, 37, 5, true, 0.0),
        shape("any", 2, 3, 101, 1, false, 1.0),
        shape("any", 1, 1, 300, 0, true, 1.0),
    ]
}

impl Shape {
    fn geometry(self) -> Geometry {
        let all = self.rows * self.groups;
        let round = |passes: usize| (self.width / 8).div_ceil(passes).next_multiple_of(32) as u32;
        match self.form {
            "warp1" | "warp4" => Geometry::new(all.div_ceil(4), 128),
            "block1" => Geometry::new(all, round(1)),
            "block2" => Geometry::new(all, round(2)),
            _ => Geometry::new(all, 256),
        }
    }

    /// As the kernel's header declares.
    fn traffic(self) -> Traffic {
        let row = self.rows * self.groups * self.width * 2;
        let add = if self.residual { row } else { 0 };
        // The general form goes over the row again.
        let again = if self.form == "any" { row } else { 0 };
        Traffic { read: 2 * row + add + again, written: row + add }
    }
}

fn check(b: &mut Bench, store: Store, s: Shape) -> Result<(), String> {
    let row = s.groups * s.width;
    let mut values = Rng::new(7).values(s.rows * row);
    // One dominant number, and one row of tiny ones that eps matters to.
    values[row / 3] = 300.0;
    values[(s.rows - 1) * row..].iter_mut().skip(1).for_each(|x| *x *= 1e-3);
    let x = b.input(store, row, s.pad, &values)?;
    let y = b.input(store, row, s.pad, &Rng::new(8).values(s.rows * row))?;
    let weight = b.input(store, s.width, 0, &Rng::new(9).values(s.width))?;
    let out = b.output(store, s.rows, row, s.pad)?;
    let eps = 1e-5f32;
    let params = abi::RmsNormParams {
        x: x.address,
        add: if s.residual { y.address } else { 0 },
        weight: weight.address,
        out: out.address,
        rows: s.rows as u32,
        groups: s.groups as u32,
        width: s.width as u32,
        x_stride: x.stride as u32,
        add_stride: y.stride as u32,
        out_stride: out.stride as u32,
        eps,
        offset: s.offset,
    };
    let symbol = format!("sm80_{}_rmsnorm_{}", store.name(), s.form);
    b.launch(&symbol, s.geometry(), &params, Some(s.traffic()))?;
    if s.form != "any" {
        b.coalesced()?;
    }
    let added = |r: usize, c: usize| {
        let sum = x.row(r)[c] + y.row(r)[c];
        if s.residual { store.round(sum) } else { x.row(r)[c] }
    };
    if s.residual {
        b.compare(&x, |r, c| (added(r, c), 0.0))?;
    }
    let scaled: Vec<f64> = weight.values.iter().map(|w| w + f64::from(s.offset)).collect();
    let norm = |r: usize| {
        let row: Vec<f64> = (0..row).map(|c| added(r, c)).collect();
        formula::rms_norm(&row, &scaled, f64::from(eps), s.groups)
    };
    let want: Vec<Vec<f64>> = (0..s.rows).map(norm).collect();
    b.compare(&out, |r, c| (want[r][c], store.tolerance(want[r][c], 0.0)))
}
