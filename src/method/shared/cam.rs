//! Common parts of class activation maps: the layer, the plane computed from it, and the map made from the plane.

use crate::device::Spare;
use crate::engine::{Batch, Copies, Engine, Script, Task};
use crate::error::{Error, Result};
use crate::graph::{Graph, NodeId};
use crate::map::{Map, MapDims, ONE_POSITION, Sign, Space};
use crate::method::{Context, Method, Parameter, ParameterValues, Promise, When};
use crate::program::{Builder, Score, Value};
use crate::rule::{Composite, pull_back};
use crate::tensor::resample::{Upsample, upsample_into};
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
        if !graph.has_positions(node) {
            return Err(Error::settings(format!(
                "{} needs a layer with positions; '{}' gives a vector ({}), because it follows a flattening",
                self.id, here.name, here.shape
            )));
        }
        Ok(CamLayer { node, shape: here.shape })
    }

    /// The axes of the maps.
    ///
    /// # Errors
    /// As [`Cam::layer`].
    pub fn dims(&self, graph: &Graph) -> Result<MapDims> {
        let (from, to) = (self.layer(graph)?.shape, graph.input_shape());
        Ok(MapDims::Plane(self.upsample.size([from.h, from.w], [to.h, to.w])))
    }

    /// One map per picture, from planes `[1, h, w]` of the layer.
    ///
    /// # Errors
    /// When a plane's size is not the layer's.
    pub fn maps(
        &self,
        spare: &mut Spare,
        planes: &[Tensor],
        graph: &Graph,
        layer: CamLayer,
        x: &Batch,
        targets: &[usize],
    ) -> Result<Vec<Map>> {
        let (from, to) = ([layer.shape.h, layer.shape.w], [x.shape().h, x.shape().w]);
        let dims = self.upsample.size(from, to);
        let mut maps = spare.take(planes.len());
        for (plane, &target) in planes.iter().zip(targets) {
            let mut numbers = spare.of(plane.each());
            if self.rectify == Rectify::Yes {
                numbers.iter_mut().for_each(|v| *v = v.max(0.0));
            }
            let mut large = spare.take(dims[0] * dims[1]);
            upsample_into(&numbers, from, to, self.upsample, &mut large)?;
            spare.keep(numbers);
            let space = match self.upsample {
                Upsample::None => Space::Layer(graph.node(layer.node).name.clone()),
                Upsample::Bilinear | Upsample::Nearest => Space::Input,
            };
            let sign = if self.rectify == Rectify::Yes { Sign::Unsigned } else { Sign::Signed };
            let mut notes = Vec::new();
            if layer.shape.plane() == 1 {
                notes.push((ONE_POSITION.into(), large.first().copied().unwrap_or(0.0)));
            }
            let values = spare.round(&dims, large, plane.precision())?;
            maps.push(Map { notes, ..Map::new(values, sign, space, target, self.id) });
        }
        Ok(maps)
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
    fn map_dims(&self, graph: &Graph) -> Result<MapDims> {
        self.cam.dims(graph)
    }

    fn explain(&self, engine: &mut Engine, graph: &Graph, x: &Batch, targets: &[usize]) -> Result<Vec<Map>> {
        let layer = self.cam.layer(graph)?;
        let task = Task { x, targets, copies: Copies::single(), loads: &[] };
        let script = ReadOff { score: self.score, node: layer.node, reading: self.reading.clone() };
        let outcome = engine.evaluate(graph, &script, &task)?;
        let planes = outcome.stores.first().map_or(&[][..], Vec::as_slice);
        let maps = self.cam.maps(engine.spare(), planes, graph, layer, x, targets);
        outcome.keep_in(engine.spare());
        maps
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
