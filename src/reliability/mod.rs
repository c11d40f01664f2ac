//! How far a map can be believed.

pub mod fidelity;
pub mod invariance;
pub mod kindermans;
pub mod metric;

pub use fidelity::fidelity;
