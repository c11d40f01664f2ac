//! Patterns: for each neuron the direction in its input that its output stems from (Kindermans et al. 2018), fitted to data
//! and kept in a file.

mod fit;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

pub use fit::{Estimator, Fit};

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::engine::{self, Batch, Engine, Job};
use crate::error::{Error, Result, read_file};
use crate::graph::{Encoding, Graph, Node, NodeId, Op, Weight};
use crate::image::Preprocess;
use crate::map::{Map, MapDims, Sign};
use crate::method::{Context, Method, Parameter, ParameterValues, input_maps, numbers_of};
use crate::program::Score;
use crate::rule::{Composite, Pattern, Select};
use crate::tensor::{Precision, check_safetensors};

/// Where patterns come from: written beside them in their file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PatternProvenance {
    /// Version of the program that fitted them.
    pub version: String,
    /// The estimator.
    pub estimator: Estimator,
    /// Pictures they were fitted to.
    pub pictures: usize,
    /// Hash of the weights and biases of the net's layers, batch norms folded: patterns belong to these numbers.
    pub weights_sha256: String,
    /// Numbers the net was run in.
    pub precision: String,
    /// Layers whose output never varied under the estimator, with how many of their neurons: these have the pattern 0.
    pub dead: BTreeMap<String, usize>,
    /// Name, architecture, checksum of the model's file, data, preparation: whatever the caller has to say.
    pub notes: BTreeMap<String, String>,
}

/// One pattern for every neuron of a net.
#[derive(Debug, Clone, PartialEq)]
pub struct Patterns {
    /// Where they come from.
    pub provenance: PatternProvenance,
    /// By node name: extents of the weight and the patterns in its order.
    layers: BTreeMap<String, ([usize; 4], Vec<f64>)>,
}

/// Key in the notes of [`PatternProvenance`] for the pictures' [`Preprocess`], as JSON.
pub const PREPARATION: &str = "preprocessing";

/// Key of the provenance in a file's metadata.
const PROVENANCE: &str = "verilume.patterns";

/// The weight and bias of a node that has them.
fn layer(node: &Node) -> Option<(&Weight, Option<&[f64]>)> {
    match &node.op {
        Op::Linear(linear) => Some((&linear.weight, linear.bias.as_deref())),
        _ => node.conv().map(|conv| (&conv.weight, conv.bias.as_deref())),
    }
}

/// Layers with weights, in order.
fn layers(graph: &Graph) -> impl Iterator<Item = NodeId> + '_ {
    graph.ids().filter(|&id| layer(graph.node(id)).is_some())
}

/// SHA-256 of names, extents, weights and biases of a net's layers, hexadecimal.
fn fingerprint(graph: &Graph) -> String {
    let mut hash = Sha256::new();
    for id in layers(graph) {
        let node = graph.node(id);
        let Some((weight, bias)) = layer(node) else { continue };
        hash.update(format!("{} {:?} {}\n", node.name, weight.dims(), bias.is_some()));
        let mut row = vec![0.0f64; weight.row_len()];
        let mut bytes = Vec::with_capacity(8 * row.len());
        for k in 0..weight.rows() {
            weight.read(k, 0..row.len(), &mut row);
            bytes.clear();
            bytes.extend(row.iter().flat_map(|v| v.to_le_bytes()));
            hash.update(&bytes);
        }
        bias.unwrap_or_default().iter().for_each(|v| hash.update(v.to_le_bytes()));
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Patterns {
    /// The patterns of the layer `name`, `[k, c / groups, kh, kw]` in C order.
    pub fn layer(&self, name: &str) -> Option<&[f64]> {
        self.layers.get(name).map(|(_, values)| values.as_slice())
    }

    /// Serialises to safetensors: one tensor per layer, named after its node, in the precision in which the net was
    /// run.
    ///
    /// # Errors
    /// None for patterns that were fitted or read.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let double = self.provenance.precision == Precision::F64.to_string();
        let raw = |values: &[f64]| -> Vec<u8> {
            if double {
                values.iter().flat_map(|v| v.to_le_bytes()).collect()
            } else {
                values.iter().flat_map(|&v| (v as f32).to_le_bytes()).collect()
            }
        };
        let broken = |e: &dyn std::fmt::Display| Error::model(format!("patterns cannot be written: {e}"));
        let tensors: Vec<_> = self.layers.iter().map(|(name, (dims, values))| (name, dims, raw(values))).collect();
        let dtype = if double { Dtype::F64 } else { Dtype::F32 };
        let views = tensors.iter().map(|(name, dims, raw)| {
            TensorView::new(dtype, dims.to_vec(), raw).map(|view| (name.as_str(), view)).map_err(|e| broken(&e))
        });
        let provenance = serde_json::to_string(&self.provenance).map_err(|e| broken(&e))?;
        let metadata = HashMap::from([(PROVENANCE.to_string(), provenance)]);
        safetensors::serialize(views.collect::<Result<Vec<_>>>()?, Some(metadata)).map_err(|e| broken(&e))
    }

    /// What [`Patterns::to_bytes`] wrote.
    ///
    /// # Errors
    /// When the bytes are no such file or hold numbers that are not finite.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let broken = |e: &dyn std::fmt::Display| Error::model(format!("not a file of patterns: {e}"));
        check_safetensors(bytes).map_err(|e| broken(&e))?;
        let (_, metadata) = SafeTensors::read_metadata(bytes).map_err(|e| broken(&e))?;
        let provenance = metadata.metadata().as_ref().and_then(|m| m.get(PROVENANCE));
        let provenance = provenance.ok_or_else(|| broken(&"its metadata does not say how they were fitted"))?;
        let provenance: PatternProvenance = serde_json::from_str(provenance).map_err(|e| broken(&e))?;
        let mut layers = BTreeMap::new();
        for (name, view) in SafeTensors::deserialize(bytes).map_err(|e| broken(&e))?.iter() {
            let dims: [usize; 4] = view
                .shape()
                .try_into()
                .map_err(|_| broken(&format!("tensor '{name}' has shape {:?}, expected four axes", view.shape())))?;
            let values: Vec<f64> = match view.dtype() {
                Dtype::F32 => view.data().as_chunks().0.iter().map(|&b| f64::from(f32::from_le_bytes(b))).collect(),
                Dtype::F64 => view.data().as_chunks().0.iter().map(|&b| f64::from_le_bytes(b)).collect(),
                other => return Err(broken(&format!("tensor '{name}' has type {other:?}, expected F32 or F64"))),
            };
            if values.iter().any(|v| !v.is_finite()) {
                return Err(broken(&format!("tensor '{name}' holds a number that is not finite")));
            }
            layers.insert(name.to_string(), (dims, values));
        }
        Ok(Self { provenance, layers })
    }

    /// Reads the file at `path`; errors as [`Patterns::from_bytes`].
    ///
    /// # Errors
    /// As [`Patterns::from_bytes`], and when the file cannot be read.
    pub fn open(path: &Path) -> Result<Self> {
        let bytes = read_file(path)?;
        Self::from_bytes(&bytes).map_err(|e| e.within(path.display()))
    }

    /// Refuses a net with other weights than the one they were fitted on.
    ///
    /// # Errors
    /// When the net is another.
    pub fn check(&self, graph: &Graph) -> Result<()> {
        let own = fingerprint(graph);
        let suits = layers(graph).all(|id| {
            let node = graph.node(id);
            let dims = layer(node).map(|(weight, _)| weight.dims());
            self.layers.get(&node.name).map(|(dims, _)| *dims) == dims
        });
        if suits && own == self.provenance.weights_sha256 {
            return Ok(());
        }
        let model = self.provenance.notes.get("model").map_or("another net", String::as_str);
        let short = |hash: &str| hash.chars().take(12).collect::<String>();
        Err(Error::settings(format!(
            "these patterns were fitted on other weights ({model}, {}) than the net's ({}); fit its own with \
             `verilume patterns fit`",
            short(&self.provenance.weights_sha256),
            short(&own)
        )))
    }

    /// The weights that stand in for the net's own on the way back.
    fn rules(&self, graph: &Graph, stand_in: StandIn) -> Result<Composite> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let mut weights = HashMap::new();
        for id in layers(graph) {
            let node = graph.node(id);
            let (Some((weight, _)), Some((dims, pattern))) = (layer(node), self.layers.get(&node.name)) else {
                return Err(Error::settings(format!("'{}' has no pattern", node.name)));
            };
            let values = match stand_in {
                StandIn::Pattern => pattern.clone(),
                StandIn::WeightTimesPattern => weight.to_f64().iter().zip(pattern).map(|(w, a)| w * a).collect(),
            };
            let (encoding, bytes): (_, Vec<u8>) = if self.provenance.precision == Precision::F64.to_string() {
                (Encoding::F64, values.iter().flat_map(|v: &f64| v.to_le_bytes()).collect())
            } else {
                (Encoding::F32, values.iter().flat_map(|&v| (v as f32).to_le_bytes()).collect())
            };
            weights.insert(id, Weight::stored(*dims, Arc::new(bytes), 0, encoding)?);
        }
        let name = NEXT.fetch_add(1, Ordering::Relaxed).to_string();
        Ok(Composite::new(vec![(Select::Every, Arc::new(Pattern { name, weights }))]))
    }
}

/// What takes the place of a weight w with the pattern a.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StandIn {
    /// a.
    Pattern,
    /// w ∘ a.
    WeightTimesPattern,
}

/// The parameter of both methods.
pub(crate) const PARAMETERS: &[Parameter] = &[Parameter {
    key: "patterns",
    unit: "FILE",
    default: Parameter::REQUIRED,
    help: "made for this net by `verilume patterns fit`",
}];

/// The gradient with patterns in place of weights.
struct Back {
    id: &'static str,
    score: Score,
    stand_in: StandIn,
    /// What errors call the patterns.
    source: String,
    patterns: Patterns,
    /// The rules for the graph of this id, made when it is first met.
    ready: Mutex<Option<(u64, Composite)>>,
}

/// The method `id` with the given values.
pub(crate) fn build(
    id: &'static str,
    stand_in: StandIn,
    values: &ParameterValues,
    context: &Context<'_>,
) -> Result<Box<dyn Method>> {
    let path = match values.text("patterns")? {
        "" | Parameter::REQUIRED => {
            return Err(Error::settings(format!(
                "{id} needs patterns fitted to data: make them with `verilume patterns fit --data FOLDER -o \
                 patterns.safetensors` and give {id}:patterns=patterns.safetensors"
            )));
        }
        path => PathBuf::from(path),
    };
    let patterns = Patterns::open(&path).map_err(|e| e.within(id))?;
    let source = format!("{id}:patterns={}", path.display());
    // Whoever fitted them without the program may have noted nothing.
    let fitted =
        patterns.provenance.notes.get(PREPARATION).and_then(|text| serde_json::from_str::<Preprocess>(text).ok());
    // Patterns are directions at a position, so the size of the pictures may differ.
    let sized =
        |fitted: Preprocess| Preprocess { resize: context.preprocess.resize, crop: context.preprocess.crop, ..fitted };
    if fitted.is_some_and(|fitted| sized(fitted) != *context.preprocess) {
        return Err(Error::settings(format!(
            "{source}: these patterns were fitted to pictures that were prepared in another way (mean, std, channels or \
             interpolation)"
        )));
    }
    Ok(Box::new(Back { id, score: context.score, stand_in, source, patterns, ready: Mutex::new(None) }))
}

/// `pattern_net` with patterns that were fitted just now.
pub fn pattern_net(patterns: Patterns, score: Score) -> Box<dyn Method> {
    fitted("pattern_net", StandIn::Pattern, patterns, score)
}

/// `pattern_attribution` with patterns that were fitted just now.
pub fn pattern_attribution(patterns: Patterns, score: Score) -> Box<dyn Method> {
    fitted("pattern_attribution", StandIn::WeightTimesPattern, patterns, score)
}

fn fitted(id: &'static str, stand_in: StandIn, patterns: Patterns, score: Score) -> Box<dyn Method> {
    Box::new(Back { id, score, stand_in, source: id.into(), patterns, ready: Mutex::new(None) })
}

impl Back {
    fn rules(&self, graph: &Graph) -> Result<Composite> {
        let mut ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((id, rules)) = &*ready
            && *id == graph.id()
        {
            return Ok(rules.clone());
        }
        let within = |e: Error| e.within(&self.source);
        self.patterns.check(graph).map_err(within)?;
        let rules = self.patterns.rules(graph, self.stand_in)?;
        *ready = Some((graph.id(), rules.clone()));
        Ok(rules)
    }

    /// A class whose logit never varied has no pattern to start with: its map would say nothing.
    fn refuse_dead(&self, graph: &Graph, targets: &[usize]) -> Result<()> {
        let Some((dims, pattern)) = self.patterns.layers.get(&graph.node(graph.output()).name) else { return Ok(()) };
        let row = dims[1] * dims[2] * dims[3];
        let dead = |t: &&usize| pattern[**t * row..][..row].iter().all(|&a| a == 0.0);
        match targets.iter().find(dead) {
            None => Ok(()),
            // Which class is explained may be each input's own.
            Some(target) => Err(Error::input(format!(
                "{}: class {target} has no pattern: no picture it was fitted to made that logit vary (relu: above 0)",
                self.source
            ))),
        }
    }
}

impl Method for Back {
    fn map_dims(&self, graph: &Graph) -> Result<MapDims> {
        Ok(numbers_of(graph))
    }

    fn explain(&self, engine: &mut Engine, graph: &Graph, x: &Batch, targets: &[usize]) -> Result<Vec<Map>> {
        engine::check(graph, x, targets)?;
        // The patterns in double precision, and what stands in for the weights.
        let numbers: usize = self.patterns.layers.values().map(|(_, values)| values.len()).sum();
        let bytes = numbers * (size_of::<f64>() + engine.describe().precision.bytes());
        engine.keeping((self.id, bytes), |engine| {
            let rules = self.rules(graph)?;
            self.refuse_dead(graph, targets)?;
            let job = Job { rules, ..Job::gradient(self.score) };
            input_maps(engine, graph, &job, x, targets, Sign::Signed, self.id)
        })
    }
}
