//! The detector's own net: two convolutions and one linear layer, with gradients of its weights.

use std::sync::Arc;

use crate::engine::{Batch, Copies, Engine, Script, Task};
use crate::error::{Error, Result};
use crate::graph::{Conv, Encoding, Graph, GraphBuilder, Linear, Op, Weight};
use crate::program::{Builder, Score};
use crate::random::Stream;
use crate::rule::weight_gradients;
use crate::tensor::{Shape, Tensor, Window};

/// Channels of the two convolutions.
const FILTERS: [usize; 2] = [8, 16];

/// Class index of clean pictures; [`ATTACKED`] is that of attacked ones.
pub const CLEAN: usize = 0;
/// See [`CLEAN`].
pub const ATTACKED: usize = 1;

/// The position of a layer's weight and bias among the parameters.
#[derive(Debug, Clone, Copy)]
pub(super) struct DetectorLayer {
    pub name: &'static str,
    pub dims: [usize; 4],
}

impl DetectorLayer {
    pub fn weights(&self) -> usize {
        self.dims.iter().product()
    }

    pub fn parameters(&self) -> usize {
        self.weights() + self.dims[0]
    }
}

/// Convolution 3×3 (8 channels, padding 1), ReLU, max-pool 2×2, convolution 3×3 (16 channels, padding 1), ReLU,
/// max-pool 2×2, linear layer to two classes, clean and attacked. The paper's net is not public; this one is our own.
#[derive(Debug, Clone, PartialEq)]
pub struct Net {
    input: Shape,
    /// Per layer: the weight, `[k, c, kh, kw]` in C order, then the bias.
    parameters: Vec<f64>,
}

/// Most pictures per batch: their gradients are held until they are summed.
const TOGETHER: usize = 64;

impl Net {
    /// A net for stacks of maps of shape `input`, with weights drawn as in He et al. (2015) (normal with variance 2 /
    /// fan-in; the last layer's 1 / fan-in) and zero biases.
    ///
    /// # Errors
    /// When `input` has fewer than 4 rows or columns or is too large.
    pub fn new(input: Shape, seed: u64) -> Result<Self> {
        let mut parameters = Vec::new();
        for (i, layer) in layers(input)?.iter().enumerate() {
            let fan: usize = layer.dims[1..].iter().product();
            let gain = if layer.name == "fc" { 1.0 } else { 2.0 };
            let mut draws = vec![0f32; layer.weights()];
            Stream::DetectorWeights.normals(seed, i as u64, 0, &mut draws);
            parameters.extend(draws.iter().map(|&z| f64::from(z) * (gain / fan as f64).sqrt()));
            parameters.extend(std::iter::repeat_n(0.0, layer.dims[0]));
        }
        Ok(Self { input, parameters })
    }

    /// With the given parameters.
    ///
    /// # Errors
    /// As [`Net::new`], and when the number of parameters is wrong, or one is not finite.
    pub fn with(input: Shape, parameters: Vec<f64>) -> Result<Self> {
        let wanted: usize = layers(input)?.iter().map(DetectorLayer::parameters).sum();
        if parameters.len() != wanted || parameters.iter().any(|p| !p.is_finite()) {
            return Err(Error::model(format!(
                "a detector on {input} has {wanted} finite parameters, not {} of which some may not be",
                parameters.len()
            )));
        }
        Ok(Self { input, parameters })
    }

    /// Shape of its stacks of maps.
    pub fn input(&self) -> Shape {
        self.input
    }

    /// All parameters; per layer, the weight, `[k, c, kh, kw]` in C order, then the bias.
    pub fn parameters(&self) -> &[f64] {
        &self.parameters
    }

    /// All parameters, mutable.
    pub fn parameters_mut(&mut self) -> &mut [f64] {
        &mut self.parameters
    }

    pub(super) fn layers(&self) -> Result<[DetectorLayer; 3]> {
        layers(self.input)
    }

    /// The net with its current parameters.
    ///
    /// # Errors
    /// Never for a net made by [`Net::new`] or [`Net::with`].
    pub fn graph(&self) -> Result<Graph> {
        let mut b = GraphBuilder::new(self.input);
        let (mut at, mut rest) = (b.input(), self.parameters.as_slice());
        for layer in self.layers()? {
            let (weight, after) = rest.split_at(layer.weights());
            let (bias, after) = after.split_at(layer.dims[0]);
            rest = after;
            let bytes: Vec<u8> = weight.iter().flat_map(|v| v.to_le_bytes()).collect();
            let weight = Weight::stored(layer.dims, Arc::new(bytes), 0, Encoding::F64)?;
            let bias = Some(Arc::from(bias));
            if layer.name == "fc" {
                at = b.push("flatten", Op::Flatten, &[at])?;
                at = b.push(layer.name, Op::Linear(Linear { weight, bias }), &[at])?;
            } else {
                let name = |part: &str| format!("{}.{part}", layer.name);
                let conv = Conv { weight, bias, window: Window::square(3, 1, 1), groups: 1 };
                at = b.push(layer.name, Op::Conv(conv), &[at])?;
                at = b.push(name("relu"), Op::Relu, &[at])?;
                at = b.push(name("pool"), Op::MaxPool(Window::square(2, 2, 0)), &[at])?;
            }
        }
        b.finish(at)
    }

    /// Pictures per batch; their gradients are held.
    fn together(&self, engine: &Engine) -> usize {
        engine.together(2 * self.parameters.len() * size_of::<f64>(), TOGETHER)
    }

    /// The cross-entropy `−Σ_i weights[i] · log p(classes[i])` and its gradient, one number per parameter.
    ///
    /// Each picture's gradient comes from the engine; they are summed in order in double precision, so that neither
    /// result depends on threads or memory.
    ///
    /// # Errors
    /// When there is not one class and weight per picture, shapes do not match, or a number is not finite.
    pub fn loss(
        &self,
        engine: &mut Engine,
        x: &[Tensor],
        classes: &[usize],
        weights: &[f64],
    ) -> Result<(f64, Vec<f64>)> {
        if classes.len() != x.len() || weights.len() != x.len() {
            return Err(Error::input(format!(
                "{} classes and {} weights of {} pictures",
                classes.len(),
                weights.len(),
                x.len()
            )));
        }
        let graph = self.graph()?;
        let (mut loss, mut gradient) = (0.0, vec![0.0; self.parameters.len()]);
        let mut add = |engine: &mut Engine| -> Result<()> {
            let together = self.together(engine);
            let groups = x.chunks(together).zip(classes.chunks(together)).zip(weights.chunks(together));
            for ((x, targets), weights) in groups {
                let x = Batch::of(x.to_vec())?;
                let copies = Copies::one();
                let task = Task { x: &x, targets, copies: &copies, loads: &[] };
                let outcome = engine.evaluate(&graph, &WeightGradients, &task)?;
                for (i, &weight) in weights.iter().enumerate() {
                    loss -= weight * outcome.scores[i][0];
                    let mut rest = gradient.as_mut_slice();
                    for store in &outcome.stores {
                        let numbers = store[i].to_f64();
                        let (own, after) = rest.split_at_mut(numbers.len());
                        own.iter_mut().zip(numbers.iter()).for_each(|(sum, g)| *sum -= weight * g);
                        rest = after;
                    }
                }
            }
            Ok(())
        };
        let added = add(engine);
        engine.forget(&graph);
        added.map(|()| (loss, gradient))
    }

    /// The log-probabilities of the classes on each picture, clean first.
    ///
    /// # Errors
    /// When shapes do not match or a number is not finite.
    pub fn log_probabilities(&self, engine: &mut Engine, x: &[Tensor]) -> Result<Vec<[f64; 2]>> {
        let graph = self.graph()?;
        let mut found = Vec::with_capacity(x.len());
        let mut add = |engine: &mut Engine| -> Result<()> {
            for x in x.chunks(self.together(engine)) {
                let logits = engine.forward(&graph, &Batch::of(x.to_vec())?)?;
                for i in 0..x.len() {
                    let logits = logits.item(i)?.to_f64().into_owned();
                    found.push([CLEAN, ATTACKED].map(|class| Score::LogProb.evaluate(&logits, class).0));
                }
            }
            Ok(())
        };
        let added = add(engine);
        engine.forget(&graph);
        added.map(|()| found)
    }
}

/// Stores the gradients of every layer's weight and bias, in order.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct WeightGradients;

impl Script for WeightGradients {
    type Notes = ();

    fn write(&self, b: &mut Builder<'_>) -> Result<()> {
        let seed = b.seed(Score::LogProb);
        let gradients = weight_gradients(b, b.graph().output(), seed)?;
        let values = gradients.into_iter().flat_map(|layer| [Some(layer.weight), layer.bias]).flatten();
        values.enumerate().try_for_each(|(slot, value)| b.store(value, slot))
    }
}

pub(super) fn layers(input: Shape) -> Result<[DetectorLayer; 3]> {
    input.checked()?;
    let halved = |n: usize| n / 2 / 2;
    if halved(input.h.min(input.w)) == 0 {
        return Err(Error::settings(format!("a detector needs maps of at least 4x4 numbers, not {input}")));
    }
    let [first, second] = FILTERS;
    Ok([
        DetectorLayer { name: "conv1", dims: [first, input.c, 3, 3] },
        DetectorLayer { name: "conv2", dims: [second, first, 3, 3] },
        DetectorLayer { name: "fc", dims: [2, second * halved(input.h) * halved(input.w), 1, 1] },
    ])
}
