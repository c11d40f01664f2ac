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
pub use items::{Item, Net, damage, finite, fit, load};
pub use labelled::{Boxes, Data, Drawn, Example, Reader, Wanted};
pub use own::{Announced, announce, holds_fit};
pub use room::{Room, size};
pub use source::{Inputs, Shard, Source, deal, find, usable};
pub use stream::{At, Event, Skip, Stream, usual_shape};
pub use targets::{Listed, TargetChoice, Targets, label, named};
