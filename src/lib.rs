//! Explains image classifiers where they run: saliency maps from safetensors weights, computed by an engine of its own,
//! without Python and without a deep-learning framework.
//!
//! ```text
//! picture ─image→ tensor ─perturb→ copies ─Program(forward)→ scores ─Program(backward, rule)→ signal ─aggregate→ Map ─render→ picture
//!                                  Graph + Rule ──lower──▶ Program ──plan──▶ Device (cpu | cuda)
//! ```
//!
//! - [`model`] reads a weights file into a [`graph`]: plain data, one node per operation.
//! - A [`rule`] says how a signal at a node's output becomes signals at its inputs; the gradient is one such rule.
//! - [`program`] writes forward pass, score and backward pass as one list of primitives and lays out its memory before
//!   it runs.
//! - A [`device`] runs programs; the [`engine`] cuts the work into chunks that fit into memory.
//! - A [`method`] perturbs the picture ([`perturb`]), differentiates and aggregates; its result is a raw [`map::Map`].
//! - `render` (feature `pictures`) draws maps; no earlier stage rescales a map.
//! - A [`Session`] holds a net and an engine, and takes you from a picture to a map in a few lines.
//! - `data` and `run` (feature `files`) find inputs and process many of them, with records by which a run can be
//!   resumed.
//!
//! # Example
//!
//! The embedded net, its top class, and a SmoothGrad map of that class:
//!
//! ```
//! # #[cfg(all(feature = "embedded-model", feature = "png"))]
//! # fn main() -> verilume::Result<()> {
//! use verilume::Session;
//! use verilume::image::Picture;
//! use verilume::model::Model;
//! use verilume::session::Options;
//!
//! let mut session = Session::open(Model::embedded()?, &Options::default())?;
//! let cat = session.prepare(&Picture::open("examples/chelsea.png", &Default::default())?)?;
//! let top = session.score(&[&cat.tensor]).remove(0)?.top();
//! assert_eq!(session.labels().get(top), Some("tiger cat"));
//!
//! let method = session.method("smoothgrad:n=8")?;
//! let map = session.explain(method.as_ref(), &[&cat.tensor], &[top]).remove(0)?;
//! assert_eq!(map.values.dims(), [3, 224, 224]);
//!
//! let overlay = verilume::render::overlay(&cat.view, &map, &Default::default())?;
//! let png = verilume::render::png(&overlay)?;
//! # assert!(png.starts_with(b"\x89PNG"));
//! # Ok(())
//! # }
//! # #[cfg(not(all(feature = "embedded-model", feature = "png")))]
//! # fn main() {}
//! ```
//!
//! # Features
//!
//! | feature | what it adds |
//! |---|---|
//! | `embedded-model` | `Model::embedded`: EfficientNet-Lite0, about 9 MB inside the library |
//! | `pictures` | decoding of picture files and the module `render` |
//! | `png`, `jpeg` | these formats, read and written; each turns `pictures` on |
//! | `tiff` | this format, read; turns `pictures` on |
//! | `html` | `report::html`, the report of a check as a page |
//! | `files` | `data` and `run`: folders, lists, arrays and tables of inputs, and runs that can be resumed |
//! | `cli` | the program `verilume`, also as [`cli::program`], and what only it needs |
//! | `cuda` | computes on NVIDIA GPUs, with libraries that are found at run time |
//!
//! All of them are on by default, and each can be left out. Without any (`--no-default-features`) the library still
//! reads weights, runs every method on arrays and returns raw maps.
//!
//! # Errors
//!
//! Every fallible function returns [`Error`]: an [`ErrorKind`] that says who can fix it, and one sentence that names
//! the file, tensor, node or option. A NaN or an infinity is an error, in weights, in inputs and in results.
mod cancel;
#[cfg(feature = "cli")]
pub mod cli;
#[cfg(feature = "files")]
pub mod data;
pub mod device;
pub mod engine;
pub mod error;
pub mod graph;
pub mod image;
pub mod map;
pub mod memory;
pub mod method;
pub mod model;
mod near;
mod optimiser;
pub mod perturb;
pub mod program;
pub mod random;
pub mod reliability;
#[cfg(feature = "pictures")]
pub mod render;
pub mod report;
pub mod rule;
#[cfg(feature = "files")]
pub mod run;
pub mod score;
pub mod session;
pub mod tensor;
pub mod text;
pub use cancel::Cancel;
pub use error::{Error, ErrorKind, Result};
pub use session::Session;

/// Runs the examples of the guides as documentation tests.
#[cfg(all(doctest, feature = "embedded-model", feature = "png"))]
mod guides {
    #[doc = include_str!("../README.md")]
    struct Readme;
    #[doc = include_str!("../docs/embedding.md")]
    struct Embedding;
}
