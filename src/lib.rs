//! Explains image classifiers where they run: saliency maps from safetensors weights, computed by an engine of its own,
//! without Python and without a deep-learning framework.
//!
//! ```text
//! picture ─image→ tensor ─perturb→ copies ─Program(forward)→ scores ─Program(backward, rule)→ signal ─aggregate→ Map ─render→ picture
//!                                  Graph + Rule ──lower──▶ Program ──plan──▶ Device (cpu | cuda)
//! ```
//!
//! - [`model`] reads a weights file into a [`graph`]: plain data, one node an operation.
//! - A [`rule`] says how a signal at a node's output becomes signals at its inputs; the gradient is one rule of several.
//! - [`program`] writes forward pass, score and backward pass as one list of primitives and lays out its memory before
//!   it runs.
//! - A [`device`] carries programs out; the [`engine`] cuts the work into chunks that fit.
//! - A [`method`] perturbs the picture ([`perturb`]), differentiates and aggregates; its answer is a raw [`map::Map`].
//! - `render` (feature `pictures`) draws maps; nothing before it rescales a map.
//!
//! # Example
//!
//! The embedded net, its top class, and a SmoothGrad map of that class:
//!
//! ```
//! # #[cfg(all(feature = "embedded-model", feature = "png"))]
//! # fn main() -> verilume::Result<()> {
//! use verilume::engine::{Batch, Engine, Settings};
//! use verilume::image::{DecodeLimits, Picture};
//! use verilume::method::{Context, Spec};
//! use verilume::model::Model;
//! use verilume::program::Score;
//! use verilume::score::top;
//!
//! let model = Model::embedded()?;
//! let prepare = |path: &std::path::Path| model.preprocess().apply(&Picture::open(path, &DecodeLimits::default())?);
//! let cat = prepare("examples/chelsea.png".as_ref())?;
//! let graph = model.graph(model.default_input())?;
//! let x = Batch::of(vec![cat.tensor])?;
//!
//! let mut engine = Engine::new(&Settings::default())?;
//! let logits = engine.forward(&graph, &x)?; // [1, 1000]
//! let top = top(&logits.to_f64()).unwrap_or(0);
//! assert_eq!(model.labels().get(top), Some("tiger cat"));
//!
//! // `load` is for methods that take a picture as a parameter, such as `ig:baseline=file:grey.png`.
//! let load = |path: &std::path::Path| Ok(prepare(path)?.tensor);
//! let context = Context { seed: 0, score: Score::Logit, preprocess: model.preprocess(), load: &load };
//! let method = Spec::parse("smoothgrad:n=8")?.build(&context)?;
//! let maps = method.explain(&mut engine, &graph, &x, &[top])?;
//! assert_eq!(maps[0].values.dims(), [3, 224, 224]);
//!
//! let overlay = verilume::render::overlay(&cat.view, &maps[0], &Default::default())?;
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
//! | `cli` | the program `verilume` and what only it needs |
//! | `cuda` | computes on NVIDIA GPUs, with libraries that are found at run time |
//!
//! All of them are on by default but can be left out one by one. Without any (`--no-default-features`) the library still
//! reads weights, runs every method on arrays and returns raw maps.
//!
//! # Errors
//!
//! Every fallible function returns [`Error`]: an [`ErrorKind`] that says who can mend it, and one sentence that names the
//! file, tensor, node or option. Numbers that are not finite are errors, in weights, in inputs and in results.
mod cancel;
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
pub mod optimiser;
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
