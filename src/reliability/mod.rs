//! How much a map can be trusted.

pub mod attack;
pub mod auc;
pub mod bootstrap;
pub mod check;
pub mod concentration;
pub mod detector;
mod draws;
pub mod fidelity;
pub mod imputation;
pub mod invariance;
pub mod kindermans;
pub mod localisation;
pub mod metric;
pub mod mosaic;
pub mod pixel_flipping;
pub mod randomise;
pub mod ranking;
pub mod removal;
mod scores;
pub mod share;
pub mod similarity;
pub mod stability;

pub use draws::Noise;
pub use fidelity::fidelity;
pub use pixel_flipping::pixel_flipping;
