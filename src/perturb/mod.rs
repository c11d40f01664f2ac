//! Where copies of a picture come from: noise, and paths from a baseline.

pub mod baseline;
pub mod noise;
pub mod quadrature;
