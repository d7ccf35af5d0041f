//! One self-contained HTML page out of result rows: inline SVG, no script, no outside asset,
//! readable in light and dark. Pure: rows in, text out.
//!
//! - [`axis`]: ticks and numbers. - [`plot`]: lines and dots over two axes. - [`heat`]: heat maps.
//! - [`timeline`]: where the time of a trace went.
//! - [`charts`]: which plots a set of rows gives. - [`page`]: the page around them.

pub mod axis;
pub mod charts;
pub mod heat;
pub mod page;
pub mod plot;
pub mod timeline;

pub use page::page;
