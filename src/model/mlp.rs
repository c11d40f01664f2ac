//! Multi-layer perceptron: linear layers with ReLU in between, ordered by the numbers in their names; a name without a
//! number comes last.

use super::assembly::{Assembly, BiasPresence};
use super::tensors::Tensors;
use super::{BuiltNet, Labels, preprocess};
use crate::error::{Error, Result};
use crate::graph::Op;
use crate::tensor::Shape;

/// Inputs and outputs of the layers of the net that is drafted.
const DRAFTED: [usize; 5] = [784, 1024, 1024, 1024, 10];

pub(super) fn recognise(tensors: &Tensors) -> Result<bool> {
    let weights = || tensors.names().filter(|n| n.ends_with(".weight"));
    let suits = |name: &str| match tensors.shape(name) {
        Some(shape) => shape.len() == if name.ends_with(".weight") { 2 } else { 1 },
        None => false,
    };
    Ok(weights().next().is_some()
        && tensors.names().all(|n| n.ends_with(".weight") || n.ends_with(".bias"))
        && tensors.names().all(suits))
}

/// Splits a name into texts and numbers, so that `fc10` sorts after `fc9`.
fn parts(name: &str) -> (Vec<&str>, Vec<u64>) {
    let (mut texts, mut numbers, mut rest) = (Vec::new(), Vec::new(), name);
    loop {
        let (text, tail) = rest.split_at(rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len()));
        texts.push(text);
        if tail.is_empty() {
            return (texts, numbers);
        }
        let (number, tail) = tail.split_at(tail.find(|c: char| !c.is_ascii_digit()).unwrap_or(tail.len()));
        numbers.push(number.parse().unwrap_or(u64::MAX));
        rest = tail;
    }
}

/// The layers in order: by number, then one without a number.
fn ordered(tensors: &Tensors) -> Result<Vec<String>> {
    let names = || tensors.names().filter_map(|n| n.strip_suffix(".weight"));
    let (mut numbered, plain): (Vec<&str>, Vec<&str>) = names().partition(|n| n.contains(|c: char| c.is_ascii_digit()));
    numbered.sort_by_cached_key(|name| parts(name).1);
    let odd = numbered.iter().find(|name| parts(name).0 != parts(numbered[0]).0).or(plain.get(1));
    match odd {
        Some(odd) => Err(Error::model(format!(
            "the order of the layers is not clear from their names: tensor '{odd}.weight', expected numbered layers \
             and at most one without a number, which is the last"
        ))),
        None => Ok(numbered.into_iter().chain(plain).map(str::to_string).collect()),
    }
}

pub(super) fn build(tensors: &mut Tensors) -> Result<BuiltNet> {
    let (layers, inputs) = if tensors.drafted().is_some() {
        ((0..DRAFTED.len() - 1).map(|i| (2 * i).to_string()).collect(), DRAFTED[0])
    } else {
        let layers = ordered(tensors)?;
        let Some(&[_, inputs]) = layers.first().and_then(|first| tensors.shape(&format!("{first}.weight"))) else {
            return Err(Error::model("an MLP needs weights of two dimensions, the first layer has none"));
        };
        (layers, inputs)
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
        let out = DRAFTED.get(i + 1).copied().unwrap_or(0);
        x = net.linear(name, x, BiasPresence::Optional, out)?;
        if i < hidden {
            x = net.relu(format!("{name}.relu"), x)?;
            net.builder.stage(format!("stage{}", i + 1), x);
        }
    }
    let graph = net.builder.finish(x)?;
    let widths: Vec<String> =
        graph.nodes().iter().filter(|n| matches!(n.op, Op::Linear(_))).map(|n| n.shape.c.to_string()).collect();
    let architecture = format!("mlp {inputs}-{}", widths.join("-"));
    Ok(BuiltNet {
        form: architecture.clone(),
        architecture,
        assumed: if hidden > 0 { vec!["relu"] } else { Vec::new() },
        preparation: if square { preprocess::grey(side) } else { preprocess::vector(inputs) },
        labels: if side == 28 && square { Labels::digits(graph.classes()) } else { Labels::numbered(graph.classes()) },
        graph,
    })
}
