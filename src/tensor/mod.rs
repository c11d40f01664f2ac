//! Dense host arrays and the shapes used by all other modules.

mod blend;
mod dense;
pub(crate) mod functions;
mod moves;
pub mod resample;
mod rounding;
mod scalar;
mod shape;
mod stored;

pub use blend::{Blend, Interpolation, Resize, ResizeTo};
pub use dense::{Data, Tensor};
pub use moves::{AxisMove, Moves};
pub(crate) use rounding::{are_equal_but_for_rounding, differ_by_rounding, rounding};
pub use scalar::{Precision, Scalar};
pub use shape::{Padding, Repeat, Shape, Window};
pub use stored::{MOST_HEADER_BYTES, check_safetensors, safetensors_header};
