//! Drawing maps: colours, heat maps, overlays on the picture, and sheets of many maps. Everything here is pure: it returns
//! pictures and bytes, and writes no file.

mod colormap;
mod encode;
mod heatmap;
mod sheet;
mod text;

pub use colormap::Palette;
#[cfg(feature = "jpeg")]
pub use encode::jpeg;
#[cfg(feature = "png")]
pub use encode::png;
pub use heatmap::{Channels, Look, Origin, Shade, heatmap, overlay, shade};
pub use sheet::{Cell, Legend, Sheet, Theme, grid};
pub use text::is_drawable;
