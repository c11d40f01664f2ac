//! Deep layer aggregation (Yu 2018) with timm's names.

use super::assembly::{Assembly, ConvSpec, Groups};
use super::tensors::Tensors;
use super::{BuiltNet, USUALLY_ASSUMED, preprocess};
use crate::error::{Error, Result};
use crate::graph::{NodeId, Op};
use crate::tensor::{Shape, Window};

/// Published names and the form that each stands for.
pub(super) const PUBLISHED: &[(&str, &str)] = &[
    ("dla34", "dla-basic [1,2,2,1]"),
    ("dla46_c", "dla-bottleneck [1,2,2,1]"),
    ("dla46x_c", "dla-bottleneck [1,2,2,1]"),
    ("dla60x_c", "dla-bottleneck [1,2,3,1]"),
    ("dla60", "dla-bottleneck [1,2,3,1]"),
    ("dla60x", "dla-bottleneck [1,2,3,1]"),
    ("dla102", "dla-bottleneck [1,3,4,1]"),
    ("dla102x", "dla-bottleneck [1,3,4,1]"),
    ("dla102x2", "dla-bottleneck [1,3,4,1]"),
    ("dla169", "dla-bottleneck [2,3,5,1]"),
];

/// Heights of the trees of published nets, and whether their roots have a shortcut, which no tensor tells.
const HEIGHTS: [([usize; 4], bool); 4] =
    [([1, 2, 2, 1], false), ([1, 2, 3, 1], false), ([1, 3, 4, 1], true), ([2, 3, 5, 1], true)];

pub(super) fn recognise(tensors: &Tensors) -> Result<bool> {
    let names = ["base_layer.0.weight", "level0.0.weight", "level5.tree1.conv1.weight", "level5.root.conv.weight"];
    let is_plain = !tensors.names().any(|name| name.contains(".convs."));
    Ok(names.iter().all(|n| tensors.has(n)) && is_plain)
}

/// The path of a tree's left children, down to its first block.
fn height(tensors: &Tensors, level: usize) -> usize {
    let has = |path: &str| tensors.has(&format!("level{level}{path}.tree1.conv1.weight"));
    (0..8).find(|&depth| has(&".tree1".repeat(depth))).map_or(0, |depth| depth + 1)
}

/// A residual block, whose shortcut may come from elsewhere.
fn block(net: &mut Assembly<'_>, name: &str, x: NodeId, shortcut: NodeId, stride: usize) -> Result<NodeId> {
    let part = |kind: &str, i: usize| format!("{name}.{kind}{i}");
    let count = if net.tensors.has(&format!("{name}.conv3.weight")) { 3 } else { 2 };
    let mut y = x;
    for i in 1..=count {
        let full = ConvSpec { groups: Groups::Inferred(1), ..ConvSpec::plain(Some(3), stride) };
        let spec = match (count, i) {
            (2, 1) => ConvSpec::plain(Some(3), stride),
            (2, _) => ConvSpec::plain(Some(3), 1),
            (_, 2) => full,
            _ => ConvSpec::plain(Some(1), 1),
        };
        let act = Op::Relu;
        y =
            net.conv_norm([&part("conv", i), &part("bn", i), &part("relu", i)], y, spec, (i < count).then_some(&act))?;
    }
    let sum = net.op(format!("{name}.add"), Op::Add, &[y, shortcut])?;
    net.relu(format!("{name}.relu"), sum)
}

/// What a tree of a net needs to know.
#[derive(Clone, Copy)]
struct Tree {
    height: usize,
    stride: usize,
    /// Whether its input, made smaller, goes to its root.
    rooted: bool,
    /// Whether roots have shortcuts.
    residual: bool,
}

/// The tree `name` on `x`; `children` go to the root of its last subtree.
fn tree(net: &mut Assembly<'_>, name: &str, x: NodeId, of: Tree, mut children: Vec<NodeId>) -> Result<NodeId> {
    let Tree { height, stride, rooted, residual } = of;
    let mut bottom = x;
    if stride > 1 {
        bottom = net.op(format!("{name}.downsample"), Op::MaxPool(Window::square(stride, stride, 0)), &[x])?;
    }
    if rooted {
        children.push(bottom);
    }
    let parts = ["tree1", "tree2"].map(|part| format!("{name}.{part}"));
    if height > 1 {
        let lower = Tree { height: height - 1, rooted: false, ..of };
        let first = tree(net, &parts[0], x, lower, Vec::new())?;
        children.push(first);
        return tree(net, &parts[1], first, Tree { stride: 1, ..lower }, children);
    }
    let mut shortcut = bottom;
    if net.tensors.has(&format!("{name}.project.0.weight")) {
        let names = [0, 1].map(|i| format!("{name}.project.{i}"));
        shortcut = net.conv_norm([&names[0], &names[1], ""], bottom, ConvSpec::plain(Some(1), 1), None)?;
    }
    let first = block(net, &parts[0], x, shortcut, stride)?;
    let second = block(net, &parts[1], first, first, 1)?;
    let all: Vec<NodeId> = [second, first].into_iter().chain(children).collect();
    let joined = net.op(format!("{name}.root.concat"), Op::Concat, &all)?;
    let names = ["conv", "bn"].map(|part| format!("{name}.root.{part}"));
    let mut y = net.conv_norm([&names[0], &names[1], ""], joined, ConvSpec::plain(Some(1), 1), None)?;
    if residual {
        y = net.op(format!("{name}.root.add"), Op::Add, &[y, second])?;
    }
    net.relu(format!("{name}.root.relu"), y)
}

pub(super) fn build(tensors: &mut Tensors) -> Result<BuiltNet> {
    if !tensors.has("base_layer.0.weight") {
        return Err(Error::model("tensor 'base_layer.0.weight' is missing; expected shape [*, *, 7, 7]"));
    }
    let heights = [2, 3, 4, 5].map(|level| height(tensors, level));
    let Some((_, residual)) = HEIGHTS.iter().find(|(published, _)| *published == heights) else {
        return Err(Error::model(format!("the names are those of a DLA, but none has trees of heights {heights:?}")));
    };
    let kind = if tensors.has("level2.tree1.conv3.weight") || tensors.has("level2.tree1.tree1.conv3.weight") {
        "bottleneck"
    } else {
        "basic"
    };
    // timm's last layer is a convolution of one position.
    tensors.squeeze("fc.weight", 2);
    let channels = Assembly::picture_channels(tensors, "base_layer.0.weight");
    let mut net = Assembly::new(tensors, Shape::new(channels, 224, 224), 1e-5);
    let act = Some(&Op::Relu);
    let mut x = net.builder.input();
    x = net.conv_012("base_layer", x, ConvSpec::plain(Some(7), 1), act)?;
    x = net.conv_012("level0", x, ConvSpec::plain(Some(3), 1), act)?;
    x = net.conv_012("level1", x, ConvSpec::plain(Some(3), 2), act)?;
    for (level, height) in (2..).zip(heights) {
        net.builder.stage(format!("stage{}", level - 1), x);
        let of = Tree { height, stride: 2, rooted: level > 2, residual: *residual };
        x = tree(&mut net, &format!("level{level}"), x, of, Vec::new())?;
    }
    net.builder.stage("stage5", x);
    let graph = net.classified("fc", x)?;
    let listed = heights.map(|n| n.to_string()).join(",");
    let roots = if *residual { "shortcuts at roots" } else { "no shortcuts at roots" };
    let assumed = vec!["relu", "strides of DLA", roots, USUALLY_ASSUMED, "batch-norm eps 1e-5"];
    let form = format!("dla-{kind} [{listed}]");
    Ok(BuiltNet::of_pictures(graph, form, assumed, preprocess::timm(channels, [224, 256])))
}
