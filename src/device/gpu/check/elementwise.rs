//! embed.cu, add.cu, gated.cu, gather.cu, softcap.cu.

use super::{Bench, Case, Geometry, Matrix, Rng, Store, Traffic};
use crate::device::formula;
use crate::device::gpu::abi;
use crate::model::plan::Activation;

/// Rows, width, numbers between rows. The last width is no whole number of 16-byte pieces.
const SHAPES: [(usize, usize, usize); 4] = [(1, 64, 0), (3, 576, 8), (2, 2056, 16), (5, 37, 3)];

const ACTS: [Activation; 3] = [Activation::Silu, Activation::GeluTanh, Activation::Gelu];

pub fn cases(list: &mut Vec<Case>) {
    for store in Store::HALVES {
        for shape in SHAPES {
            let mut add = |op: &str, run: fn(&mut Bench, Shape) -> Result<(), String>| {
                let shape = Shape { store, rows: shape.0, width: shape.1, pad: shape.2 };
                list.push(Case::new(shape.title(op), move |b| run(b, shape)));
            };
            add("embed", embed);
            add("add", add_rows);
            add("gated", gated);
            add("gather", gather);
            add("softcap", softcap);
        }
    }
    for shape in SHAPES {
        let shape = Shape { store: Store::F32, rows: shape.0, width: shape.1, pad: shape.2 };
        list.push(Case::new(shape.title("softcap"), move |b| softcap(b, shape)));
    }
}

#[derive(Clone, Copy)]
struct Shape {
    store: Store,
    rows: usize,
    width: usize,
    pad: usize,
}

impl Shape {
    fn title(self, op: &str) -> String {
        format!("{op} {} {}x{}", self.store.name(), self.rows, self.width)
    }

    /// Numbers in 16 bytes if rows are whole pieces of that, else 1.
    fn piece(self) -> usize {
        let wide = 16 / self.store.bytes();
        if self.width % wide == 0 && self.pad % wide == 0 { wide } else { 1 }
    }

    fn symbol(self, op: &str) -> String {
        let form = if self.piece() > 1 { "vec" } else { "any" };
        format!("sm80_{}_{op}_{form}", self.store.name())
    }

    fn geometry(self) -> Geometry {
        Geometry::new(self.rows, 256).y(self.width.div_ceil(self.piece() * 256))
    }

    /// Threads that do something: each reads what belongs to its row.
    fn threads(self) -> usize {
        self.rows * self.width / self.piece()
    }

    fn bytes(self) -> usize {
        self.rows * self.width * self.store.bytes()
    }

    fn input(self, b: &mut Bench, seed: u64) -> Result<Matrix, String> {
        let values = Rng::new(seed).values(self.rows * self.width);
        b.input(self.store, self.width, self.pad, &values)
    }
}

fn embed(b: &mut Bench, s: Shape) -> Result<(), String> {
    let vocab = 11;
    let table = b.input(s.store, s.width, 0, &Rng::new(1).values(vocab * s.width))?;
    let mut rng = Rng::new(2);
    let tokens: Vec<u32> = (0..s.rows).map(|_| rng.below(vocab) as u32).collect();
    let out = b.output(s.store, s.rows, s.width, s.pad)?;
    let scale = 7.25f32;
    let params = abi::EmbedParams {
        table: table.address,
        tokens: b.upload_u32(&tokens)?,
        out: out.address,
        rows: s.rows as u32,
        width: s.width as u32,
        out_stride: out.stride as u32,
        scale,
    };
    let traffic = Traffic { read: s.bytes() + s.threads() * 4, written: s.bytes() };
    b.launch(&s.symbol("embed"), s.geometry(), &params, Some(traffic))?;
    b.compare(&out, |r, c| {
        let want = table.row(tokens[r] as usize)[c] * f64::from(scale);
        (want, s.store.tolerance(want, 0.0))
    })
}

fn add_rows(b: &mut Bench, s: Shape) -> Result<(), String> {
    let (x, y) = (s.input(b, 1)?, s.input(b, 2)?);
    let params = abi::AddParams {
        x: x.address,
        y: y.address,
        rows: s.rows as u32,
        width: s.width as u32,
        x_stride: x.stride as u32,
        y_stride: y.stride as u32,
    };
    let traffic = Traffic { read: 2 * s.bytes(), written: s.bytes() };
    b.launch(&s.symbol("add"), s.geometry(), &params, Some(traffic))?;
    b.compare(&x, |r, c| {
        let (x, y) = (x.row(r)[c], y.row(r)[c]);
        (x + y, s.store.tolerance(x + y, x.abs() + y.abs()))
    })
}

fn gated(b: &mut Bench, s: Shape) -> Result<(), String> {
    for (code, act) in ACTS.into_iter().enumerate() {
        let values = Rng::new(3).values(s.rows * s.width * 2);
        let gate_up = b.input(s.store, s.width * 2, s.pad, &values)?;
        let out = b.output(s.store, s.rows, s.width, s.pad)?;
        let params = abi::GatedParams {
            gate_up: gate_up.address,
            out: out.address,
            rows: s.rows as u32,
            width: s.width as u32,
            gate_up_stride: gate_up.stride as u32,
            out_stride: out.stride as u32,
            act: code as u32,
            reserved: 0,
        };
        let traffic = Traffic { read: 2 * s.bytes(), written: s.bytes() };
        b.launch(&s.symbol("gated"), s.geometry(), &params, Some(traffic))?;
        b.compare(&out, |r, c| {
            let row = gate_up.row(r);
            let want = formula::activate(row[c], act) * row[c + s.width];
            // 1 + tanh cancels for negative x: the error is that of x, not of the result.
            (want, s.store.tolerance(want, row[c] * row[c + s.width]))
        })?;
    }
    Ok(())
}

fn gather(b: &mut Bench, s: Shape) -> Result<(), String> {
    let from = 9;
    let x = b.input(s.store, s.width, s.pad, &Rng::new(4).values(from * s.width))?;
    let mut rng = Rng::new(5);
    let index: Vec<u32> = (0..s.rows).map(|_| rng.below(from) as u32).collect();
    let out = b.output(s.store, s.rows, s.width, s.pad)?;
    let params = abi::GatherParams {
        x: x.address,
        index: b.upload_u32(&index)?,
        out: out.address,
        rows: s.rows as u32,
        width: s.width as u32,
        x_stride: x.stride as u32,
        out_stride: out.stride as u32,
    };
    let traffic = Traffic { read: s.bytes() + s.threads() * 4, written: s.bytes() };
    b.launch(&s.symbol("gather"), s.geometry(), &params, Some(traffic))?;
    b.compare(&out, |r, c| (x.row(index[r] as usize)[c], 0.0))
}

fn softcap(b: &mut Bench, s: Shape) -> Result<(), String> {
    let cap = 2.5f32;
    let x = s.input(b, 6)?;
    let params = abi::SoftcapParams {
        x: x.address,
        rows: s.rows as u32,
        width: s.width as u32,
        stride: x.stride as u32,
        cap,
    };
    let traffic = Traffic { read: s.bytes(), written: s.bytes() };
    b.launch(&s.symbol("softcap"), s.geometry(), &params, Some(traffic))?;
    b.compare(&x, |r, c| {
        let want = formula::soft_cap(x.row(r)[c], f64::from(cap));
        (want, s.store.tolerance(want, f64::from(cap)))
    })
}
