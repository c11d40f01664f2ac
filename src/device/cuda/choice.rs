//! Selects the kernel for a step. The choice depends on the step and its layer; only a tile's size, which changes no
//! results, depends on the chunk (see the launches).

use super::constants::{DEPTH, TILE, WeightOrder, channels};
use super::geometry::PassDirection;
use super::products::ProductKernels;
use crate::graph::Weight;
use crate::program::{ConvLayer, Epilogue, Plan, Step, Value};

/// Most channels of pictures: layers that read or write them have kernels of their own.
const PICTURE: usize = 4;
/// Rows and columns of the first layer's tile.
const SIDE: usize = 8;
/// Bytes of shared memory that the first layer's tile may take.
const TILE_BYTES: usize = 48 << 10;

/// How a step runs within its program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StepWay {
    /// On its own.
    Alone,
    /// A convolution that computes its copies' pixels itself.
    Making,
    /// The first layer's adjoint, folded into the picture's map as by the aggregation at this step.
    Folding(usize),
    /// As part of another step.
    Elsewhere,
}

/// Kernels of a convolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    /// Tensor cores.
    Tensor,
    /// Plain sums.
    Direct,
    /// Plain sums over a tile of pixels in shared memory.
    First,
    /// Plain sums, one pixel per warp.
    Last,
}

impl Family {
    /// The order in which it reads weights.
    pub const fn order(self, direction: PassDirection) -> WeightOrder {
        match self {
            Family::Tensor => WeightOrder::Tiles(direction),
            Family::Direct => WeightOrder::Rows(direction),
            // The adjoint of the first layer reads what its forward pass reads.
            Family::First | Family::Last => WeightOrder::Rows(PassDirection::Forward),
        }
    }
}

/// Bytes of the pixels under a tile of the first layer.
pub(super) fn tile_bytes(layer: &ConvLayer) -> usize {
    let w = &layer.window;
    let span = |a: usize| (SIDE - 1) * w.stride[a] + (w.kernel[a] - 1) * w.dilation[a] + 1;
    layer.input.c * span(0) * span(1) * size_of::<f32>()
}

/// Which kernels compute `layer` in `direction`.
pub(super) fn family(layer: &ConvLayer, direction: PassDirection, epilogue: &Epilogue) -> Family {
    let picture = layer.groups == 1 && layer.input.c <= PICTURE;
    match direction {
        PassDirection::Forward if picture && tile_bytes(layer) <= TILE_BYTES => return Family::First,
        PassDirection::Adjoint if picture && *epilogue == Epilogue::default() => return Family::Last,
        _ => {}
    }
    let [to, from] = channels(&layer.weight, layer.groups, direction);
    // Groups must not share words of bits, and tiles should not be mostly empty.
    let filled = to.is_multiple_of(32) && to >= TILE / 2 && from >= DEPTH / 2;
    if layer.groups == 1 || filled { Family::Tensor } else { Family::Direct }
}

/// The weight that a step reads, its number of groups, and the order.
pub(super) fn weight_of(step: &Step) -> Option<(&Weight, usize, WeightOrder)> {
    let conv =
        |layer: &'_ ConvLayer, direction, epilogue: &Epilogue| family(layer, direction, epilogue).order(direction);
    match step {
        Step::Conv { layer, epilogue, .. } => {
            Some((&layer.weight, layer.groups, conv(layer, PassDirection::Forward, epilogue)))
        }
        Step::ConvAdjoint { layer, epilogue, .. } => {
            Some((&layer.weight, layer.groups, conv(layer, PassDirection::Adjoint, epilogue)))
        }
        Step::Linear { layer, .. } => Some((&layer.weight, 1, WeightOrder::Tiles(PassDirection::Forward))),
        Step::LinearAdjoint { layer, .. } => Some((&layer.weight, 1, WeightOrder::Tiles(PassDirection::Adjoint))),
        _ => None,
    }
}

/// Bytes of the vectors that a program's steps read: biases and fills.
pub(super) fn vector_bytes(plan: &Plan) -> usize {
    let of = |step: &Step| match step {
        Step::Conv { layer, .. } => layer.bias.as_ref().map_or(0, |b| b.len()),
        Step::Linear { layer, .. } => layer.bias.as_ref().map_or(0, |b| b.len()),
        Step::Resample { blends, .. } => blends.iter().map(|b| b.table().len()).sum(),
        Step::Fill { out, .. } => plan.form(*out).shape().len(),
        _ => 0,
    };
    plan.steps().iter().map(of).sum::<usize>() * size_of::<f32>()
}

/// How each step of a program runs.
pub(super) fn ways(plan: &Plan) -> Vec<StepWay> {
    let steps = plan.steps();
    let mut ways = vec![StepWay::Alone; steps.len()];
    let only_reader = |v: Value| {
        let mut readers = steps.iter().enumerate().filter(|(_, s)| s.reads().contains(&v));
        match (readers.next(), readers.next()) {
            (Some((at, _)), None) => Some(at),
            _ => None,
        }
    };
    for (i, step) in steps.iter().enumerate() {
        match step {
            Step::Perturb { out } => {
                let Some(at) = only_reader(*out) else { continue };
                let Step::Conv { layer, x, epilogue, .. } = &steps[at] else { continue };
                let reads_once = epilogue.add != Some(*out) && x == out;
                if reads_once && family(layer, PassDirection::Forward, epilogue) == Family::First {
                    (ways[i], ways[at]) = (StepWay::Elsewhere, StepWay::Making);
                }
            }
            Step::ConvAdjoint { layer, out, epilogue, .. } => {
                let Some(at) = only_reader(*out) else { continue };
                let last = family(layer, PassDirection::Adjoint, epilogue) == Family::Last;
                if last && matches!(steps[at], Step::Aggregate { .. }) {
                    (ways[i], ways[at]) = (StepWay::Folding(at), StepWay::Elsewhere);
                }
            }
            _ => {}
        }
    }
    ways
}

/// Kernels whose name differs from the primitive's; `copy` if the host does the work.
const OTHERWISE: [(&str, &str); 13] = [
    ("perturb", "pixels"),
    ("concat", "append"),
    ("ratio_or", "ratio"),
    ("abs", "absolute"),
    ("exp", "exponential"),
    ("log", "logarithm"),
    ("tanh", "hyperbolic_tangent"),
    ("conv_weight_adjoint", "weight_adjoint"),
    ("linear_weight_adjoint", "weight_adjoint"),
    ("load", "copy"),
    ("load_decisions", "copy"),
    ("store", "copy"),
    ("store_decisions", "copy"),
];

/// Name of the kernel that runs a step on its own.
pub(super) fn kernel(step: &Step, products: &ProductKernels) -> &'static str {
    let conv = |layer: &ConvLayer, direction, epilogue: &Epilogue| match family(layer, direction, epilogue) {
        Family::Tensor => products.conv(direction),
        Family::Direct => "conv_direct",
        Family::First => "conv_first",
        Family::Last => "last",
    };
    match step {
        Step::Conv { layer, epilogue, .. } => conv(layer, PassDirection::Forward, epilogue),
        Step::ConvAdjoint { layer, epilogue, .. } => conv(layer, PassDirection::Adjoint, epilogue),
        Step::Linear { .. } => products.conv(PassDirection::Forward),
        Step::LinearAdjoint { .. } => products.conv(PassDirection::Adjoint),
        _ => named(step.kind()),
    }
}

/// Name of the kernel of a primitive that has one.
pub(super) fn named(kind: &'static str) -> &'static str {
    OTHERWISE.iter().find(|(primitive, _)| *primitive == kind).map_or(kind, |(_, kernel)| kernel)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::cuda::source;
    use crate::graph::Smooth;

    #[test]
    fn functions_and_kernels_of_other_names_are_there() {
        let mut functions: Vec<&str> = Smooth::examples().into_iter().flat_map(Smooth::names).map(named).collect();
        for kernel in functions.iter().chain(OTHERWISE.iter().map(|(_, kernel)| kernel).filter(|k| **k != "copy")) {
            assert!(source::find(kernel).is_some(), "{kernel}");
        }
        // Every function has an example, and no kernel is left over.
        let mut kernels: Vec<&str> = source::SMOOTH.kernels.iter().map(|k| k.name).collect();
        functions.sort_unstable();
        kernels.sort_unstable();
        functions.dedup();
        assert_eq!(functions, kernels);
        // A primitive whose kernel is found by another name has none by its own.
        assert!(OTHERWISE.iter().all(|(primitive, _)| source::find(primitive).is_none()));
    }
}
