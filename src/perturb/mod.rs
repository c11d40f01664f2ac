//! Where copies of a picture come from: noise, and paths from a baseline.

pub mod baseline;
pub mod decoy;
pub mod footprint;
pub mod noise;
pub mod quadrature;

/// Copies of a picture, or points on a path, that there can be at most.
pub const MOST_COPIES: usize = 1 << 20;
