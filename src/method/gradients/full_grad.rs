//! FullGrad (Srinivas & Fleuret 2019): the score as an input term plus one term per bias, combined into one map.

use std::sync::Arc;

use crate::engine::{self, Batch, Copies, Engine, Script, Task};
use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::map::{Gap, Map, MapDims, Sign, Space};
use crate::method::{Entry, Method, Promise, When, pixels_of};
use crate::program::{Builder, Score};
use crate::rule::{Composite, ConstantTerms, Select, pull_back};
use crate::tensor::resample::{Upsample, upsample};
use crate::tensor::{Shape, Tensor, differ_by_rounding};

pub(crate) const ENTRY: Entry = Entry {
    id: "full_grad",
    aliases: &["fullgrad"],
    title: "FullGrad",
    paper: "Srinivas, Fleuret 2019: Full-gradient representation for neural network visualization, NeurIPS, equations 3 and 4",
    summary: "ψ(x ∘ g) + Σ over layers ψ(b ∘ ∂f/∂(layer's output)), summed over channels; ψ = magnitude, rescaled to 0..1 \
              over the layer's whole map, up-sampled bilinearly with half-pixel centres",
    passes: "1 forward, 1 backward",
    parameters: &[],
    promises: &[(Promise::FullDecomposition, When::Always), (Promise::NotNegative, When::Always)],
    draws: When::Never,
    caution: "rescaling makes every layer count alike, however small its terms; biases of linear layers have no position: they \
              count in the sum, not in the map. Our choices: rescaling by layer (the paper's formula reads by channel), a \
              ReLU6 held at 6 counts as a bias of 6, and with --score prob or logprob the head's constant counts in the sum",
    build: |_, context| Ok(Box::new(FullGrad(context.score))),
};

/// `ψ(x ∘ g) + Σ ψ(b ∘ G)`; its script stores all terms.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct FullGrad(Score);

/// Slot of the input term; the constants' terms follow.
const INPUT_TERM: usize = 0;

impl Script for FullGrad {
    type Notes = ();

    fn write(&self, b: &mut Builder<'_>) -> Result<()> {
        let graph = b.graph();
        let seed = b.seed(self.0);
        let rule = ConstantTerms::of(graph, INPUT_TERM + 1);
        let rules = Composite::new(vec![(Select::Every, Arc::new(rule))]);
        let gradient = pull_back(b, &rules, graph.output(), seed, graph.input())?;
        let pixels = b.output(graph.input());
        let term = b.mul(gradient, pixels)?;
        b.store(term, INPUT_TERM)
    }
}

/// Magnitudes of `term`, rescaled to 0..1 over the whole tensor (all zero if constant), summed over channels and
/// resized to `to`.
fn drawn(term: &Tensor, from: Shape, to: [usize; 2]) -> Result<Vec<f64>> {
    let sizes: Vec<f64> = term.to_f64().iter().map(|v| v.abs()).collect();
    let (low, high) = sizes.iter().fold((f64::INFINITY, 0.0f64), |(low, high), &v| (low.min(v), high.max(v)));
    let mut plane = vec![0.0; from.plane()];
    if !differ_by_rounding([(low, high)], term.precision()) {
        for channel in sizes.chunks(from.plane()) {
            plane.iter_mut().zip(channel).for_each(|(sum, v)| *sum += (v - low) / (high - low));
        }
    }
    upsample(&plane, [from.h, from.w], to, Upsample::Bilinear)
}

impl Method for FullGrad {
    fn map_dims(&self, graph: &Graph) -> Result<MapDims> {
        Ok(pixels_of(graph))
    }

    fn explain(&self, engine: &mut Engine, graph: &Graph, x: &Batch, targets: &[usize]) -> Result<Vec<Map>> {
        engine::check(graph, x, targets)?;
        let shape = x.shape();
        if shape.plane() == 1 {
            return Err(Error::shape(format!(
                "full_grad draws where in a picture the terms lie; an input of {shape} has no positions"
            )));
        }
        let nodes = ConstantTerms::of(graph, INPUT_TERM + 1).nodes;
        let (to, precision) = ([shape.h, shape.w], engine.describe().precision);
        // A layer's terms in double precision, raw and scaled, and the map.
        let largest = nodes.iter().map(|&id| graph.node(id).shape.len()).chain([shape.len()]).max().unwrap_or(0);
        let drawing = (2 * largest + 2 * shape.plane()) * size_of::<f64>();
        let mut maps = Vec::with_capacity(x.len());
        // One picture at a time: every layer's terms leave the device, as many numbers as the net has activations.
        for (picture, &target) in x.items().iter().zip(targets) {
            let one = Batch::of(vec![picture.clone()])?;
            let task = Task { x: &one, targets: &[target], copies: &Copies::one(), loads: &[] };
            let outcome = engine.keeping((ENTRY.id, drawing), |engine| engine.evaluate(graph, self, &task))?;
            let mut map = vec![0.0; shape.plane()];
            let mut sum = 0.0;
            let shapes = [shape].into_iter().chain(nodes.iter().map(|&id| graph.node(id).shape));
            for (shape, stored) in shapes.zip(&outcome.stores) {
                // A node that the score does not depend on has no term.
                let Some(term) = stored.first() else { continue };
                sum += term.to_f64().iter().sum::<f64>();
                if shape.plane() > 1 {
                    map.iter_mut().zip(drawn(term, shape, to)?).for_each(|(m, v)| *m += v);
                }
            }
            let logits = &outcome.logits[0][0];
            let (score, gradient) = self.0.linked(graph.link(), logits, target);
            let head = score - gradient.iter().zip(logits).map(|(g, z)| g * z).sum::<f64>();
            let value = sum + head - score;
            if !value.is_finite() {
                return Err(Error::device("the terms of full_grad are not finite"));
            }
            let relative = Some(value.abs() / score.abs()).filter(|share| share.is_finite());
            maps.push(Map {
                gap: Some(Gap { promise: "full_decomposition".into(), value, relative }),
                ..Map::new(Tensor::rounded(to, map, precision)?, Sign::Unsigned, Space::Input, target, ENTRY.id)
            });
        }
        Ok(maps)
    }
}
