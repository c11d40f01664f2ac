//! SqueezeNet 1.0 and 1.1 (Iandola 2016) with torchvision's names. The last convolution gives one map a class.

use super::assembly::{Assembly, ConvSpec, Pad};
use super::tensors::Tensors;
use super::{BuiltNet, preprocess};
use crate::error::Result;
use crate::graph::{NodeId, Op};
use crate::tensor::{Shape, Window};

/// Published names and the form that each stands for.
pub(super) const PUBLISHED: &[(&str, &str)] =
    &[("squeezenet1_0", "squeezenet 1.0"), ("squeezenet1_1", "squeezenet 1.1")];

/// What a version has at a position of `features`, from position 2 on.
#[derive(Clone, Copy)]
enum Layer {
    Pool,
    /// A fire module that squeezes to the first number of channels and expands to twice the second.
    Fire(usize, usize),
}

use Layer::{Fire, Pool};

struct Version {
    form: &'static str,
    /// Channels and side of the first kernel.
    stem: [usize; 2],
    layers: [Layer; 11],
}

const VERSIONS: [Version; 2] = [
    Version {
        form: "squeezenet 1.0",
        stem: [96, 7],
        layers: [
            Pool,
            Fire(16, 64),
            Fire(16, 64),
            Fire(32, 128),
            Pool,
            Fire(32, 128),
            Fire(48, 192),
            Fire(48, 192),
            Fire(64, 256),
            Pool,
            Fire(64, 256),
        ],
    },
    Version {
        form: "squeezenet 1.1",
        stem: [64, 3],
        layers: [
            Pool,
            Fire(16, 64),
            Fire(16, 64),
            Pool,
            Fire(32, 128),
            Fire(32, 128),
            Pool,
            Fire(48, 192),
            Fire(48, 192),
            Fire(64, 256),
            Fire(64, 256),
        ],
    },
];

pub(super) fn recognise(tensors: &Tensors) -> Result<bool> {
    Ok(["features.0.weight", "features.3.squeeze.weight", "classifier.1.weight"].iter().all(|n| tensors.has(n)))
}

fn fire(net: &mut Assembly<'_>, name: &str, x: NodeId, squeezed: usize, expanded: usize) -> Result<NodeId> {
    let mut layer = |part: &str, x, side, out| {
        let y = net.conv(&format!("{name}.{part}"), x, ConvSpec::plain(Some(side), 1).to(out).with_bias())?;
        net.relu(format!("{name}.{part}_activation"), y)
    };
    let x = layer("squeeze", x, 1, squeezed)?;
    let parts = [layer("expand1x1", x, 1, expanded)?, layer("expand3x3", x, 3, expanded)?];
    net.op(format!("{name}.concat"), Op::Concat, &parts)
}

pub(super) fn build(tensors: &mut Tensors) -> Result<BuiltNet> {
    let is_first = match tensors.drafted() {
        Some(net) => net == "squeezenet1_0",
        // Version 1.1 has a pool there.
        None => tensors.has("features.5.squeeze.weight"),
    };
    let version = &VERSIONS[usize::from(!is_first)];
    let channels = Assembly::picture_channels(tensors, "features.0.weight");
    let mut net = Assembly::new(tensors, Shape::new(channels, 224, 224), 1e-5);
    let mut x = net.builder.input();
    let [out, side] = version.stem;
    x = net.conv("features.0", x, ConvSpec::plain(Some(side), 2).to(out).padded(Pad::Rows(0)).with_bias())?;
    x = net.relu("features.1", x)?;
    let mut stages = 0;
    for (position, layer) in (2..).zip(version.layers) {
        let name = format!("features.{position}");
        x = match layer {
            Pool => {
                stages += 1;
                net.builder.stage(format!("stage{stages}"), x);
                net.op(name, Op::MaxPool(Window { ceil: true, ..Window::square(3, 2, 0) }), &[x])?
            }
            Fire(squeezed, expanded) => fire(&mut net, &name, x, squeezed, expanded)?,
        };
    }
    net.builder.stage(format!("stage{}", stages + 1), x);
    x = net.conv("classifier.1", x, ConvSpec::plain(Some(1), 1).to(1000).with_bias())?;
    x = net.relu("classifier.2", x)?;
    x = net.pooled(1, x)?;
    let graph = net.builder.finish(x)?;
    let assumed = vec!["relu", "max-pools in ceil mode", "relu after the last convolution"];
    Ok(BuiltNet::of_pictures(graph, version.form, assumed, preprocess::imagenet(channels)))
}
