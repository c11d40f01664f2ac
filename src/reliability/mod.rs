//! How far a map can be believed.

pub mod attack;
pub mod bootstrap;
pub mod fidelity;
pub mod metric;
pub mod mosaic;

pub use fidelity::fidelity;
