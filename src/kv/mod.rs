//! Key-value pages as numbers: which are free, who holds which, and what the kept ones contain.
//!
//! Pure bookkeeping: no tensor, clock or I/O, and no decision that depends on a hash order.
//!
//! - [`tree`]: a prefix tree whose nodes are full pages, compared by their exact token ids.
//! - `children`: the pages that continue a page, without an allocation for one.
//! - [`cache`]: owns every page: free list, reference counts, fences, least-recently-used
//!   eviction, and the audit that recounts it all.
//! - [`planted`]: deliberate mistakes for the simulation; compiled out of the product.

pub mod cache;
mod children;
#[doc(hidden)]
pub mod planted;
pub mod tree;

pub use cache::{Census, PageCache};

/// A page of the key-value cache, `0 .. pages`.
pub type PageId = u32;
