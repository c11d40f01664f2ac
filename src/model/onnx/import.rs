//! From nodes of a file to a graph of the engine.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use super::constant::{self, Constant, axis_of};
use super::file::{File, Node, Port};
use super::scalar::{Binary, Kind, Known, Scalar};
use super::view::{Dim, View, whole};
use super::{arithmetic, supported};
use crate::error::{Error, Result};
use crate::graph::{Affine, Graph, GraphBuilder, Linear, LocalResponseNorm, NodeId, Op, Smooth};
use crate::tensor::Shape;

/// Why an operation is refused that mixes pictures.
pub(super) const ACROSS: &str = "across the pictures of a batch";

/// Most branches of `If` inside each other.
const MOST_BRANCHES: usize = 16;

/// What a name stands for.
#[derive(Debug, Clone)]
pub(super) enum Value {
    /// Numbers that do not depend on the picture.
    Constant(Constant),
    /// A map that does.
    Signal(Signal),
}

/// A function of the picture, seen as an array of any rank.
#[derive(Debug, Clone)]
pub(super) struct Signal {
    pub(super) scalar: Rc<Scalar>,
    pub(super) view: View,
}

impl Signal {
    /// A node of the graph with this view.
    pub(super) fn of(node: NodeId, view: View) -> Self {
        Self { scalar: Scalar::base(node), view }
    }

    /// Sizes of the axes.
    pub(super) fn dims(&self) -> Vec<usize> {
        self.view.dims()
    }

    /// The axis that a file calls `axis`, negative ones from the end.
    pub(super) fn axis(&self, axis: i64) -> Result<usize> {
        axis_of(axis, self.view.rank())
    }
}

/// Zeros, or another number, around a map.
#[derive(Debug, Clone)]
pub(super) struct Padded {
    pub(super) source: NodeId,
    pub(super) rows: [isize; 2],
    pub(super) columns: [isize; 2],
    pub(super) value: f64,
}

/// Nodes that a later one may take in.
#[derive(Debug, Clone)]
enum Made {
    Affine(NodeId, Affine),
    Linear(NodeId, Linear),
}

/// Makes the outputs of a node that depends on the picture.
pub(super) type Build = fn(&mut Importer, &Node, &[Option<Value>]) -> Result<Vec<Value>>;

/// Reads one file as a net for pictures of one size.
pub(super) struct Importer<'f> {
    pub(super) file: &'f File,
    pub(super) builder: GraphBuilder,
    /// Pictures of a batch, where the file fixes it.
    pub(super) pictures: usize,
    values: HashMap<String, Value>,
    names: HashSet<String>,
    /// How often a name was asked for again.
    repeats: HashMap<String, usize>,
    made: HashMap<NodeId, Made>,
    pads: HashMap<NodeId, Padded>,
    /// The function at the end that is taken off, by its output.
    pub(super) taken_off: Option<String>,
    depth: usize,
    /// Names of whole numbers that depend on the picture.
    whole: HashSet<String>,
    build: Build,
}

impl<'f> Importer<'f> {
    /// A net whose picture is the input `port`, a map of shape `shape` that is seen as `view`; `build` makes its nodes.
    pub(super) fn new(
        file: &'f File,
        port: &Port,
        pictures: usize,
        (shape, view): (Shape, View),
        build: Build,
    ) -> Self {
        let builder = GraphBuilder::new(shape);
        let picture = Signal::of(builder.input(), view);
        Self {
            file,
            builder,
            pictures,
            values: [(port.name.clone(), Value::Signal(picture))].into(),
            names: ["input".to_owned()].into(),
            repeats: HashMap::new(),
            made: HashMap::new(),
            pads: HashMap::new(),
            taken_off: None,
            depth: 0,
            whole: port.has_whole_numbers().then(|| port.name.clone()).into_iter().collect(),
            build,
        }
    }

    /// Reads `nodes` in order.
    pub(super) fn run(&mut self, nodes: &[&Node]) -> Result<()> {
        let unsupported: Vec<(&&Node, Error)> =
            nodes.iter().filter_map(|node| Some((node, supported::unsupported(&node.op)?))).collect();
        if let Some((node, why)) = unsupported.first() {
            let mut others: Vec<&str> =
                unsupported.iter().map(|(n, _)| n.op.as_str()).filter(|op| *op != node.op).collect();
            others.sort_unstable();
            others.dedup();
            let others = if others.is_empty() { String::new() } else { format!("; nor are {}", others.join(", ")) };
            return Err(Error::model(format!("{}: {why}{others}", node.shown())));
        }
        for (i, node) in nodes.iter().enumerate() {
            self.node(node).map_err(|e| {
                let so_far = if self.depth == 0 {
                    format!(" ({i} of {} nodes were read before it)", nodes.len())
                } else {
                    String::new()
                };
                Error::new(e.kind(), format!("{}: {e}{so_far}", node.shown()))
            })?;
        }
        Ok(())
    }

    /// What `name` stands for.
    pub(super) fn value(&self, name: &str) -> Result<Value> {
        if let Some(value) = self.values.get(name) {
            return Ok(value.clone());
        }
        match self.file.constants.get(name) {
            Some(Ok(constant)) => Ok(Value::Constant(constant.clone())),
            Some(Err(why)) => Err(Error::model(format!("the initializer '{name}': {why}"))),
            None if self.file.inputs.iter().any(|i| i.name == name) => {
                Err(Error::model(format!("it reads the input '{name}', for which there is no value")))
            }
            None => Err(Error::model(format!("it reads '{name}', which nothing makes"))),
        }
    }

    fn node(&mut self, node: &Node) -> Result<()> {
        self.refuse_whole(node)?;
        let mut inputs = Vec::with_capacity(node.inputs.len());
        for name in &node.inputs {
            inputs.push(if name.is_empty() { None } else { Some(self.value(name)?) });
        }
        let constants: Option<Vec<Option<&Constant>>> = inputs
            .iter()
            .map(|value| match value {
                None => Some(None),
                Some(Value::Constant(constant)) => Some(Some(constant)),
                Some(Value::Signal(_)) => None,
            })
            .collect();
        let outputs = match constants {
            Some(constants) if node.op != "If" => {
                let made = arithmetic::compute(node, &constants)?;
                made.into_iter().map(Value::Constant).collect()
            }
            _ if node.op == "If" => self.branch(node, &inputs)?,
            _ => (self.build)(self, node, &inputs)?,
        };
        for (name, value) in node.outputs.iter().zip(outputs).filter(|(name, _)| !name.is_empty()) {
            self.values.insert(name.clone(), value);
        }
        Ok(())
    }

    /// Refuses arithmetic on whole numbers that depend on the picture: it rounds and wraps as real numbers do not.
    fn refuse_whole(&mut self, node: &Node) -> Result<()> {
        const MOVES: &[&str] = &[
            "Concat",
            "Flatten",
            "Gather",
            "Identity",
            "Reshape",
            "Shape",
            "Slice",
            "Split",
            "Squeeze",
            "Transpose",
            "Unsqueeze",
        ];
        if !node.inputs.iter().any(|name| self.whole.contains(name)) || node.keeps_numbers() && node.op == "Cast" {
            return Ok(());
        }
        if !MOVES.contains(&node.op.as_str()) {
            return Err(Error::model(
                "it computes with whole numbers of the picture; only a cast to real ones is supported",
            ));
        }
        self.whole.extend(node.outputs.iter().cloned());
        Ok(())
    }

    /// The branch that a constant condition takes.
    fn branch(&mut self, node: &Node, inputs: &[Option<Value>]) -> Result<Vec<Value>> {
        let Some(Some(Value::Constant(condition))) = inputs.first() else {
            return Err(Error::model("which branch it takes depends on the picture"));
        };
        let taken = condition.single().ok_or_else(|| Error::model("its condition is not one truth value"))? != 0.0;
        let branch_name = if taken { "then_branch" } else { "else_branch" };
        let graph = node.graph(branch_name).ok_or_else(|| Error::model(format!("it has no {branch_name}")))?;
        if self.depth >= MOST_BRANCHES {
            return Err(Error::model(format!("more than {MOST_BRANCHES} branches inside each other")));
        }
        let made = graph.node.iter().flat_map(|n| &n.output).chain(graph.initializer.iter().map(|t| &t.name));
        for name in made.filter(|name| !name.is_empty()) {
            let outside = self.file.inputs.iter().any(|i| i.name == *name);
            if outside || self.values.contains_key(name) || self.file.constants.contains_key(name) {
                return Err(Error::model(format!("its {branch_name} makes '{name}', which there is already")));
            }
        }
        for tensor in &graph.initializer {
            let refuse = |_: &_| Err(Error::model("external data in a branch are not supported"));
            let constant = Constant::read(tensor, refuse).map_err(|e| e.within(format!("'{}'", tensor.name)))?;
            self.values.insert(tensor.name.clone(), Value::Constant(constant));
        }
        let nodes = super::file::branch_nodes(graph, node.opset)?;
        self.depth += 1;
        let mut made = Vec::new();
        for output in &graph.output {
            let needed = super::file::ordered(&nodes, &output.name)?;
            self.run(&needed)?;
            made.push(self.value(&output.name)?);
        }
        self.depth -= 1;
        Ok(made)
    }

    /// A name that no node has yet.
    fn unique(&mut self, name: &str) -> String {
        let name = if name.is_empty() { "node" } else { name };
        let mut unique = name.to_owned();
        while !self.names.insert(unique.clone()) {
            let n = self.repeats.entry(name.to_owned()).or_insert(1);
            *n += 1;
            unique = format!("{name}#{n}");
        }
        unique
    }

    /// Adds a node to the graph.
    pub(super) fn add(&mut self, name: &str, op: Op, inputs: &[NodeId]) -> Result<NodeId> {
        let name = self.unique(name);
        let node = self.builder.push(name, op, inputs)?;
        // A small file must not ask for tables of channels without end.
        constant::spend(self.shape(node).c)?;
        Ok(node)
    }

    /// Local response normalisation.
    pub(super) fn normalised_locally(&mut self, name: &str, x: NodeId, norm: LocalResponseNorm) -> Result<NodeId> {
        let name = self.unique(name);
        self.builder.local_response_norm(&name, x, norm)
    }

    /// Shape of a node.
    pub(super) fn shape(&self, node: NodeId) -> Shape {
        self.builder.shape(node)
    }

    /// Shape of the map of a signal.
    pub(super) fn shape_of(&self, signal: &Signal) -> Shape {
        self.builder.shape(signal.scalar.base)
    }

    /// The node with the values of a formula.
    pub(super) fn values_of(&mut self, scalar: &Rc<Scalar>) -> Result<NodeId> {
        if let Some(made) = scalar.made.get() {
            return Ok(made);
        }
        let name = scalar.name.clone();
        let node = match (scalar.known(), &scalar.kind) {
            (Some(Known::Relu), _) => self.add(&name, Op::Relu, &[scalar.base])?,
            (Some(Known::Clamp(lo, hi)), _) => self.add(&name, Op::Clamp { lo, hi }, &[scalar.base])?,
            (Some(Known::Smooth(f)), _) => self.add(&name, Op::Smooth(f), &[scalar.base])?,
            (Some(Known::Gelu { scale, shift, outer }), _) => {
                let inner = Affine { scale: [scale].into(), shift: [shift].into() };
                let x = self.affine(scalar.base, inner, &format!("{name}.argument"))?;
                let y = self.add(&format!("{name}.gelu"), Op::Smooth(Smooth::Gelu), &[x])?;
                if (outer - 1.0).abs() < 1e-6 { y } else { self.affine(y, Affine::product([outer]), &name)? }
            }
            (None, Kind::Base) => scalar.base,
            (None, Kind::Affine { scale, shift, of }) => {
                let x = self.values_of(of)?;
                self.affine(x, Affine { scale: [*scale].into(), shift: [*shift].into() }, &name)?
            }
            (None, Kind::Clip { lo, hi, of }) => {
                let x = self.values_of(of)?;
                let relu = [*lo, *hi] == [0.0, f64::INFINITY];
                self.add(&name, if relu { Op::Relu } else { Op::Clamp { lo: *lo, hi: *hi } }, &[x])?
            }
            (None, Kind::Function(f, of)) => {
                let x = self.values_of(of)?;
                self.add(&name, Op::Smooth(*f), &[x])?
            }
            (None, Kind::Erf(_)) => {
                return Err(Error::model(format!(
                    "node '{name}' (Erf) is not part of a GELU; it is not supported alone"
                )));
            }
            (None, Kind::Above(..)) => {
                return Err(Error::model(format!("node '{name}' is a comparison, which is not supported alone")));
            }
            (None, Kind::Choose(..)) => {
                return Err(Error::model(format!("node '{name}' (Where) is not a known activation")));
            }
            (None, Kind::Binary(binary, a, b)) => {
                let (a, b) = (self.values_of(a)?, self.values_of(b)?);
                let op = match binary {
                    Binary::Add => Op::Add,
                    Binary::Mul => Op::Mul,
                    Binary::Divide => Op::Divide,
                };
                self.add(&name, op, &[a, b])?
            }
        };
        scalar.made.set(Some(node));
        Ok(node)
    }

    /// The node of a signal, with the signal's view.
    pub(super) fn node_of(&mut self, signal: &Signal) -> Result<NodeId> {
        self.values_of(&signal.scalar)
    }

    /// A formula that another may build on.
    pub(super) fn formula(&mut self, signal: &Signal) -> Result<Rc<Scalar>> {
        self.no_void(signal.scalar.base)?;
        if signal.scalar.is_long() {
            let node = self.node_of(signal)?;
            return Ok(Scalar::base(node));
        }
        Ok(signal.scalar.clone())
    }

    /// Products and sums with constants, joined with one right before them.
    pub(super) fn affine(&mut self, x: NodeId, affine: Affine, name: &str) -> Result<NodeId> {
        let shape = self.shape(x);
        let (source, affine) = match self.made.get(&x) {
            Some(Made::Linear(source, linear)) if affine.scale[..] == [1.0] && linear.bias.is_none() => {
                let n = linear.weight.rows();
                let bias: Vec<f64> = match affine.shift[..] {
                    [one] => vec![one; n],
                    _ => affine.shift.to_vec(),
                };
                let linear = Linear { bias: Some(bias.into()), ..linear.clone() };
                return self.add(name, Op::Linear(linear), &[*source]);
            }
            Some(Made::Affine(source, first)) if first.shift.len() <= shape.c && affine.shift.len() <= shape.c => {
                (*source, joined(first, &affine, shape.c))
            }
            _ => (x, affine),
        };
        let node = self.add(name, Op::Affine(affine.clone()), &[source])?;
        self.made.insert(node, Made::Affine(source, affine));
        Ok(node)
    }

    /// A linear layer, which may take a bias in later.
    pub(super) fn linear(&mut self, x: NodeId, linear: Linear, name: &str) -> Result<NodeId> {
        let node = self.add(name, Op::Linear(linear.clone()), &[x])?;
        self.made.insert(node, Made::Linear(x, linear));
        Ok(node)
    }

    /// Numbers around a map.
    pub(super) fn padded(&mut self, padded: Padded, name: &str) -> Result<NodeId> {
        let Padded { source, rows, columns, value } = padded;
        let pad = Op::Pad { rows, columns };
        let node = if value == 0.0 || !value.is_finite() {
            self.add(name, pad, &[source])?
        } else {
            let zeros = self.add(&format!("{name}.zeros"), pad, &[source])?;
            let (from, to) = (self.shape(source), self.shape(zeros));
            constant::count(&to.dims())?;
            let inside =
                |at: usize, before: isize, n: usize| (at as isize - before) >= 0 && (at as isize - before) < n as isize;
            let around = (0..to.len()).map(|i| {
                let (y, x) = (i / to.w % to.h, i % to.w);
                if inside(y, rows[0], from.h) && inside(x, columns[0], from.w) { 0.0 } else { value }
            });
            let around = Affine::sum(around.collect::<Vec<f64>>());
            self.add(name, Op::Affine(around), &[zeros])?
        };
        self.pads.insert(node, padded);
        Ok(node)
    }

    /// The padding that `node` is.
    pub(super) fn padding(&self, node: NodeId) -> Option<&Padded> {
        self.pads.get(&node)
    }

    /// Refuses a padding with numbers that only a max-pool can take.
    pub(super) fn no_void(&self, node: NodeId) -> Result<()> {
        match self.pads.get(&node) {
            Some(padded) if !padded.value.is_finite() || padded.value < -1e30 => {
                Err(Error::model(format!("padding with {} is supported before a MaxPool only", padded.value)))
            }
            _ => Ok(()),
        }
    }

    /// The graph whose logits are `output`.
    pub(super) fn finish(mut self, output: &str) -> Result<Graph> {
        let logits = match self.value(output)? {
            Value::Signal(signal) => signal,
            Value::Constant(_) => {
                return Err(Error::model(format!("the output '{output}' does not depend on the picture")));
            }
        };
        let x = self.node_of(&logits)?;
        let shape = self.shape(x);
        let flat = logits.view.of_map();
        let node = if shape == Shape::vector(shape.c) && flat == whole(Dim::Channel, shape.c) {
            x
        } else {
            let dims = logits.dims();
            let long = (0..dims.len()).filter(|&a| dims[a] > 1 && !logits.view.has_pictures(a)).collect::<Vec<_>>();
            match long[..] {
                [axis] => self.arranged(&logits, &[axis], "logits")?,
                [] => self.arranged(&logits, &[], "logits")?,
                _ => {
                    return Err(Error::model(format!(
                        "the output '{output}' has shape {dims:?}; expected one number for each class"
                    )));
                }
            }
        };
        self.no_void(node)?;
        stages(&mut self.builder, node);
        self.builder.finish(node)?.needed()
    }

    /// A function of single elements.
    pub(super) fn smooth(&mut self, signal: &Signal, f: Smooth, name: &str) -> Result<Signal> {
        let x = self.formula(signal)?;
        Ok(Signal { scalar: Scalar::function(&x, f, name), view: signal.view.clone() })
    }
}

/// Marks the last node of each size of maps that all paths to the output pass.
fn stages(builder: &mut GraphBuilder, output: NodeId) {
    let mut found: Vec<(String, NodeId, usize)> = Vec::new();
    for (id, name, shape) in builder.bottlenecks(output) {
        if shape.plane() > 1 {
            if found.last().is_some_and(|(_, _, plane)| *plane == shape.plane()) {
                found.pop();
            }
            found.push((name, id, shape.plane()));
        }
    }
    for (name, id, _) in found {
        builder.stage(name, id);
    }
}

/// `second` after `first`.
fn joined(first: &Affine, second: &Affine, channels: usize) -> Affine {
    let at = |v: &[f64], c: usize| if v.len() == 1 { v[0] } else { v[c] };
    let all_one = [&first.scale, &first.shift, &second.scale, &second.shift].iter().all(|v| v.len() == 1);
    let n = if all_one { 1 } else { channels };
    let scale: Vec<f64> = (0..n).map(|c| at(&first.scale, c) * at(&second.scale, c)).collect();
    let shift: Vec<f64> = (0..n).map(|c| at(&first.shift, c) * at(&second.scale, c) + at(&second.shift, c)).collect();
    Affine { scale: scale.into(), shift: shift.into() }
}
