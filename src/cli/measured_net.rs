//! What `bench` and `profile` measure: a net, noise for pictures, a fixed class.

use std::path::Path;
use std::sync::Arc;

use anyhow::Result;

use crate::cli::args::MeasuredArgs;
use crate::cli::plan;
use crate::cli::talk::InputProgress;
use crate::data::{Room, size};
use crate::engine::{Batch, Settings};
use crate::graph::Graph;
use crate::method::{Context, Method, Spec};
use crate::model::Model;
use crate::program::Score;
use crate::random;
use crate::run::Listener;
use crate::tensor::{Precision, Shape, Tensor};

/// The class explained, modulo the number of classes.
const CLASS: usize = 281;

/// A batch of this size takes a while to draw: it is said.
const SAID_BYTES: u64 = 1 << 30;

/// A net that is ready to be measured.
pub struct MeasuredNet {
    pub model: Model,
    pub graph: Arc<Graph>,
    pub seed: u64,
}

impl MeasuredNet {
    /// Opens the net or draws its weights.
    pub fn new(args: &MeasuredArgs, seed: u64) -> Result<Self> {
        let model = match &args.random_weights {
            Some(net) => Model::random(net, seed)?,
            None => plan::open_model(&args.model)?,
        };
        let default = model.default_input();
        let shape = args.size.map_or(default, |size| Shape::new(default.c, size.crop[0], size.crop[1]));
        let graph = model.graph(shape)?;
        Ok(Self { model, graph, seed })
    }

    /// The class explained.
    pub fn target(&self) -> usize {
        CLASS % self.graph.classes()
    }

    /// `n` different pictures of standard normal noise.
    ///
    /// # Errors
    /// When they and their maps need more than `settings` allow or than is there.
    pub fn batch(&self, n: usize, settings: &Settings, progress: &InputProgress) -> Result<Batch> {
        let shape = self.graph.input_shape();
        // Each picture is drawn once and answered by a map of its size.
        let number = match settings.precision {
            Precision::F32 => size_of::<f32>(),
            Precision::F64 => size_of::<f64>(),
        };
        let bytes = ((size_of::<f32>() + number) as u64).saturating_mul(shape.len() as u64).saturating_mul(n as u64);
        Room { allowed: settings.memory }
            .check(|| format!("a batch of {n} pictures of {shape} with their maps"), bytes)?;
        if bytes >= SAID_BYTES {
            let size = size(bytes);
            progress.say(&format!("a batch of {n} pictures of {shape} and their maps take {size}"));
        }
        let picture = |i: usize| {
            let mut values = vec![0.0; shape.len()];
            random::fill_normals(self.seed, i as u64, 0, 0, &mut values);
            Tensor::f32(shape.dims(), values)
        };
        Ok(Batch::of((0..n).map(picture).collect::<crate::Result<_>>()?)?)
    }

    /// The method, which may not read files.
    pub fn method(&self, spec: &Spec) -> Result<Box<dyn Method>> {
        let load =
            |path: &Path| Err(crate::Error::settings(format!("{}: a measurement reads no pictures", path.display())));
        let preprocess = self.model.preprocess();
        Ok(spec.build(&Context { seed: self.seed, score: Score::Logit, preprocess, load: &load })?)
    }
}
