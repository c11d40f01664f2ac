//! Sources of copies of a picture: noise, and paths from a baseline.

pub mod baseline;
pub mod decoy;
pub mod footprint;
pub mod noise;
pub mod quadrature;

/// Most copies of a picture, or points on a path.
pub const MOST_COPIES: usize = 1 << 20;
