//! How far a map can be believed.

pub mod auc;
pub mod detector;
pub mod fidelity;
pub mod metric;

pub use fidelity::fidelity;
