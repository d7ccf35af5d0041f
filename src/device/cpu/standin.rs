//! A plain replacement for packed matrices until those are merged.

pub mod matmul {
    use crate::device::cpu::decode::decode;
    use crate::device::cpu::pool::Pool;
    use crate::error::Result;
    use crate::types::Dtype;
    use crate::weights::Tensor;

    pub struct PackPart<'a> {
        pub tensor: &'a Tensor<'a>,
        pub rows: usize,
    }

    pub struct PackedMatrix {
        rows: usize,
        cols: usize,
        data: Vec<f32>,
    }

    impl PackedMatrix {
        pub fn pack(
            parts: &[PackPart],
            cols: usize,
            _pool: &Pool,
            _target: Option<Dtype>,
        ) -> Result<Self> {
            let mut data = Vec::new();
            let mut row = vec![0.0; cols];
            for part in parts {
                for r in 0..part.rows {
                    decode(part.tensor.dtype, part.tensor.row(r), &mut row)?;
                    data.extend_from_slice(&row);
                }
            }
            Ok(PackedMatrix { rows: data.len() / cols, cols, data })
        }

        pub fn row_f32(&self, r: usize, out: &mut [f32]) {
            out.copy_from_slice(&self.data[r * self.cols..(r + 1) * self.cols]);
        }

        pub fn dtype(&self) -> Dtype {
            Dtype::F32
        }

        pub fn bytes(&self) -> usize {
            self.data.len() * 4
        }
    }

    #[derive(Default)]
    pub struct Scratch;

    #[allow(clippy::too_many_arguments)]
    pub fn matmul(
        _pool: &Pool,
        _scratch: &mut Scratch,
        x: &[f32],
        ldx: usize,
        m: usize,
        w: &PackedMatrix,
        bias: Option<&[f32]>,
        y: &mut [f32],
        ldy: usize,
    ) {
        for t in 0..m {
            let row = &x[t * ldx..t * ldx + w.cols];
            for r in 0..w.rows {
                let weights = &w.data[r * w.cols..(r + 1) * w.cols];
                let sum: f32 = row.iter().zip(weights).map(|(a, b)| a * b).sum();
                y[t * ldy + r] = sum + bias.map_or(0.0, |b| b[r]);
            }
        }
    }
}
