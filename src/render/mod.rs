//! Draws maps: colours, heat maps, overlays on the picture, and sheets of many maps. All functions are pure: they
//! return pictures and bytes, and write no files.

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
