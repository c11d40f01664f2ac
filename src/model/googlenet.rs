//! GoogLeNet (Szegedy 2015) with batch norm and torchvision's names; its auxiliary classifiers are left out.
//!
//! torchvision's published net changes normalised pictures first (`transform_input`), so that levels lie between −1 and
//! 1. Here the preparation of pictures does that.

use super::assembly::{Assembly, ConvSpec};
use super::tensors::Tensors;
use super::{BuiltNet, preprocess};
use crate::error::Result;
use crate::graph::{NodeId, Op};
use crate::tensor::{Shape, Window};

/// Published names and the form that each stands for.
pub(super) const PUBLISHED: &[(&str, &str)] = &[("googlenet", FORM)];

const FORM: &str = "googlenet";

/// Modules of each resolution. Channels: branch 1; squeezed and end of branches 2 and 3; branch 4.
const MODULES: [(&str, [usize; 6]); 9] = [
    ("inception3a", [64, 96, 128, 16, 32, 32]),
    ("inception3b", [128, 128, 192, 32, 96, 64]),
    ("inception4a", [192, 96, 208, 16, 48, 64]),
    ("inception4b", [160, 112, 224, 24, 64, 64]),
    ("inception4c", [128, 128, 256, 24, 64, 64]),
    ("inception4d", [112, 144, 288, 32, 64, 64]),
    ("inception4e", [256, 160, 320, 32, 128, 128]),
    ("inception5a", [256, 160, 320, 32, 128, 128]),
    ("inception5b", [384, 192, 384, 48, 128, 128]),
];

/// Max-pool in ceil mode.
const fn pool(side: usize, stride: usize, padding: usize) -> Op {
    Op::MaxPool(Window { ceil: true, ..Window::square(side, stride, padding) })
}

/// Pools after the named modules.
const POOLS: [(&str, &str, Op); 2] =
    [("inception3b", "maxpool3", pool(3, 2, 0)), ("inception4e", "maxpool4", pool(2, 2, 0))];

pub(super) fn recognise(tensors: &Tensors) -> Result<bool> {
    Ok(["conv1.conv.weight", "inception3a.branch1.conv.weight"].iter().all(|n| tensors.has(n)))
}

fn module(net: &mut Assembly<'_>, name: &str, x: NodeId, channels: [usize; 6]) -> Result<NodeId> {
    let mut conv = |branch: &str, x, side, out| {
        net.conv_bn_relu(&format!("{name}.branch{branch}"), x, ConvSpec::plain(Some(side), 1).to(out))
    };
    let [first, squeezed2, second, squeezed3, third, fourth] = channels;
    let one = conv("1", x, 1, first)?;
    let two = conv("2.0", x, 1, squeezed2)?;
    let two = conv("2.1", two, 3, second)?;
    // torchvision's third branch has 3×3 kernels, not the paper's 5×5.
    let three = conv("3.0", x, 1, squeezed3)?;
    let three = conv("3.1", three, 3, third)?;
    let four = net.op(format!("{name}.branch4.0"), pool(3, 1, 1), &[x])?;
    let four = net.conv_bn_relu(&format!("{name}.branch4.1"), four, ConvSpec::plain(Some(1), 1).to(fourth))?;
    net.op(format!("{name}.concat"), Op::Concat, &[one, two, three, four])
}

pub(super) fn build(tensors: &mut Tensors) -> Result<BuiltNet> {
    ["aux1.", "aux2."].iter().for_each(|prefix| tensors.set_aside(prefix));
    let channels = Assembly::picture_channels(tensors, "conv1.conv.weight");
    let mut net = Assembly::new(tensors, Shape::new(channels, 224, 224), 1e-3);
    let mut x = net.builder.input();
    x = net.conv_bn_relu("conv1", x, ConvSpec::plain(Some(7), 2).to(64))?;
    net.builder.stage("stage1", x);
    x = net.op("maxpool1", pool(3, 2, 0), &[x])?;
    x = net.conv_bn_relu("conv2", x, ConvSpec::plain(Some(1), 1).to(64))?;
    x = net.conv_bn_relu("conv3", x, ConvSpec::plain(Some(3), 1).to(192))?;
    net.builder.stage("stage2", x);
    x = net.op("maxpool2", pool(3, 2, 0), &[x])?;
    let mut stages = 2;
    for (name, widths) in MODULES {
        x = module(&mut net, name, x, widths)?;
        if let Some((_, pool, op)) = POOLS.iter().find(|(after, ..)| *after == name) {
            stages += 1;
            net.builder.stage(format!("stage{stages}"), x);
            x = net.op(*pool, op.clone(), &[x])?;
        }
    }
    net.builder.stage(format!("stage{}", stages + 1), x);
    let graph = net.classified("fc", x)?;
    let assumed = vec!["relu", "max-pools in ceil mode", "batch-norm eps 1e-3"];
    Ok(BuiltNet::of_pictures(graph, FORM, assumed, preprocess::symmetric(channels, [224, 256])))
}
