//! Two small nets that everybody writes alike: LeNet-5 as PyTorch's tutorials have it, and PyTorch's MNIST example. Names
//! do not hold pools and activations, so only these very names and sizes are read.

use super::assembly::{Assembly, BiasPresence, ConvSpec, Pad};
use super::tensors::Tensors;
use super::{BuiltNet, Labels, preprocess};
use crate::error::{Error, Result};
use crate::graph::{NodeId, Op};
use crate::tensor::{Shape, Window};

/// A net, told by its weights' sizes: channels and side of each convolution, inputs of the first linear layer.
struct Kind {
    form: &'static str,
    convs: [[usize; 2]; 2],
    /// Outputs of the hidden linear layers.
    hidden: &'static [usize],
    /// Inputs of the first linear layer; with them the side of the input and the padding of the first convolution.
    inputs: usize,
    side: usize,
    padding: usize,
    /// Whether a pool follows each convolution, or only the last.
    pools: [bool; 2],
    assumed: &'static str,
}

const LENET: &[usize] = &[120, 84];
const POOLED: &str = "relu, and a max-pool of 2x2 after each convolution";

const KINDS: [Kind; 3] = [
    Kind {
        form: "lenet",
        convs: [[6, 5], [16, 5]],
        hidden: LENET,
        inputs: 400,
        side: 32,
        padding: 0,
        pools: [true; 2],
        assumed: POOLED,
    },
    Kind {
        form: "lenet",
        convs: [[6, 5], [16, 5]],
        hidden: LENET,
        inputs: 256,
        side: 28,
        padding: 0,
        pools: [true; 2],
        assumed: POOLED,
    },
    Kind {
        form: "mnist-example",
        convs: [[32, 3], [64, 3]],
        hidden: &[128],
        inputs: 9216,
        side: 28,
        padding: 0,
        pools: [false, true],
        assumed: "relu, and a max-pool of 2x2 after the second convolution",
    },
];

fn found(tensors: &Tensors) -> Option<&'static Kind> {
    static ALL: &[Kind] = &KINDS;
    let layers = |kind: &Kind| {
        let linear = kind.hidden.iter().copied().scan(kind.inputs, |from, to| Some([to, std::mem::replace(from, to)]));
        let linear: Vec<Vec<usize>> = linear.map(|dims| dims.to_vec()).collect();
        let conv = |i: usize, c: Option<usize>| match tensors.shape(&format!("conv{}.weight", i + 1)) {
            Some(&[k, seen, h, w]) => {
                [k, h, w] == [kind.convs[i][0], kind.convs[i][1], kind.convs[i][1]] && c.is_none_or(|c| c == seen)
            }
            _ => false,
        };
        let last = kind.hidden.len() + 1;
        let ends =
            matches!(tensors.shape(&format!("fc{last}.weight")), Some(&[_, from]) if from == kind.hidden[last - 2]);
        conv(0, None)
            && conv(1, Some(kind.convs[0][0]))
            && linear.iter().enumerate().all(|(i, dims)| tensors.shape(&format!("fc{}.weight", i + 1)) == Some(dims))
            && ends
    };
    ALL.iter().find(|kind| layers(kind))
}

pub(super) fn recognise(tensors: &Tensors) -> Result<bool> {
    Ok(found(tensors).is_some())
}

pub(super) fn build(tensors: &mut Tensors) -> Result<BuiltNet> {
    let Some(kind) = found(tensors) else {
        return Err(Error::model("tensor 'conv1.weight' or another is missing, or has another size than in LeNet"));
    };
    let channels = Assembly::picture_channels(tensors, "conv1.weight");
    let mut net = Assembly::new(tensors, Shape::new(channels, kind.side, kind.side), 1e-5);
    let mut x: NodeId = net.builder.input();
    for (i, (&[_, side], pooled)) in kind.convs.iter().zip(kind.pools).enumerate() {
        let padding = if i == 0 { kind.padding } else { 0 };
        let name = format!("conv{}", i + 1);
        x = net.conv(&name, x, ConvSpec::plain(Some(side), 1).padded(Pad::Rows(padding)).with_bias())?;
        x = net.relu(format!("{name}.relu"), x)?;
        net.builder.stage(format!("stage{}", i + 1), x);
        if pooled {
            x = net.op(format!("{name}.pool"), Op::MaxPool(Window::square(2, 2, 0)), &[x])?;
        }
    }
    x = net.op("flatten", Op::Flatten, &[x])?;
    for i in 1..=kind.hidden.len() + 1 {
        let name = format!("fc{i}");
        x = net.linear(&name, x, BiasPresence::Present, 0)?;
        if i <= kind.hidden.len() {
            x = net.relu(format!("{name}.relu"), x)?;
        }
    }
    if kind.inputs == 400 && channels == 1 {
        net.tensors.warn(
            "taken for a LeNet on 32x32 pictures; one on 28x28 pictures with padding 2 has the same tensors, and its numbers \
             are others: export it as ONNX",
        );
    }
    let graph = net.builder.finish(x)?;
    let preparation = if channels == 1 { preprocess::grey(kind.side) } else { preprocess::small(channels, kind.side) };
    Ok(BuiltNet {
        architecture: kind.form.into(),
        form: kind.form.into(),
        assumed: vec![kind.assumed],
        preparation,
        labels: if channels == 1 { Labels::digits(graph.classes()) } else { Labels::cifar(graph.classes()) },
        graph,
    })
}
