//! Multi-layer perceptron: linear layers with ReLU between them, in the numeric order of their names.

use super::assembly::{Assembly, Bias};
use super::tensors::Tensors;
use super::{Built, Labels, preprocess};
use crate::error::{Error, Result};
use crate::graph::Op;
use crate::tensor::Shape;

pub(super) fn recognise(tensors: &Tensors) -> bool {
    let weights = || tensors.names().filter(|n| n.ends_with(".weight"));
    let suits = |name: &str| match tensors.shape(name) {
        Some(shape) => shape.len() == if name.ends_with(".weight") { 2 } else { 1 },
        None => false,
    };
    weights().next().is_some()
        && tensors.names().all(|n| n.ends_with(".weight") || n.ends_with(".bias"))
        && tensors.names().all(suits)
}

/// A name cut into texts and numbers, so that `fc10` follows `fc9`.
fn natural(name: &str) -> Vec<(String, u64)> {
    let mut parts: Vec<(String, u64)> = Vec::new();
    let mut rest = name;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let (text, tail) = rest.split_at(digits);
        let end = tail.find(|c: char| !c.is_ascii_digit()).unwrap_or(tail.len());
        let (number, tail) = tail.split_at(end);
        parts.push((text.to_string(), number.parse().unwrap_or(0)));
        rest = tail;
    }
    parts
}

pub(super) fn build(tensors: &mut Tensors) -> Result<Built> {
    let mut layers: Vec<String> =
        tensors.names().filter_map(|n| n.strip_suffix(".weight")).map(str::to_string).collect();
    layers.sort_by_cached_key(|name| natural(name));
    let Some(&[_, inputs]) = layers.first().and_then(|first| tensors.shape(&format!("{first}.weight"))) else {
        return Err(Error::model("an MLP needs weights of two dimensions, the first layer has none"));
    };
    let side = inputs.isqrt();
    // One number is a vector, not a picture.
    let square = inputs > 1 && side * side == inputs;
    let input = if square { Shape::new(1, side, side) } else { Shape::vector(inputs) };
    if input.is_empty() {
        return Err(Error::model(format!("tensor '{}.weight' has no inputs, expected shape [*, *]", layers[0])));
    }
    let mut net = Assembly::new(tensors, input, 1e-5);
    let mut x = net.builder.input();
    if square {
        x = net.op("flatten", Op::Flatten, &[x])?;
    }
    let hidden = layers.len() - 1;
    for (i, name) in layers.iter().enumerate() {
        x = net.linear(name, x, Bias::Optional)?;
        if i < hidden {
            x = net.relu(format!("{name}.relu"), x)?;
            net.builder.stage(format!("stage{}", i + 1), x);
        }
    }
    let graph = net.builder.finish(x)?;
    let widths: Vec<String> =
        graph.nodes().iter().filter(|n| matches!(n.op, Op::Linear(_))).map(|n| n.shape.c.to_string()).collect();
    Ok(Built {
        architecture: format!("mlp {inputs}-{}", widths.join("-")),
        preprocess: if square { preprocess::grey(side) } else { preprocess::vector(inputs) },
        labels: if side == 28 && square { Labels::digits(graph.classes()) } else { Labels::numbered(graph.classes()) },
        graph,
    })
}
