//! The computation of a net: nodes in topological order, plain data, never mutated.

mod activation;
mod affine;
mod composed;
mod dump;
mod fold;
mod gate;
mod link;
mod op;
mod rewrite;
mod weight;

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

pub use activation::{Activation, Smooth, SoftClamp};
pub(crate) use activation::{Facts, Visitor};
pub use affine::Affine;
pub use composed::LocalResponseNorm;
pub use dump::Dump;
pub use link::Link;
pub use op::{BatchNorm, Conv, Linear, Op, Over, Reduce, Standardise};
pub use weight::{Bytes, Encoding, Factor, Part, Weight, WeightId};

use crate::error::{Error, Result};
use crate::tensor::Shape;

/// A node of a [`Graph`], by position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(usize);

impl NodeId {
    /// Position in [`Graph::nodes`].
    pub fn index(self) -> usize {
        self.0
    }
}

/// One operation, its inputs and the shape of its output.
#[derive(Debug, Clone)]
pub struct Node {
    /// Unique within the graph; taken from the weights' names if there are any.
    pub name: String,
    /// Its operation.
    pub op: Op,
    /// The nodes that it reads, all of them earlier.
    pub inputs: Vec<NodeId>,
    /// Shape of its output.
    pub shape: Shape,
    /// A batch norm or an affine layer as a convolution; made once, so that its weight keeps its id.
    norm: Option<Conv>,
}

impl Node {
    /// This node as a convolution: its own, or the equivalent of a batch norm or an affine layer.
    pub(crate) fn conv(&self) -> Option<&Conv> {
        match &self.op {
            Op::Conv(conv) => Some(conv),
            _ => self.norm.as_ref(),
        }
    }
}

/// A net for one input size.
#[derive(Debug, Clone)]
pub struct Graph {
    id: u64,
    nodes: Vec<Node>,
    output: NodeId,
    stages: Vec<(String, NodeId)>,
    link: Link,
    /// By node, whether it or a node before it flattens.
    flattened: OnceLock<Vec<bool>>,
}

impl Graph {
    /// Identifies this graph: equal ids mean the same graph.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// All nodes; inputs come before their consumers; the first is the picture.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Refuses an id that is not a node of this graph.
    pub(crate) fn check(&self, id: NodeId) -> Result<()> {
        if id.0 < self.nodes.len() {
            return Ok(());
        }
        Err(Error::settings(format!(
            "node {} of a net with {} nodes: ids are of one graph only",
            id.0,
            self.nodes.len()
        )))
    }

    /// One node.
    ///
    /// # Panics
    /// When there is no such node.
    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.0]
    }

    /// Ids of all nodes in order.
    pub fn ids(&self) -> impl DoubleEndedIterator<Item = NodeId> + ExactSizeIterator + use<> {
        (0..self.nodes.len()).map(NodeId)
    }

    /// The picture.
    pub fn input(&self) -> NodeId {
        NodeId(0)
    }

    /// The logits.
    pub fn output(&self) -> NodeId {
        self.output
    }

    /// Shape of the picture.
    pub fn input_shape(&self) -> Shape {
        self.nodes[0].shape
    }

    /// Number of classes.
    pub fn classes(&self) -> usize {
        self.node(self.output).shape.len()
    }

    /// How its logits become probabilities.
    pub fn link(&self) -> Link {
        self.link
    }

    /// Named nodes at which feature maps are of interest, shallow to deep.
    pub fn stages(&self) -> &[(String, NodeId)] {
        &self.stages
    }

    /// Whether the node's rows and columns correspond to positions in the picture, i.e. nothing before it flattens them.
    ///
    /// # Panics
    /// When there is no such node.
    pub(crate) fn has_positions(&self, id: NodeId) -> bool {
        let found = self.flattened.get_or_init(|| {
            let mut flattened: Vec<bool> = Vec::with_capacity(self.nodes.len());
            for node in &self.nodes {
                let before = node.inputs.iter().any(|input| flattened[input.0]);
                flattened.push(before || matches!(node.op, Op::Flatten | Op::Linear(_)));
            }
            flattened
        });
        !found[id.0]
    }

    /// Finds a stage or any other node by name.
    ///
    /// # Errors
    /// When there is none; the message lists the stages.
    pub fn find(&self, name: &str) -> Result<NodeId> {
        let stage = self.stages.iter().find(|(n, _)| n == name).map(|&(_, id)| id);
        stage.or_else(|| self.ids().find(|&id| self.node(id).name == name)).ok_or_else(|| {
            let stages: Vec<&str> = self.stages.iter().map(|(n, _)| n.as_str()).collect();
            Error::settings(format!(
                "no layer is named '{name}'; the stages are {} (`model dump` lists every layer)",
                stages.join(", ")
            ))
        })
    }

    /// The same net for pictures of another size.
    ///
    /// # Errors
    /// When the net does not take that size; the message names the node that refuses.
    pub fn resized(&self, input: Shape) -> Result<Graph> {
        if input.c != self.input_shape().c {
            return Err(Error::input(format!(
                "the net takes {} channels, the input {input} has {}",
                self.input_shape().c,
                input.c
            )));
        }
        let mut builder = self.like(input);
        for node in &self.nodes[1..] {
            builder.add(node.name.clone(), node.op.clone(), &node.inputs, node.norm.clone())?;
        }
        self.stages.iter().for_each(|(name, id)| builder.stage(name, *id));
        builder.finish(self.output)
    }

    /// The same net without the nodes that neither the logits nor a stage need.
    ///
    /// # Errors
    /// Never for a graph that was built by [`GraphBuilder`].
    #[cfg(feature = "onnx")]
    pub(crate) fn needed(&self) -> Result<Graph> {
        let mut needed = vec![false; self.nodes.len()];
        needed[0] = true;
        needed[self.output.0] = true;
        self.stages.iter().for_each(|(_, id)| needed[id.0] = true);
        for i in (0..self.nodes.len()).rev() {
            if needed[i] {
                self.nodes[i].inputs.iter().for_each(|input| needed[input.0] = true);
            }
        }
        let mut builder = self.like(self.input_shape());
        let mut new = vec![NodeId(0); self.nodes.len()];
        for id in self.ids().skip(1).filter(|id| needed[id.0]) {
            let node = self.node(id);
            let inputs: Vec<NodeId> = node.inputs.iter().map(|i| new[i.0]).collect();
            new[id.0] = builder.add(node.name.clone(), node.op.clone(), &inputs, node.norm.clone())?;
        }
        self.stages.iter().for_each(|(name, id)| builder.stage(name, new[id.0]));
        builder.finish(new[self.output.0])
    }

    /// Whether `other` has the same operations on the same nodes, with the same numbers.
    #[cfg(feature = "onnx")]
    pub(crate) fn is_like(&self, other: &Graph) -> bool {
        let same = |a: &Op, b: &Op| match (a, b) {
            (Op::Conv(a), Op::Conv(b)) => {
                (a.window, a.groups, &a.bias) == (b.window, b.groups, &b.bias) && a.weight.is_same(&b.weight)
            }
            (Op::Linear(a), Op::Linear(b)) => a.bias == b.bias && a.weight.is_same(&b.weight),
            (a, b) => format!("{a:?}") == format!("{b:?}"),
        };
        let alike = |(a, b): (&Node, &Node)| a.shape == b.shape && a.inputs == b.inputs && same(&a.op, &b.op);
        self.nodes.len() == other.nodes.len()
            && self.output == other.output
            && self.nodes.iter().zip(&other.nodes).all(alike)
    }

    /// The same net with another way from logits to probabilities; one with one output keeps its sigmoid.
    pub(crate) fn linked(self, link: Link) -> Graph {
        let link = if self.classes() == 1 { Link::Sigmoid } else { link };
        Graph { link, ..self }
    }

    /// An empty builder with this net's properties, on pictures of shape `input`.
    fn like(&self, input: Shape) -> GraphBuilder {
        GraphBuilder { link: self.link, ..GraphBuilder::new(input) }
    }

    /// For each node, the nodes that read it.
    pub fn consumers(&self) -> Vec<Vec<NodeId>> {
        let mut readers = vec![Vec::new(); self.nodes.len()];
        for id in self.ids() {
            self.node(id).inputs.iter().for_each(|i| readers[i.0].push(id));
        }
        readers
    }

    /// Number of parameters in total.
    pub fn parameters(&self) -> usize {
        self.nodes.iter().map(|n| n.op.parameters()).sum()
    }

    /// Multiply-adds of one forward pass.
    pub fn macs(&self) -> usize {
        self.nodes.iter().map(|n| n.op.macs(n.shape)).sum()
    }
}

/// Builds a [`Graph`] node by node; shapes are checked as each node is added.
#[derive(Debug)]
pub struct GraphBuilder {
    nodes: Vec<Node>,
    stages: Vec<(String, NodeId)>,
    link: Link,
    names: std::collections::HashSet<String>,
}

impl GraphBuilder {
    /// A graph for pictures of shape `input`; its node is named `input`.
    pub fn new(input: Shape) -> Self {
        let node = Node { name: "input".into(), op: Op::Input, inputs: Vec::new(), shape: input, norm: None };
        Self { nodes: vec![node], stages: Vec::new(), link: Link::Softmax, names: ["input".to_string()].into() }
    }

    /// The picture.
    pub fn input(&self) -> NodeId {
        NodeId(0)
    }

    /// Shape of a node's output.
    ///
    /// # Panics
    /// When there is no such node.
    pub fn shape(&self, id: NodeId) -> Shape {
        self.nodes[id.0].shape
    }

    /// Adds a node.
    ///
    /// # Errors
    /// When the name is taken, an input does not exist or the shapes do not match; the message names the node.
    pub fn push(&mut self, name: impl Into<String>, op: Op, inputs: &[NodeId]) -> Result<NodeId> {
        self.add(name.into(), op, inputs, None)
    }

    /// As [`GraphBuilder::push`]; `norm` is the equivalent convolution of a batch norm or an affine layer if it is known.
    fn add(&mut self, name: String, op: Op, inputs: &[NodeId], norm: Option<Conv>) -> Result<NodeId> {
        if inputs.iter().any(|i| i.0 >= self.nodes.len()) {
            return Err(Error::model(format!("node '{name}' reads a node that is not there yet")));
        }
        let shapes: Vec<Shape> = inputs.iter().map(|&i| self.shape(i)).collect();
        let shape = op.output(&shapes).map_err(|e| e.within(format!("node '{name}'")))?;
        if !self.names.insert(name.clone()) {
            return Err(Error::model(format!("two nodes are named '{name}'")));
        }
        let norm = match norm {
            Some(norm) => Some(norm),
            None => affine::depthwise(&op, shape.c)?,
        };
        self.nodes.push(Node { name, op, inputs: inputs.to_vec(), shape, norm });
        Ok(NodeId(self.nodes.len() - 1))
    }

    /// The nodes that every path from the picture to `output` passes, in order, with their names and shapes.
    #[cfg(feature = "onnx")]
    pub(crate) fn bottlenecks(&self, output: NodeId) -> Vec<(NodeId, String, Shape)> {
        let mut needed = vec![false; self.nodes.len()];
        let mut last_reader = vec![0; self.nodes.len()];
        needed[output.0] = true;
        for i in (0..=output.0).rev() {
            if needed[i] {
                for input in &self.nodes[i].inputs {
                    needed[input.0] = true;
                    last_reader[input.0] = last_reader[input.0].max(i);
                }
            }
        }
        let mut found = Vec::new();
        let mut open = 0;
        for i in (0..=output.0).filter(|&i| needed[i]) {
            if open <= i {
                found.push((NodeId(i), self.nodes[i].name.clone(), self.nodes[i].shape));
            }
            open = open.max(last_reader[i]);
        }
        found
    }

    /// Makes `id` a named stage; [`GraphBuilder::finish`] refuses one that is not a node.
    pub fn stage(&mut self, name: impl Into<String>, id: NodeId) {
        self.stages.push((name.into(), id));
    }

    /// The graph whose logits are `output`. A net with one logit has a sigmoid ([`Link::Sigmoid`]), any other a softmax.
    ///
    /// # Errors
    /// When `output` is not a vector, it or a stage is not a node of this graph, or the pictures are empty.
    pub fn finish(self, output: NodeId) -> Result<Graph> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        self.nodes[0].shape.checked().map_err(|e| e.within("the input"))?;
        let foreign = |id: NodeId| id.0 >= self.nodes.len();
        if foreign(output) {
            return Err(Error::model("the logits are no node of this graph"));
        }
        if let Some((stage, _)) = self.stages.iter().find(|(_, id)| foreign(*id)) {
            return Err(Error::model(format!("stage '{stage}' is not a node of this graph")));
        }
        let shape = self.shape(output);
        if shape != Shape::vector(shape.c) {
            return Err(Error::model(format!(
                "the logits must be a vector, node '{}' gives {shape}",
                self.nodes[output.0].name
            )));
        }
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        let link = if shape.c == 1 { Link::Sigmoid } else { self.link };
        Ok(Graph { id, nodes: self.nodes, output, stages: self.stages, link, flattened: OnceLock::new() })
    }
}
