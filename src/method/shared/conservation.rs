//! Propagates relevance through a net and measures whether any is lost: for the whole map, and layer by layer.

use std::sync::Arc;

use crate::engine::{Batch, Copies, Engine, Script, Start, Task};
use crate::error::{Error, Result};
use crate::graph::{Graph, NodeId, Smooth};
use crate::map::{Gap, Map, MapDims, Shares, Sign, Space};
use crate::method::{Method, numbers_of};
use crate::program::{Builder, Elementwise, Score, Statistic, Value};
use crate::rule::{Composite, pull_back_observed};
use crate::tensor::Tensor;

/// The fate of the relevance that arrived at a layer's output, for one picture.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerBalance {
    /// The layer.
    pub node: NodeId,
    /// Its name.
    pub name: String,
    /// Id of its rule.
    pub rule: String,
    /// Sum over all its inputs.
    pub r_in: f64,
    /// Kept by its bias.
    pub bias: f64,
    /// Lost: absorbed by the stabiliser, or arriving where every contribution is zero. Negative where αβ distributes α
    /// times relevance that no negative contribution reduces.
    pub lost: f64,
    /// Sum of the relevance that arrived.
    pub r_out: f64,
    /// Sum of the magnitudes of the relevance that arrived.
    pub magnitude: f64,
}

impl LayerBalance {
    /// What is unaccounted for, as a share of the magnitude: rounding, or an error in a rule.
    pub fn gap(&self) -> f64 {
        let gap = (self.r_in + self.bias + self.lost - self.r_out).abs();
        if gap == 0.0 { 0.0 } else { gap / self.magnitude }
    }
}

/// Stores the mean over positions of `x`; returns the slot.
fn store_mean(b: &mut Builder<'_>, x: Value, slots: &mut Vec<f64>) -> Result<usize> {
    let positions = b.shape(x).plane() as f64;
    let mean = b.spatial_mean(x)?;
    store(b, mean, positions, slots)
}

/// Stores means; records in `slots` how many positions each stands for, and returns the slot.
fn store(b: &mut Builder<'_>, means: Value, positions: f64, slots: &mut Vec<f64>) -> Result<usize> {
    b.store(means, slots.len())?;
    slots.push(positions);
    Ok(slots.len() - 1)
}

/// The sum represented by a stored tensor of means.
fn total(means: &Tensor, positions: f64) -> f64 {
    means.each().sum::<f64>() * positions
}

/// Slots of each layer's sums.
struct Slots {
    node: NodeId,
    r_in: Vec<usize>,
    bias: Option<usize>,
    lost: Option<usize>,
    r_out: usize,
    magnitude: usize,
}

/// The pull-back of the target's logit, with a store for every sum.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Balanced(Composite);

impl Script for Balanced {
    /// Layers, and the positions of each slot.
    type Notes = (Vec<Slots>, Vec<f64>);

    fn write(&self, b: &mut Builder<'_>) -> Result<Self::Notes> {
        let graph = b.graph();
        let signal = Start::Relevance.signal(b, Score::Logit)?;
        let (mut layers, mut slots) = (Vec::new(), Vec::new());
        pull_back_observed(b, &self.0, (graph.output(), signal), graph.input(), &mut |b, node, up, shares| {
            let positions = graph.node(node).shape.plane() as f64;
            let r_out = store_mean(b, up, &mut slots)?;
            let size = b.elementwise(Elementwise::Smooth(Smooth::Abs), vec![up])?;
            let magnitude = store_mean(b, size, &mut slots)?;
            let r_in = shares.down.iter().flatten().map(|&r| store_mean(b, r, &mut slots)).collect::<Result<_>>()?;
            let bias = shares.bias.map(|r| store(b, r, positions, &mut slots)).transpose()?;
            let lost = shares.lost.map(|r| store(b, r, positions, &mut slots)).transpose()?;
            layers.push(Slots { node, r_in, bias, lost, r_out, magnitude });
            Ok(())
        })?;
        Ok((layers, slots))
    }
}

/// For each picture, the balance of every layer from the logits to the pixels, when the relevance of class
/// `targets[i]`, its logit, is propagated back under `rules`.
///
/// Within each layer `Σ R_in` + bias + lost = `Σ R_out`, up to rounding.
///
/// # Errors
/// As [`Engine::explain`].
pub fn conservation(
    engine: &mut Engine,
    graph: &Graph,
    x: &Batch,
    targets: &[usize],
    rules: &Composite,
) -> Result<Vec<Vec<LayerBalance>>> {
    let task = Task { x, targets, copies: &Copies::one(), loads: &[] };
    let outcome = engine.evaluate(graph, &Balanced(rules.clone()), &task)?;
    let (layers, positions) = &*outcome.notes;
    let sum = |slot: usize, i: usize| -> Result<f64> {
        let means = outcome.stores.get(slot).and_then(|pictures| pictures.get(i));
        let means = means.ok_or_else(|| Error::device("a layer's sums were not stored"))?;
        Ok(total(means, positions[slot]))
    };
    let balance = |slots: &Slots, i: usize| -> Result<LayerBalance> {
        let some = |slot: Option<usize>| slot.map_or(Ok(0.0), |slot| sum(slot, i));
        Ok(LayerBalance {
            node: slots.node,
            name: graph.node(slots.node).name.clone(),
            rule: rules.select(graph, slots.node)?.id(),
            r_in: slots.r_in.iter().map(|&slot| sum(slot, i)).sum::<Result<_>>()?,
            bias: some(slots.bias)?,
            lost: some(slots.lost)?,
            r_out: sum(slots.r_out, i)?,
            magnitude: sum(slots.magnitude, i)?,
        })
    };
    (0..x.len()).map(|i| layers.iter().map(|slots| balance(slots, i)).collect()).collect()
}

/// A method that propagates relevance from the logits to the pixels. As a script it is the pull-back of a score, with a
/// store for every bias's share; the first slot holds the initial relevance.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Propagation {
    pub id: &'static str,
    pub rules: Composite,
    pub score: Score,
    pub start: Start,
    /// For unsigned maps, values below zero, which are due to rounding, are clipped.
    pub sign: Sign,
}

impl Script for Propagation {
    /// Positions of each slot.
    type Notes = Vec<f64>;

    fn write(&self, b: &mut Builder<'_>) -> Result<Vec<f64>> {
        let (graph, mut slots) = (b.graph(), Vec::new());
        let signal = self.start.signal(b, self.score)?;
        store(b, signal, 1.0, &mut slots)?;
        let ends = ((graph.output(), signal), graph.input());
        let mut r = pull_back_observed(b, &self.rules, ends.0, ends.1, &mut |b, node, _, shares| {
            if let Some(bias) = shares.bias {
                store(b, bias, graph.node(node).shape.plane() as f64, &mut slots)?;
            }
            Ok(())
        })?;
        if self.sign == Sign::Unsigned {
            r = b.positive(r)?;
        }
        b.aggregate(r, Statistic::Sum)?;
        Ok(slots)
    }
}

impl Method for Propagation {
    fn map_dims(&self, graph: &Graph) -> Result<MapDims> {
        Ok(numbers_of(graph))
    }

    /// Maps with their shares of the relevance and the gap of conservation: the map's sum plus all biases' shares,
    /// minus the initial relevance.
    fn explain(&self, engine: &mut Engine, graph: &Graph, x: &Batch, targets: &[usize]) -> Result<Vec<Map>> {
        let task = Task { x, targets, copies: Copies::single(), loads: &[] };
        let mut outcome = engine.evaluate(graph, self, &task)?;
        let positions = Arc::clone(&outcome.notes);
        let mut maps = engine.spare().take(x.len());
        for (i, (values, &target)) in outcome.maps.drain(..).zip(targets).enumerate() {
            if values.first_not_finite().is_some() {
                return Err(Error::device(format!("the map of picture {i} overflowed")));
            }
            // The first slot is the start, the others are what biases kept.
            let (mut began, mut kept) = (0.0, 0.0);
            for (slot, (pictures, &positions)) in outcome.stores.iter().zip(positions.iter()).enumerate() {
                let means = pictures.get(i).ok_or_else(|| Error::device("a layer's sums were not stored"))?;
                let sum = total(means, positions);
                if slot == 0 { began = sum } else { kept += sum }
            }
            let reached = values.each().sum::<f64>();
            let value = reached + kept - began;
            let relative = Some(value.abs() / began.abs()).filter(|share| share.is_finite());
            let gap = Some(Gap { promise: "conservation".into(), value, relative });
            let shares = Some(Shares { input: reached, bias: kept, lost: -value });
            maps.push(Map { gap, shares, ..Map::new(values, self.sign, Space::Input, target, self.id) });
        }
        outcome.keep_in(engine.spare());
        Ok(maps)
    }
}
