//! From an ONNX file to a graph.
//!
//! A file is read in passes. `file` decodes it and writes local functions out; `recognise` finds normalisations that
//! are written out. Then the nodes that the chosen output needs are read in order: what does not depend on the picture
//! is computed ([`arithmetic`]), the rest becomes nodes of the engine ([`ops`]). Reshapes and transpositions only
//! change how a map is seen ([`view`]); functions of single elements stay formulas until they are needed ([`scalar`]).

mod arithmetic;
mod constant;
mod file;
mod import;
mod maps;
mod ops;
mod recognise;
mod scalar;
mod supported;
mod view;
mod wire;

use std::collections::BTreeMap;
use std::path::Path;

use crate::error::{Error, Result};
use crate::graph::{Bytes, Graph, Link, Op, Smooth};
use crate::model::Reading;
use crate::tensor::Shape;
use file::{File, Node, Port};
use import::{ACROSS, Importer};
use view::{Dim, MAP, View};

/// What is assumed of pictures then.
pub(super) const OPEN_SIZE: &str = "size of pictures: 224x224, as the file leaves it open";

/// Rows and columns of a picture where a file leaves them open.
const OPEN_SIDE: usize = 224;

/// Largest batch that a file may fix.
const MOST_PICTURES: usize = 1 << 16;

/// Most outputs that are looked at for logits.
const MOST_OUTPUTS: usize = 16;

/// How the axes of the graph's input lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    /// `[n, c, h, w]`.
    ChannelsFirst,
    /// `[n, h, w, c]`.
    ChannelsLast,
    /// `[n, h, w]` or `[h, w]` in grey, or `[n, c]`.
    Bare,
}

/// Which numbers the graph takes pictures as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Levels {
    /// Nothing in the graph tells.
    Unknown,
    /// From 0 to 255.
    Bytes,
    /// From 0 to 1: the graph normalises itself.
    Unit,
}

/// A file that was read as a net.
pub(super) struct Net {
    pub(super) source: Source,
    /// For the default input.
    pub(super) graph: Graph,
    pub(super) layout: Layout,
    pub(super) levels: Levels,
    /// Whether the file fixes rows and columns.
    pub(super) fixed: bool,
    /// What the file leaves open.
    pub(super) assumed: Vec<&'static str>,
    pub(super) warnings: Vec<String>,
    /// What the file said, one line each.
    pub(super) read: Vec<String>,
    /// Of the file.
    pub(super) metadata: BTreeMap<String, String>,
    /// How many numbers are stored in each encoding.
    pub(super) encodings: BTreeMap<&'static str, usize>,
    /// Files with numbers besides the graph's.
    pub(super) beside: Vec<Bytes>,
}

/// What reads the file again for another size.
pub(super) struct Source {
    file: File,
    output: String,
    layout: Layout,
    taken_off: Option<(String, &'static str)>,
    port: Port,
    /// Whether the graph scales the levels of pictures.
    pub(super) scales: bool,
}

/// Reads a file; numbers in other files lie in `folder`. Where the file leaves rows and columns open, they are `size`.
///
/// # Errors
/// When it is not an ONNX graph, is damaged, or holds what is not supported; the message names the node.
pub(super) fn read(bytes: &Bytes, folder: Option<&Path>, wishes: &Reading, size: Option<[usize; 2]>) -> Result<Net> {
    let sides = size.unwrap_or([OPEN_SIDE; 2]);
    let mut file = File::read(bytes, folder)?;
    recognise::normalisations(&mut file);
    let output = output(&file, wishes.output)?;
    let mut chosen = None;
    let mut refused = Vec::new();
    for name in &output {
        match Candidate::read(&file, name, sides) {
            Ok(candidate) => match &chosen {
                None => chosen = Some(candidate),
                // Of a score and its logits the score says what the head is.
                Some(Candidate { logits, taken_off, .. }) if *logits == candidate.logits => {
                    if taken_off.is_none() {
                        chosen = Some(candidate);
                    }
                }
                Some(Candidate { output, .. }) => {
                    return Err(Error::model(format!(
                        "the outputs '{output}' and '{}' both hold one number for each class: choose one with --output",
                        candidate.output
                    )));
                }
            },
            Err(e) => refused.push((name.clone(), e)),
        }
    }
    let left_out: Vec<String> =
        refused.iter().map(|(name, why)| format!("the output '{name}' is not read: {why}")).collect();
    let refused = refused.into_iter().next().map(|(_, why)| why);
    let Candidate { graph, output, layout, taken_off, port, .. } = match (chosen, refused) {
        (Some(candidate), _) => candidate,
        (None, Some(e)) => return Err(e),
        (None, None) => return Err(Error::model("the graph has no output that holds scores")),
    };
    let mut assumed = Vec::new();
    let mut read = Vec::new();
    if let Some((_, op)) = &taken_off {
        read.push(format!("the {op} at the end is taken off: logits are what goes into it"));
    }
    let sigmoid = taken_off.as_ref().is_some_and(|(_, op)| *op == "Sigmoid");
    let link = wishes.head.unwrap_or(if sigmoid { Link::Sigmoid } else { Link::Softmax });
    let graph = graph.linked(link);
    if wishes.head.is_none() && taken_off.is_none() && graph.classes() > 1 {
        assumed.push("head: softmax");
    }
    let fixed = !open(&port);
    if !fixed && size.is_none() {
        assumed.push(OPEN_SIZE);
    }
    let levels = levels(&graph, &port);
    let warnings = probabilities(&graph).map(|name| {
        format!(
            "the output is made of the probabilities of node '{name}': its numbers are taken as logits, but are none"
        )
    });
    let encodings = file.encodings();
    let producer = if file.producer.is_empty() { String::new() } else { format!(" by {}", file.producer) };
    let line = format!("ONNX opset {}{producer}, input {}, output {output}", file.opset, shown(&port));
    read.insert(0, line);
    read.extend(left_out);
    let (metadata, beside) = (std::mem::take(&mut file.metadata), std::mem::take(&mut file.beside));
    let scales = levels != Levels::Unknown;
    let source = Source { file, output, layout, taken_off, port, scales };
    Ok(Net {
        source,
        graph,
        layout,
        levels,
        fixed,
        assumed,
        warnings: warnings.into_iter().collect(),
        read,
        metadata,
        encodings,
        beside,
    })
}

/// Whether the file leaves rows or columns open.
fn open(port: &Port) -> bool {
    port.dims.as_ref().is_none_or(|d| d.len() > 2 && d[1..].iter().any(Option::is_none))
}

/// An input with its shape.
fn shown(port: &Port) -> String {
    let Some(dims) = &port.dims else { return port.name.clone() };
    let dims: Vec<String> = dims.iter().map(|d| d.map_or("?".into(), |d| d.to_string())).collect();
    format!("{} [{}]", port.name, dims.join(", "))
}

impl Source {
    /// The net for pictures of another size.
    pub(super) fn resized(&self, input: Shape, default: &Graph) -> Result<Graph> {
        let dims = self.port.dims.clone().unwrap_or_default();
        let wanted = match self.layout {
            Layout::ChannelsFirst => vec![input.c, input.h, input.w],
            Layout::ChannelsLast => vec![input.h, input.w, input.c],
            Layout::Bare if input.plane() > 1 => vec![input.h, input.w],
            Layout::Bare => vec![input.c],
        };
        let own = &dims[dims.len().saturating_sub(wanted.len())..];
        if own.iter().zip(&wanted).any(|(own, wanted)| own.is_some_and(|own| own != *wanted)) {
            return Err(Error::input(format!(
                "the file fixes its input to {}; export it with open sizes for others",
                shown(&self.port)
            )));
        }
        let graph = build(&self.file, &self.port, &self.output, self.layout, input, (&self.taken_off, None))?;
        Ok(graph.linked(default.link()))
    }
}

impl File {
    /// How many numbers are stored in each encoding.
    fn encodings(&self) -> BTreeMap<&'static str, usize> {
        let mut counts = BTreeMap::new();
        let read: std::collections::HashSet<&str> = self.nodes.iter().flat_map(Node::reads).collect();
        for (_, constant) in self.constants.iter().filter(|(name, _)| read.contains(name.as_str())) {
            if let Ok(constant::Constant { numbers: constant::Numbers::Stored(bytes, encoding), .. }) = constant {
                *counts.entry(encoding.name()).or_insert(0) += bytes.len() / encoding.bytes();
            }
        }
        counts
    }
}

/// Names of the outputs that may hold logits.
fn output(file: &File, wanted: Option<&str>) -> Result<Vec<String>> {
    let names = || file.outputs.iter().map(|o| o.name.as_str()).collect::<Vec<_>>().join(", ");
    if let Some(wanted) = wanted {
        let made = file.nodes.iter().any(|n| n.outputs.iter().any(|o| o == wanted));
        if !made {
            return Err(Error::settings(format!(
                "nothing in the graph is named '{wanted}'; its outputs are {}",
                names()
            )));
        }
        return Ok(vec![wanted.to_owned()]);
    }
    let real = |o: &&Port| matches!(o.element, 0 | 1 | 10 | 11 | 16);
    let all: Vec<String> = file.outputs.iter().filter(real).map(|o| o.name.clone()).collect();
    if all.len() > MOST_OUTPUTS {
        return Err(Error::model(format!("the graph has {} outputs; choose one with --output", all.len())));
    }
    // Places are no scores; what makes them says so.
    Ok(if all.is_empty() { file.outputs.iter().map(|o| o.name.clone()).collect() } else { all })
}

/// A net that one output may be.
struct Candidate {
    graph: Graph,
    output: String,
    /// The tensor that holds the logits.
    logits: String,
    layout: Layout,
    taken_off: Option<(String, &'static str)>,
    port: Port,
}

impl Candidate {
    fn read(file: &File, output: &str, sides: [usize; 2]) -> Result<Self> {
        let nodes = file.ordered(output)?;
        let reads: std::collections::HashSet<&str> = nodes.iter().flat_map(|n| n.reads()).collect();
        let needed: Vec<&Port> = file.inputs.iter().filter(|i| reads.contains(i.name.as_str())).collect();
        // Of several inputs the one with most axes is the picture; a node that reads another is refused by name.
        let port = needed.iter().max_by_key(|i| i.dims.as_ref().map_or(4, Vec::len)).copied();
        let Some(port) = port else {
            return Err(Error::model(format!("the output '{output}' does not depend on an input")));
        };
        let (taken_off, logits) = last_function(file, output);
        let mut refused = None;
        for (layout, shape) in layouts(port, sides)? {
            match build(file, port, output, layout, shape, (&taken_off, None)) {
                Ok(graph) => {
                    alone(file, port, output, layout, &graph, &taken_off)?;
                    let (output, port) = (output.to_owned(), port.clone());
                    return Ok(Self { graph, output, logits, layout, taken_off, port });
                }
                Err(e) => refused = refused.or(Some(e)),
            }
        }
        Err(refused.unwrap_or_else(|| Error::model("its input has no shape")))
    }
}

/// Refuses a net whose answer for a picture depends on the others of its batch, where the file leaves their number open.
fn alone(
    file: &File,
    port: &Port,
    output: &str,
    layout: Layout,
    graph: &Graph,
    taken_off: &Option<(String, &'static str)>,
) -> Result<()> {
    if port.dims.as_ref().is_some_and(|dims| dims.first().is_none_or(Option::is_some)) {
        return Ok(());
    }
    match build(file, port, output, layout, graph.input_shape(), (taken_off, Some(2))) {
        Ok(two) if !graph.is_like(&two) => {
            Err(Error::model("its numbers depend on how many pictures are in a batch; that is not supported"))
        }
        Err(e) if e.to_string().contains(ACROSS) => Err(e),
        // A graph that stands two pictures in no way takes one at a time.
        _ => Ok(()),
    }
}

/// The softmax or sigmoid at the end, by its output, and the tensor that goes into it.
fn last_function(file: &File, output: &str) -> (Option<(String, &'static str)>, String) {
    let maker = |name: &str| file.nodes.iter().find(|n| n.outputs.first().is_some_and(|o| o == name));
    let mut name = output;
    let mut found = None;
    for _ in 0..64 {
        let Some(node) = maker(name) else { break };
        let Some(before) = node.input(0) else { break };
        match node.op.as_str() {
            "Identity" | "Cast" | "Reshape" | "Flatten" | "Squeeze" | "Unsqueeze" | "Dropout" => name = before,
            "Softmax" | "LogSoftmax" | "Sigmoid" if found.is_none() => {
                let op = match node.op.as_str() {
                    "Softmax" => "Softmax",
                    "LogSoftmax" => "LogSoftmax",
                    _ => "Sigmoid",
                };
                found = Some((node.outputs[0].clone(), op));
                name = before;
            }
            _ => break,
        }
    }
    (found, name.to_owned())
}

/// How the input may lie, the likeliest first.
fn layouts(port: &Port, [rows, columns]: [usize; 2]) -> Result<Vec<(Layout, Shape)>> {
    let Some(dims) = &port.dims else {
        return Ok(vec![(Layout::ChannelsFirst, Shape::new(3, rows, columns))]);
    };
    let plane = |c, h: Option<usize>, w: Option<usize>| Shape::new(c, h.unwrap_or(rows), w.unwrap_or(columns));
    let first = |c: Option<usize>, h, w| (Layout::ChannelsFirst, plane(c.unwrap_or(3), h, w));
    let last = |h, w, c: Option<usize>| (Layout::ChannelsLast, plane(c.unwrap_or(3), h, w));
    let colour = |d: Option<usize>| matches!(d, Some(1 | 3));
    Ok(match dims[..] {
        [_, a, b, c] => {
            let (cf, cl) = (first(a, b, c), last(a, b, c));
            if colour(c) && !colour(a) { vec![cl, cf] } else { vec![cf, cl] }
        }
        [a, b, c] if colour(a) => vec![first(a, b, c)],
        [a, b, c] if colour(c) => vec![last(a, b, c)],
        [_, b, c] => vec![(Layout::Bare, plane(1, b, c))],
        [_, Some(n)] | [Some(n)] => vec![(Layout::Bare, Shape::vector(n))],
        _ => {
            return Err(Error::model(format!(
                "its input {} is not a picture [n, c, h, w] or [n, h, w, c], nor a vector [n, c]",
                shown(port)
            )));
        }
    })
}

/// The graph whose logits are `output`, for pictures of shape `shape`.
fn build(
    file: &File,
    port: &Port,
    output: &str,
    layout: Layout,
    shape: Shape,
    (taken_off, batch): (&Option<(String, &'static str)>, Option<usize>),
) -> Result<Graph> {
    let order: &[Dim] = match layout {
        Layout::ChannelsFirst => &MAP,
        Layout::ChannelsLast => &[Dim::Row, Dim::Column, Dim::Channel],
        Layout::Bare if shape.plane() > 1 => &MAP[1..],
        Layout::Bare => &MAP[..1],
    };
    constant::allow(file::COMPUTED + file::COMPUTED_PER_BYTE * file.bytes);
    let dims = port.dims.as_deref().unwrap_or_default();
    // A fixed batch stays an axis of its own; a graph without one has none.
    let batched = dims.len() != order.len();
    let pictures = if batched { dims.first().copied().flatten().or(batch).unwrap_or(1) } else { 1 };
    let shape = shape.checked()?;
    constant::spend(shape.c)?;
    if pictures > MOST_PICTURES {
        return Err(Error::model(format!("a batch of {pictures} pictures is too large")));
    }
    let mut view = View::of(pictures, shape, order);
    if !batched {
        view.axes.remove(0);
    }
    let mut importer = Importer::new(file, port, pictures, (shape, view), ops::build);
    importer.taken_off = taken_off.as_ref().map(|(name, _)| name.clone());
    let nodes = file.ordered(output)?;
    importer.run(&nodes)?;
    importer.finish(output)
}

/// Products and sums with constants: factors and constants, one a channel or one for all.
type Scaling = (Vec<f64>, Vec<f64>);

/// The products and sums with constants that all numbers of the picture pass first, behind what leaves levels as they are.
fn first_steps(graph: &Graph) -> Option<Vec<Scaling>> {
    let readers = graph.consumers();
    let (mut found, mut seen, mut waiting) = (Vec::new(), vec![false; graph.nodes().len()], vec![graph.input()]);
    while let Some(id) = waiting.pop() {
        for &reader in &readers[id.index()] {
            if std::mem::replace(&mut seen[reader.index()], true) {
                continue;
            }
            match &graph.node(reader).op {
                Op::Slice { .. }
                | Op::Shuffle { .. }
                | Op::Concat
                | Op::Pad { .. }
                | Op::Resize(_)
                | Op::Clamp { .. } => {
                    waiting.push(reader);
                }
                Op::Affine(affine) => found.push((affine.scale.to_vec(), affine.shift.to_vec())),
                Op::BatchNorm(norm) => found.push(norm.affine()),
                _ => return None,
            }
        }
    }
    Some(found)
}

/// Which numbers the graph takes pictures as: what its first steps do with them.
fn levels(graph: &Graph, port: &Port) -> Levels {
    if port.has_whole_numbers() {
        return Levels::Bytes;
    }
    let kinds: Vec<Levels> = first_steps(graph).unwrap_or_default().iter().map(levels_before).collect();
    match kinds[..] {
        [first, ..] if kinds.iter().all(|kind| *kind == first) => first,
        _ => Levels::Unknown,
    }
}

/// Which levels such a scaling makes numbers of order one of.
fn levels_before((scale, shift): &Scaling) -> Levels {
    let least = scale.iter().copied().fold(f64::INFINITY, f64::min);
    let most = scale.iter().copied().fold(0.0, f64::max);
    // The mean that is subtracted before the scaling.
    let means = || {
        let n = scale.len().max(shift.len());
        let at = |v: &[f64], i: usize| v[i.min(v.len() - 1)];
        (0..n).map(move |i| -at(shift, i) / at(scale, i))
    };
    if least > 0.0 && most < 0.05 || means().any(|m| m > 1.5) {
        return Levels::Bytes;
    }
    let to_bytes = least > 250.0 && most < 260.0 && shift.iter().all(|v| *v == 0.0);
    if to_bytes || least >= 1.0 && means().all(|m| (0.05..=1.0).contains(&m)) {
        return Levels::Unit;
    }
    Levels::Unknown
}

/// A softmax or sigmoid whose numbers reach the output with nothing between that could make logits of them.
fn probabilities(graph: &Graph) -> Option<String> {
    let mut waiting = vec![graph.output()];
    for _ in 0..64 {
        let id = waiting.pop()?;
        let node = graph.node(id);
        match &node.op {
            Op::Softmax { .. } | Op::Smooth(Smooth::Sigmoid) => return Some(node.name.clone()),
            Op::Flatten | Op::Slice { .. } | Op::Concat | Op::Shuffle { .. } | Op::Affine(_) | Op::Clamp { .. } => {
                waiting.extend(&node.inputs);
            }
            _ => {}
        }
    }
    None
}
