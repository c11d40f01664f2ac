//! Dense host arrays and the shapes that everything above speaks of.

mod dense;
pub mod resample;
mod scalar;
mod shape;
mod stored;

pub use dense::{Data, Tensor};
pub use scalar::{Precision, Scalar};
pub use shape::{Padding, Shape, Window};
pub use stored::{MOST_HEADER_BYTES, check_safetensors, safetensors_header};
