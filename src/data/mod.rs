//! Reads inputs and writes results: from names to a net's inputs, from tables to classes and boxes, and result files
//! that are written completely or not at all.

mod arrays;
pub mod files;
mod headings;
mod items;
mod labelled;
mod lists;
mod npy;
mod own;
pub mod paths;
mod room;
mod source;
mod stream;
mod tables;
mod targets;

pub use arrays::{ArrayFile, Row, extension};
pub use items::{Item, NetInput, damage, finite, fit, load};
pub use labelled::{DataRequest, Drawn, LabelledBoxes, LabelledData, LabelledPicture, PictureReader};
pub use own::{Announced, announce, holds_fit};
pub(crate) use own::{leave_behind, left_behind};
pub use room::{Room, size};
pub use source::{Inputs, Shard, Source, deal, find, usable};
pub use stream::{Event, ItemPosition, ItemStream, Skip, usual_shape};
pub use targets::{ListedClasses, TargetChoice, Targets, label, named};
