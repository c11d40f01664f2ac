//! Inception v3 (Szegedy 2016) with torchvision's names, which timm uses too; its auxiliary classifier is left out.
//!
//! torchvision's published net changes normalised pictures first (`transform_input`), so that levels lie between −1 and
//! 1. Here the preparation of pictures does that.

use super::assembly::{Assembly, ConvSpec, Pad};
use super::tensors::Tensors;
use super::{BuiltNet, preprocess};
use crate::error::Result;
use crate::graph::{NodeId, Op};
use crate::tensor::{Shape, Window};

/// Published names and the form that each stands for.
pub(super) const PUBLISHED: &[(&str, &str)] = &[("inception_v3", FORM)];

const FORM: &str = "inception-v3";

/// A convolution with norm and ReLU: name, channels, kernel.
type Layer = (&'static str, usize, [usize; 2]);

/// A branch of a module: layers one after the other, then at most two that read the last one's output.
struct Branch {
    before: Before,
    layers: &'static [Layer],
    fork: &'static [Layer],
}

/// What a branch does first.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Before {
    Nothing,
    /// Average over 3×3, zeros of the padding included.
    Average,
    /// Maximum over 3×3 with stride 2.
    Maximum,
}

const fn plain(layers: &'static [Layer]) -> Branch {
    Branch { before: Before::Nothing, layers, fork: &[] }
}

const fn forked(layers: &'static [Layer], fork: &'static [Layer]) -> Branch {
    Branch { before: Before::Nothing, layers, fork }
}

const fn averaged(layers: &'static [Layer]) -> Branch {
    Branch { before: Before::Average, layers, fork: &[] }
}

const MAXIMUM: Branch = Branch { before: Before::Maximum, layers: &[], fork: &[] };

const fn mixed5(pool: &'static [Layer]) -> [Branch; 4] {
    [
        plain(&[("branch1x1", 64, [1, 1])]),
        plain(&[("branch5x5_1", 48, [1, 1]), ("branch5x5_2", 64, [5, 5])]),
        plain(&[("branch3x3dbl_1", 64, [1, 1]), ("branch3x3dbl_2", 96, [3, 3]), ("branch3x3dbl_3", 96, [3, 3])]),
        averaged(pool),
    ]
}

/// Modules with factorised 7×7 kernels, `$c` channels inside.
macro_rules! mixed6 {
    ($c:literal) => {
        [
            plain(&[("branch1x1", 192, [1, 1])]),
            plain(&[("branch7x7_1", $c, [1, 1]), ("branch7x7_2", $c, [1, 7]), ("branch7x7_3", 192, [7, 1])]),
            plain(&[
                ("branch7x7dbl_1", $c, [1, 1]),
                ("branch7x7dbl_2", $c, [7, 1]),
                ("branch7x7dbl_3", $c, [1, 7]),
                ("branch7x7dbl_4", $c, [7, 1]),
                ("branch7x7dbl_5", 192, [1, 7]),
            ]),
            averaged(&[("branch_pool", 192, [1, 1])]),
        ]
    };
}

const fn mixed7() -> [Branch; 4] {
    [
        plain(&[("branch1x1", 320, [1, 1])]),
        forked(&[("branch3x3_1", 384, [1, 1])], &[("branch3x3_2a", 384, [1, 3]), ("branch3x3_2b", 384, [3, 1])]),
        forked(
            &[("branch3x3dbl_1", 448, [1, 1]), ("branch3x3dbl_2", 384, [3, 3])],
            &[("branch3x3dbl_3a", 384, [1, 3]), ("branch3x3dbl_3b", 384, [3, 1])],
        ),
        averaged(&[("branch_pool", 192, [1, 1])]),
    ]
}

/// Modules in order. In those with a maximum the last layer of each other branch has stride 2 and no padding.
static MODULES: [(&str, &[Branch]); 11] = [
    ("Mixed_5b", &mixed5(&[("branch_pool", 32, [1, 1])])),
    ("Mixed_5c", &mixed5(&[("branch_pool", 64, [1, 1])])),
    ("Mixed_5d", &mixed5(&[("branch_pool", 64, [1, 1])])),
    (
        "Mixed_6a",
        &[
            plain(&[("branch3x3", 384, [3, 3])]),
            plain(&[("branch3x3dbl_1", 64, [1, 1]), ("branch3x3dbl_2", 96, [3, 3]), ("branch3x3dbl_3", 96, [3, 3])]),
            MAXIMUM,
        ],
    ),
    ("Mixed_6b", &mixed6!(128)),
    ("Mixed_6c", &mixed6!(160)),
    ("Mixed_6d", &mixed6!(160)),
    ("Mixed_6e", &mixed6!(192)),
    (
        "Mixed_7a",
        &[
            plain(&[("branch3x3_1", 192, [1, 1]), ("branch3x3_2", 320, [3, 3])]),
            plain(&[
                ("branch7x7x3_1", 192, [1, 1]),
                ("branch7x7x3_2", 192, [1, 7]),
                ("branch7x7x3_3", 192, [7, 1]),
                ("branch7x7x3_4", 192, [3, 3]),
            ]),
            MAXIMUM,
        ],
    ),
    ("Mixed_7b", &mixed7()),
    ("Mixed_7c", &mixed7()),
];

pub(super) fn recognise(tensors: &Tensors) -> Result<bool> {
    Ok(["Conv2d_1a_3x3.conv.weight", "Mixed_7c.branch1x1.conv.weight"].iter().all(|n| tensors.has(n)))
}

fn module(net: &mut Assembly<'_>, name: &str, x: NodeId, branches: &[Branch]) -> Result<NodeId> {
    let halves = branches.iter().any(|branch| branch.before == Before::Maximum);
    let mut ends = Vec::new();
    for branch in branches {
        let mut y = match branch.before {
            Before::Nothing => x,
            Before::Average => {
                let average = Op::AvgPool { window: Window::square(3, 1, 1), count_padding: true };
                net.op(format!("{name}.average"), average, &[x])?
            }
            Before::Maximum => net.op(format!("{name}.maximum"), Op::MaxPool(Window::square(3, 2, 0)), &[x])?,
        };
        for (i, &(layer, out, kernel)) in branch.layers.iter().enumerate() {
            let mut spec = ConvSpec::of(kernel).to(out);
            if halves && i + 1 == branch.layers.len() {
                spec = ConvSpec { stride: 2, ..spec.padded(Pad::Rows(0)) };
            }
            y = net.conv_bn_relu(&format!("{name}.{layer}"), y, spec)?;
        }
        for &(layer, out, kernel) in branch.fork {
            ends.push(net.conv_bn_relu(&format!("{name}.{layer}"), y, ConvSpec::of(kernel).to(out))?);
        }
        if branch.fork.is_empty() {
            ends.push(y);
        }
    }
    net.op(format!("{name}.concat"), Op::Concat, &ends)
}

pub(super) fn build(tensors: &mut Tensors) -> Result<BuiltNet> {
    tensors.set_aside("AuxLogits.");
    let channels = Assembly::picture_channels(tensors, "Conv2d_1a_3x3.conv.weight");
    let mut net = Assembly::new(tensors, Shape::new(channels, 299, 299), 1e-3);
    let mut x = net.builder.input();
    let bare = |side, stride, out| ConvSpec::plain(Some(side), stride).to(out).padded(Pad::Rows(0));
    x = net.conv_bn_relu("Conv2d_1a_3x3", x, bare(3, 2, 32))?;
    x = net.conv_bn_relu("Conv2d_2a_3x3", x, bare(3, 1, 32))?;
    x = net.conv_bn_relu("Conv2d_2b_3x3", x, ConvSpec::plain(Some(3), 1).to(64))?;
    net.builder.stage("stage1", x);
    x = net.op("maxpool1", Op::MaxPool(Window::square(3, 2, 0)), &[x])?;
    x = net.conv_bn_relu("Conv2d_3b_1x1", x, bare(1, 1, 80))?;
    x = net.conv_bn_relu("Conv2d_4a_3x3", x, bare(3, 1, 192))?;
    net.builder.stage("stage2", x);
    x = net.op("maxpool2", Op::MaxPool(Window::square(3, 2, 0)), &[x])?;
    let mut stages = 2;
    for (name, branches) in &MODULES {
        if branches.iter().any(|branch| branch.before == Before::Maximum) {
            stages += 1;
            net.builder.stage(format!("stage{stages}"), x);
        }
        x = module(&mut net, name, x, branches)?;
    }
    net.builder.stage(format!("stage{}", stages + 1), x);
    let graph = net.classified("fc", x)?;
    let assumed = vec!["relu", "zeros counted in average pools", "batch-norm eps 1e-3"];
    Ok(BuiltNet::of_pictures(graph, FORM, assumed, preprocess::symmetric(channels, [299, 342])))
}
