//! Dense host arrays and the shapes that everything above speaks of.

mod dense;
pub mod resample;
mod scalar;
mod shape;

pub use dense::{Data, Tensor};
pub use scalar::{Precision, Scalar};
pub use shape::{Padding, Shape, Window};
