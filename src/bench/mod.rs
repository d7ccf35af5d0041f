//! What the bench commands measure, apart from how they are called and how results are shown.

pub mod ceilings;
pub mod compare;
pub mod data;
pub mod draws;
pub mod golden;
pub mod load;
pub mod offline;
pub mod one_batch;
pub mod report;
pub mod served;
pub mod serving;
pub mod step_cost;
