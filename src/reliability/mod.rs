//! How far a map can be believed.

pub mod attack;
pub mod fidelity;
pub mod metric;

pub use fidelity::fidelity;
