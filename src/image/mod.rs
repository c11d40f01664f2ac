//! Pictures: decoding, resizing, cropping, and the conversion between 8-bit levels and a net's inputs.

#[cfg(feature = "pictures")]
mod decode;
#[cfg(feature = "pictures")]
mod ifd;
#[cfg(feature = "pictures")]
mod orientation;
mod picture;
mod preprocess;
mod resize;
#[cfg(feature = "pictures")]
mod scans;
#[cfg(feature = "tiff")]
mod tiff;

#[cfg(feature = "pictures")]
pub use decode::{DecodeLimits, is_decoding};
pub use picture::Picture;
pub use preprocess::{Placement, Prepared, Preprocess};
pub use resize::Interpolation;
