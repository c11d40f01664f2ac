//! How far a map can be believed.

pub mod fidelity;

pub use fidelity::fidelity;
