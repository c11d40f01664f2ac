//! Common parts of class activation maps: the layer, the plane computed from it, and the map made from the plane.

use crate::engine::{Batch, Copies, Engine, Script, Task};
use crate::error::{Error, Result};
use crate::graph::{Graph, NodeId, Op};
use crate::map::{Map, ONE_POSITION, Sign, Space};
use crate::method::{Context, Method, Parameter, ParameterValues, Promise, When};
use crate::program::{Builder, Score, Value};
use crate::rule::{Composite, pull_back};
use crate::tensor::resample::{Upsample, upsample};
use crate::tensor::{Shape, Tensor};

/// Parameters of all class activation maps.
pub(crate) const PARAMETERS: [Parameter; 3] = [
    Parameter {
        key: "layer",
        unit: "a stage or node",
        default: "last",
        help: "whose activations; `model dump` lists them, `last` is the last stage",
    },
    Parameter {
        key: "upsample",
        unit: "bilinear|nearest|none",
        default: "bilinear",
        help: "to the input's size, or the layer's own positions",
    },
    Parameter { key: "relu", unit: "yes|no", default: "yes", help: "no: the signed sum" },
];

/// Promises of all class activation maps.
pub(crate) const PROMISES: [(Promise, When); 1] = [(Promise::NotNegative, When::With("relu", "yes"))];

/// The layer, and how its plane becomes a map.
#[derive(Debug, Clone)]
pub(crate) struct Cam {
    pub id: &'static str,
    pub layer: String,
    pub upsample: Upsample,
    pub rectify: Rectify,
}

/// Whether negative values of a plane are set to zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rectify {
    Yes,
    No,
}

/// A layer of one graph.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CamLayer {
    pub node: NodeId,
    /// Shape of its activations.
    pub shape: Shape,
}

impl Cam {
    /// For method `id`, from its parameters.
    ///
    /// # Errors
    /// When a parameter has an unknown value.
    pub fn new(id: &'static str, values: &ParameterValues) -> Result<Self> {
        let rectify = match values.text("relu")? {
            "yes" => Rectify::Yes,
            "no" => Rectify::No,
            other => return Err(Error::settings(format!("{id}:relu={other}: there are yes and no"))),
        };
        Ok(Self { id, layer: values.text("layer")?.into(), upsample: values.parse("upsample")?, rectify })
    }

    /// The layer in `graph`.
    ///
    /// # Errors
    /// When there is no layer of this name, or it is a vector.
    pub fn layer(&self, graph: &Graph) -> Result<CamLayer> {
        let node = match self.layer.as_str() {
            "last" => graph
                .stages()
                .last()
                .map(|s| s.1)
                .ok_or_else(|| Error::settings("this net has no stages; name a layer"))?,
            name => graph.find(name)?,
        };
        let here = graph.node(node);
        if !has_positions(graph, node) {
            return Err(Error::settings(format!(
                "{} needs a layer with positions; '{}' gives a vector ({}), because it follows a flattening",
                self.id, here.name, here.shape
            )));
        }
        Ok(CamLayer { node, shape: here.shape })
    }

    /// One map per picture, from planes `[1, h, w]` of the layer.
    ///
    /// # Errors
    /// When a plane's size is not the layer's.
    pub fn maps(
        &self,
        planes: &[Tensor],
        graph: &Graph,
        layer: CamLayer,
        x: &Batch,
        targets: &[usize],
    ) -> Result<Vec<Map>> {
        let (from, to) = ([layer.shape.h, layer.shape.w], [x.shape().h, x.shape().w]);
        let map = |(plane, &target): (&Tensor, &usize)| {
            let mut numbers = plane.to_f64().into_owned();
            if self.rectify == Rectify::Yes {
                numbers.iter_mut().for_each(|v| *v = v.max(0.0));
            }
            let [h, w] = self.upsample.size(from, to);
            let numbers = upsample(&numbers, from, to, self.upsample)?;
            let space = match self.upsample {
                Upsample::None => Space::Layer(graph.node(layer.node).name.clone()),
                Upsample::Bilinear | Upsample::Nearest => Space::Input,
            };
            let sign = if self.rectify == Rectify::Yes { Sign::Unsigned } else { Sign::Signed };
            let mut notes = Vec::new();
            if layer.shape.plane() == 1 {
                notes.push((ONE_POSITION.into(), numbers.first().copied().unwrap_or(0.0)));
            }
            let values = Tensor::rounded([h, w], numbers, plane.precision())?;
            Ok(Map { notes, ..Map::new(values, sign, space, target, self.id) })
        };
        planes.iter().zip(targets).map(map).collect()
    }
}

/// Computes a plane from a layer's activations and the score's gradient with respect to them.
pub(crate) trait Reading: Clone + Eq + std::hash::Hash + std::fmt::Debug + Send + Sync + 'static {
    /// Writes the steps: from activations and gradient, `[c, h, w]` each, to one plane `[1, h, w]`.
    fn read(&self, b: &mut Builder<'_>, activation: Value, gradient: Value) -> Result<Value>;
}

/// A map computed from activations and their gradient.
pub(crate) struct GradientCam<R> {
    cam: Cam,
    score: Score,
    reading: R,
}

impl<R: Reading> GradientCam<R> {
    /// Method `id` with the given values.
    ///
    /// # Errors
    /// As [`Cam::new`].
    pub fn new(id: &'static str, reading: R, values: &ParameterValues, context: &Context<'_>) -> Result<Self> {
        Ok(Self { cam: Cam::new(id, values)?, score: context.score, reading })
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct ReadOff<R> {
    score: Score,
    node: NodeId,
    reading: R,
}

impl<R: Reading> Script for ReadOff<R> {
    type Notes = ();

    fn write(&self, b: &mut Builder<'_>) -> Result<()> {
        let seed = b.seed(self.score);
        let gradient = pull_back(b, &Composite::gradient(), b.graph().output(), seed, self.node)?;
        let activation = b.output(self.node);
        let plane = self.reading.read(b, activation, gradient)?;
        b.store(plane, 0)
    }
}

impl<R: Reading> Method for GradientCam<R> {
    fn explain(&self, engine: &mut Engine, graph: &Graph, x: &Batch, targets: &[usize]) -> Result<Vec<Map>> {
        let layer = self.cam.layer(graph)?;
        let task = Task { x, targets, copies: &Copies::one(), loads: &[] };
        let script = ReadOff { score: self.score, node: layer.node, reading: self.reading.clone() };
        let outcome = engine.evaluate(graph, &script, &task)?;
        let planes = outcome.stores.first().map_or(&[][..], Vec::as_slice);
        self.cam.maps(planes, graph, layer, x, targets)
    }
}

/// Sums each channel's plane; the result is a vector.
pub(crate) fn spatial_sum(b: &mut Builder<'_>, x: Value) -> Result<Value> {
    let mean = b.spatial_mean(x)?;
    let plane = b.shape(x).plane();
    b.scale(mean, plane as f64)
}

/// Sums over channels; the result is one plane.
pub(crate) fn channel_sum(b: &mut Builder<'_>, x: Value) -> Result<Value> {
    let c = b.shape(x).c;
    let ones = b.fill(Shape::vector(c), vec![1.0; c])?;
    b.weighted_channel_sum(ones, x)
}

/// `x + k`.
pub(crate) fn plus(b: &mut Builder<'_>, x: Value, k: f64) -> Result<Value> {
    let shape = b.shape(x);
    let k = b.fill(shape, vec![k; shape.c])?;
    b.add(x, k)
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Weighted(Shape);

impl Script for Weighted {
    type Notes = ();

    fn write(&self, b: &mut Builder<'_>) -> Result<()> {
        let activation = b.load(0, self.0)?;
        let weights = b.load(1, Shape::vector(self.0.c))?;
        let plane = b.weighted_channel_sum(weights, activation)?;
        b.store(plane, 0)
    }
}

/// `Σ_k weights_k A_k` per picture, from activations `[c, h, w]` and weights `[c]`: planes `[1, h, w]`.
pub(crate) fn weighted(
    engine: &mut Engine,
    graph: &Graph,
    layer: CamLayer,
    x: &Batch,
    targets: &[usize],
    [activations, weights]: [Vec<Tensor>; 2],
) -> Result<Vec<Tensor>> {
    let loads = [activations, weights];
    let task = Task { x, targets, copies: &Copies::one(), loads: &loads };
    let mut outcome = engine.evaluate(graph, &Weighted(layer.shape), &task)?;
    Ok(outcome.stores.pop().unwrap_or_default())
}

/// Whether the node's rows and columns correspond to positions in the picture, i.e. nothing before it flattens them.
pub(crate) fn has_positions(graph: &Graph, node: NodeId) -> bool {
    let mut flattened = vec![false; graph.nodes().len()];
    for id in graph.ids().take(node.index() + 1) {
        let here = graph.node(id);
        let before = here.inputs.iter().any(|input| flattened[input.index()]);
        flattened[id.index()] = before || matches!(here.op, Op::Flatten | Op::Linear(_));
    }
    !flattened[node.index()]
}
