//! Multi-layer perceptron: linear layers with ReLU in between, ordered by the numbers in their names; a name without a
//! number comes last.

use super::assembly::{Assembly, BiasPresence};
use super::names::{HeadLayer, parts};
use super::tensors::Tensors;
use super::{BuiltNet, Labels, preprocess};
use crate::error::{Error, Result};
use crate::graph::Op;
use crate::tensor::Shape;

/// Inputs and outputs of the layers of the net that is drafted.
const DRAFTED: [usize; 5] = [784, 1024, 1024, 1024, 10];

pub(super) fn recognise(tensors: &Tensors) -> Result<bool> {
    // Batch norms count and have means; all other weights are matrices.
    let suits = |name: &str| {
        let (layer, kind) = name.rsplit_once('.').unwrap_or(("", name));
        let is_norm = tensors.has(&format!("{layer}.running_mean"));
        let rank = tensors.shape(name).map_or(0, <[usize]>::len);
        match kind {
            "weight" => !layer.is_empty() && rank == if is_norm { 1 } else { 2 },
            "bias" => !layer.is_empty() && rank == 1,
            "running_mean" | "running_var" => rank == 1,
            _ => kind == "num_batches_tracked" && is_norm,
        }
    };
    let is_matrix = |name: &str| name.ends_with(".weight") && tensors.shape(name).is_some_and(|dims| dims.len() == 2);
    Ok(tensors.names().any(is_matrix) && tensors.names().all(suits))
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
    let has_norms = tensors.names().any(|name| name.ends_with(".running_mean"));
    let plain = |names: Vec<String>| -> Vec<HeadLayer> {
        let last = names.len().saturating_sub(1);
        let layer = |(i, name)| HeadLayer { name, is_norm: false, active: i < last };
        names.into_iter().enumerate().map(layer).collect()
    };
    let (layers, inputs) = if tensors.drafted().is_some() {
        (plain((0..DRAFTED.len() - 1).map(|i| (2 * i).to_string()).collect()), DRAFTED[0])
    } else {
        let layers = if has_norms { tensors.head()? } else { plain(ordered(tensors)?) };
        let first = layers.iter().find(|layer| !layer.is_norm);
        let Some(&[_, inputs]) = first.and_then(|first| tensors.shape(&format!("{}.weight", first.name))) else {
            return Err(Error::model("an MLP needs weights of two dimensions, the first layer has none"));
        };
        (layers, inputs)
    };
    let side = inputs.isqrt();
    // One number is a vector, not a picture.
    let square = inputs > 1 && side * side == inputs;
    let input = if square { Shape::new(1, side, side) } else { Shape::vector(inputs) };
    if input.is_empty() {
        return Err(Error::model(format!("tensor '{}.weight' has no inputs, expected shape [*, *]", layers[0].name)));
    }
    let mut net = Assembly::new(tensors, input, 1e-5);
    let mut x = net.builder.input();
    if square {
        x = net.op("flatten", Op::Flatten, &[x])?;
    }
    let hidden = layers.iter().filter(|layer| layer.active).count();
    let mut stages = 0;
    for (i, HeadLayer { name, is_norm, active }) in layers.iter().enumerate() {
        let out = DRAFTED.get(i + 1).copied().unwrap_or(0);
        x = if *is_norm { net.batch_norm(name, x)? } else { net.linear(name, x, BiasPresence::Optional, out)? };
        if *active {
            stages += 1;
            x = net.relu(format!("{name}.relu"), x)?;
            net.builder.stage(format!("stage{stages}"), x);
        }
    }
    let graph = net.builder.finish(x)?;
    let widths: Vec<String> =
        graph.nodes().iter().filter(|n| matches!(n.op, Op::Linear(_))).map(|n| n.shape.c.to_string()).collect();
    let architecture = format!("mlp {inputs}-{}", widths.join("-"));
    Ok(BuiltNet {
        form: architecture.clone(),
        architecture,
        assumed: match (hidden, has_norms) {
            (0, _) => Vec::new(),
            (_, false) => vec!["relu"],
            (_, true) => vec!["relu", "batch-norm eps 1e-5"],
        },
        preparation: if square { preprocess::grey(side) } else { preprocess::vector(inputs) },
        labels: if side == 28 && square { Labels::digits(graph.classes()) } else { Labels::numbered(graph.classes()) },
        graph,
    })
}
