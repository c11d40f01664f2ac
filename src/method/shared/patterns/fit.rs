//! Fits patterns to data: covariances of what a neuron gets and what it gives, summed over pictures as they come.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{PatternProvenance, Patterns, fingerprint, layer, layers};
use crate::device::threads::{for_each, start_pool};
use crate::engine::{Batch, Engine};
use crate::error::{Error, Result};
use crate::graph::{Graph, NodeId};
use crate::tensor::{Shape, Tensor, Window};

/// Over which samples a neuron's covariance is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Estimator {
    /// Those on which its output, bias included, is above 0 (also where no ReLU follows).
    ///
    /// The paper's equation 14 takes one of its means over all samples; that changes when all data are shifted and the bias
    /// makes up for it. Here all are taken over the same samples.
    #[default]
    Relu,
    /// All.
    Linear,
}

impl std::fmt::Display for Estimator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Estimator::Relu => "relu",
            Estimator::Linear => "linear",
        })
    }
}

impl std::str::FromStr for Estimator {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self> {
        match s {
            "relu" => Ok(Estimator::Relu),
            "linear" => Ok(Estimator::Linear),
            _ => Err(Error::settings(format!("no estimator is named '{s}'; there are relu and linear"))),
        }
    }
}

/// Sums of one neuron over its samples, numbers taken less their pivots.
#[derive(Debug, Clone)]
struct Sums {
    n: u64,
    y: f64,
    yy: f64,
    x: Vec<f64>,
    xy: Vec<f64>,
}

/// One layer: where it reads, how its window slides, and the sums of its neurons.
#[derive(Debug)]
struct FittedLayer {
    node: NodeId,
    name: String,
    dims: [usize; 4],
    /// None for a linear layer, which reads all at once.
    window: Option<Window>,
    groups: usize,
    input: Shape,
    output: Shape,
    /// Mean over the first picture of each input channel and of each output: a product of numbers far from 0 would lose
    /// digits.
    pivots: Option<(Vec<f64>, Vec<f64>)>,
    neurons: Vec<Sums>,
}

/// Bytes of feature maps read at a time.
const MOST_BYTES: usize = 64 << 20;

/// Numbers of a block of samples.
const BLOCK: usize = 1 << 18;

/// A neuron whose output varies by less than this share of its mean square does not vary.
const DEAD: f64 = 1e-10;

/// Running covariances of every neuron of a net; 16 bytes a weight, whatever the number of pictures.
///
/// A convolution's samples are its positions, zeros of the padding included.
pub struct Fit {
    estimator: Estimator,
    layers: Vec<FittedLayer>,
    pictures: usize,
    /// The first picture, until another differs from it.
    all_are: Option<Tensor>,
    precision: Option<String>,
    pool: Option<rayon::ThreadPool>,
}

impl std::fmt::Debug for Fit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fit")
            .field("estimator", &self.estimator)
            .field("pictures", &self.pictures)
            .finish_non_exhaustive()
    }
}

fn mean(plane: &[f64]) -> f64 {
    plane.iter().sum::<f64>() / plane.len() as f64
}

impl FittedLayer {
    fn new(graph: &Graph, id: NodeId) -> Option<Self> {
        let node = graph.node(id);
        let (weight, _) = layer(node)?;
        let (window, groups) = node.conv().map_or((None, 1), |conv| (Some(conv.window), conv.groups));
        // Their sums grow with the first picture.
        let sums = Sums { n: 0, y: 0.0, yy: 0.0, x: Vec::new(), xy: Vec::new() };
        Some(Self {
            node: id,
            name: node.name.clone(),
            dims: weight.dims(),
            window,
            groups,
            input: graph.node(node.inputs[0]).shape,
            output: node.shape,
            pivots: None,
            neurons: vec![sums; weight.rows()],
        })
    }

    /// Numbers of one sample: what all groups read.
    fn sample_len(&self) -> usize {
        let [_, _, kh, kw] = self.dims;
        self.input.c * kh * kw
    }

    /// What the layer reads at output position `(y, x)`, less the pivots, in the order of a weight's row.
    fn patch(&self, input: &[f64], [y, x]: [usize; 2], pivots: &[f64], out: &mut Vec<f64>) {
        let Shape { h, w, .. } = self.input;
        let Some(window) = &self.window else {
            out.extend(input.iter().zip(pivots).map(|(v, p)| v - p));
            return;
        };
        let pads = window.pads(h, w);
        let at = |o: usize, tap: usize, a: usize, size: usize| {
            (o * window.stride[a] + tap * window.dilation[a]).checked_sub(pads[a][0]).filter(|&i| i < size)
        };
        for (plane, pivot) in input.chunks(h * w).zip(pivots) {
            for ky in 0..window.kernel[0] {
                for kx in 0..window.kernel[1] {
                    let place = at(y, ky, 0, h).zip(at(x, kx, 1, w));
                    out.push(place.map_or(0.0, |(row, column)| plane[row * w + column]) - pivot);
                }
            }
        }
    }

    /// Adds the positions of one picture, in order.
    fn add(&mut self, input: &Tensor, output: &Tensor, estimator: Estimator, pool: Option<&rayon::ThreadPool>) {
        let (input, output) = (input.to_f64(), output.to_f64());
        let (plane, positions) = (self.input.plane(), self.output.plane());
        let (x_pivots, y_pivots) = self.pivots.take().unwrap_or_else(|| {
            let x = if self.window.is_some() { input.chunks(plane).map(mean).collect() } else { input.to_vec() };
            (x, output.chunks(positions).map(mean).collect())
        });
        let (len, row) = (self.sample_len(), self.dims[1] * self.dims[2] * self.dims[3]);
        for sums in self.neurons.iter_mut().flat_map(|s| [&mut s.x, &mut s.xy]) {
            sums.resize(row, 0.0);
        }
        let group = self.neurons.len() / self.groups;
        let step = (BLOCK / len).max(1);
        let mut block = Vec::new();
        for first in (0..positions).step_by(step) {
            let last = positions.min(first + step);
            block.clear();
            for p in first..last {
                self.patch(&input, [p / self.output.w, p % self.output.w], &x_pivots, &mut block);
            }
            let one = |(k, sums): (usize, &mut Sums)| {
                let columns = k / group * row..(k / group + 1) * row;
                for (p, sample) in (first..last).zip(block.chunks(len)) {
                    let y = output[k * positions + p];
                    // A NaN is no sample of the ReLU's; the engine refuses it before it comes here.
                    if estimator == Estimator::Relu && !(y > 0.0) {
                        continue;
                    }
                    let y = y - y_pivots[k];
                    sums.n += 1;
                    sums.y += y;
                    sums.yy += y * y;
                    for ((sx, sxy), x) in sums.x.iter_mut().zip(&mut sums.xy).zip(&sample[columns.clone()]) {
                        *sx += x;
                        *sxy += x * y;
                    }
                }
            };
            for_each(self.neurons.iter_mut().enumerate().collect(), pool, one);
        }
        self.pivots = Some((x_pivots, y_pivots));
    }

    /// a = cov[x, y] / (wᵀ cov[x, y]) of each neuron, 0 for one that does not vary; and how many do not.
    fn patterns(&self, graph: &Graph) -> (Vec<f64>, usize) {
        let Some((weight, _)) = layer(graph.node(self.node)) else { return (Vec::new(), 0) };
        let mut row = vec![0.0; weight.row_len()];
        let (mut all, mut dead) = (Vec::with_capacity(weight.len()), 0);
        for (k, sums) in self.neurons.iter().enumerate() {
            weight.read(k, 0..row.len(), &mut row);
            let n = sums.n as f64;
            let covariance = sums.xy.iter().zip(&sums.x).map(|(xy, x)| xy / n - x / n * (sums.y / n));
            let covariance: Vec<f64> = covariance.collect();
            let scale: f64 = row.iter().zip(&covariance).map(|(w, c)| w * c).sum();
            if sums.n > 1 && scale > DEAD * sums.yy / n {
                all.extend(covariance.iter().map(|c| c / scale));
            } else {
                dead += 1;
                all.resize(all.len() + row.len(), 0.0);
            }
        }
        (all, dead)
    }
}

impl Fit {
    /// Nothing seen yet of the net `graph`; `threads` share the work, sums do not depend on their number.
    ///
    /// # Errors
    /// When the net has no layer with weights, or threads cannot be started.
    pub fn new(graph: &Graph, estimator: Estimator, threads: usize) -> Result<Self> {
        let layers: Vec<FittedLayer> = layers(graph).filter_map(|id| FittedLayer::new(graph, id)).collect();
        if layers.is_empty() {
            return Err(Error::model("a net without weights has no patterns"));
        }
        let pool = start_pool(threads)?;
        Ok(Self { estimator, layers, pictures: 0, all_are: None, precision: None, pool })
    }

    /// Adds pictures; `graph` is the net that [`Fit::new`] was given. How pictures are grouped into batches changes nothing.
    ///
    /// # Errors
    /// As [`Engine::forward`].
    pub fn add(&mut self, engine: &mut Engine, graph: &Graph, x: &Batch) -> Result<()> {
        let mut nodes: Vec<NodeId> = self.layers.iter().flat_map(|l| [graph.node(l.node).inputs[0], l.node]).collect();
        nodes.sort_unstable();
        nodes.dedup();
        let at = |id: NodeId| nodes.binary_search(&id).map_err(|_| Error::model("a layer of another net"));
        let numbers: usize = nodes.iter().map(|&id| graph.node(id).shape.len()).sum();
        let precision = engine.describe().precision;
        if self.pictures == 0 {
            self.all_are = x.items().first().cloned();
        }
        if self.all_are.as_ref().is_some_and(|first| x.items().iter().any(|picture| picture != first)) {
            self.all_are = None;
        }
        // Outputs are held twice while they are gathered.
        let maps = 2 * numbers * precision.bytes();
        let together = engine.together(maps, MOST_BYTES / maps);
        // The sums, then the patterns and the file made of them; a block of samples and a layer in double precision.
        let weights: usize = self.layers.iter().map(|l| l.dims.iter().product::<usize>()).sum();
        let kept = weights * (4 * size_of::<f64>()) + BLOCK * size_of::<f64>();
        for items in x.items().chunks(together) {
            let x = Batch::of(items.to_vec())?;
            let outputs =
                engine.keeping(("the fit of patterns", kept), |engine| engine.node_outputs(graph, &x, &nodes))?;
            for layer in &mut self.layers {
                let (input, output) = (&outputs[at(graph.node(layer.node).inputs[0])?], &outputs[at(layer.node)?]);
                for i in 0..items.len() {
                    layer.add(&input.item(i)?, &output.item(i)?, self.estimator, self.pool.as_ref());
                }
            }
            self.pictures += items.len();
        }
        self.precision = Some(precision.to_string());
        Ok(())
    }

    /// Pictures seen so far.
    pub fn pictures(&self) -> usize {
        self.pictures
    }

    /// The patterns of `graph`, with `notes` in their provenance.
    ///
    /// # Errors
    /// When fewer than two pictures were seen, or all were the same.
    pub fn finish(&self, graph: &Graph, notes: BTreeMap<String, String>) -> Result<Patterns> {
        let (Some(precision), 2..) = (&self.precision, self.pictures) else {
            return Err(Error::input(format!("{} pictures are too few for a covariance", self.pictures)));
        };
        if self.all_are.is_some() {
            return Err(Error::input(format!(
                "the {} pictures are all the same: nothing varies from one to another, so there is no covariance",
                self.pictures
            )));
        }
        let mut dead = BTreeMap::new();
        let fitted = self.layers.iter().map(|layer| {
            let (values, none) = layer.patterns(graph);
            if none > 0 {
                dead.insert(layer.name.clone(), none);
            }
            (layer.name.clone(), (layer.dims, values))
        });
        let layers = fitted.collect();
        let provenance = PatternProvenance {
            version: env!("CARGO_PKG_VERSION").into(),
            estimator: self.estimator,
            pictures: self.pictures,
            weights_sha256: fingerprint(graph),
            precision: precision.clone(),
            dead,
            notes,
        };
        Ok(Patterns { provenance, layers })
    }
}
