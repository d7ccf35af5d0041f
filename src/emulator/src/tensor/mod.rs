//! Pure functions behind the tensor instructions: formats, fragment layouts, swizzles,
//! descriptors, tensor maps. Nothing here knows the executor; each file is tested element by
//! element against the formulas of the ISA text.

pub mod approx;
pub mod descriptor;
pub mod element;
pub mod fragment;
pub mod mma;
pub mod number;
pub mod swizzle;
pub mod tensormap;
pub mod tile;
pub mod wgmma;
