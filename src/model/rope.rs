//! Rotary position embedding: angles as data (Su et al., RoFormer, arXiv:2104.09864).

/// One rotary table: column `i` of the first `dim` turns by `position · inv_freq[i]`.
#[derive(Debug, Clone, PartialEq)]
pub struct RopeTable {
    /// Rotated columns of a head; the rest pass through (partial rotary).
    pub dim: usize,
    /// `[dim / 2]` radians per position.
    pub inv_freq: Vec<f32>,
    /// Multiplies cos and sin (yarn and longrope attention factor); 1 otherwise.
    pub scale: f32,
}
