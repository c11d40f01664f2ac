//! From the bytes of a file to a flat list of nodes, with the constants that they read.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Component, Path};
use std::sync::Mutex;

use prost::Message;
use prost::bytes::Bytes;

use super::constant::{self, Constant};
use super::wire::{AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto};
use crate::error::{Error, Result};
use crate::graph;
use crate::model::mapped;

/// Versions of ONNX's operations that are read.
const OPSETS: std::ops::RangeInclusive<i64> = 7..=24;

/// How many numbers a graph may compute, and how many more for each byte of its files.
pub(super) const COMPUTED: usize = 1 << 24;
pub(super) const COMPUTED_PER_BYTE: usize = 4;

/// Most nodes after local functions are written out.
const MOST_NODES: usize = 1 << 20;

/// Most functions that call each other, one inside the other.
const MOST_DEPTH: usize = 32;

/// An operation on named tensors.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) name: String,
    pub(super) op: String,
    /// Names of tensors; an empty name is an input that is left out.
    pub(super) inputs: Vec<String>,
    pub(super) outputs: Vec<String>,
    pub(super) attributes: BTreeMap<String, AttributeProto>,
    /// Version of the operations.
    pub(super) opset: i64,
}

impl Node {
    /// As errors name it.
    pub(super) fn shown(&self) -> String {
        format!("node '{}' ({})", self.name, self.op)
    }

    fn attribute(&self, name: &str) -> Option<&AttributeProto> {
        self.attributes.get(name)
    }

    /// A whole number.
    pub(super) fn int(&self, name: &str, default: i64) -> i64 {
        self.attribute(name).map_or(default, |a| a.i)
    }

    /// A real number.
    pub(super) fn float(&self, name: &str, default: f32) -> f64 {
        // The shortest decimal fraction that is this number in single precision: what the exporter was given.
        let single = self.attribute(name).map_or(default, |a| a.f);
        format!("{single:?}").parse().unwrap_or(f64::from(single))
    }

    /// Whole numbers.
    pub(super) fn ints(&self, name: &str) -> Option<&[i64]> {
        self.attribute(name).map(|a| a.ints.as_slice())
    }

    /// A word; `default` if it is not given.
    pub(super) fn word(&self, name: &str, default: &'static str) -> Result<&str> {
        let given = self.attribute(name).map(|a| std::str::from_utf8(&a.s));
        given.unwrap_or(Ok(default)).map_err(|_| Error::model(format!("attribute {name} is not text")))
    }

    /// A graph.
    pub(super) fn graph(&self, name: &str) -> Option<&GraphProto> {
        self.attribute(name).and_then(|a| a.g.as_ref())
    }

    /// Whether its output is its first input, in whatever precision.
    pub(super) fn keeps_numbers(&self) -> bool {
        self.op == "Identity" || self.op == "Cast" && matches!(self.int("to", 0), 1 | 10 | 11 | 16)
    }

    /// Name of input `i`, if it is given.
    pub(super) fn input(&self, i: usize) -> Option<&str> {
        self.inputs.get(i).map(String::as_str).filter(|name| !name.is_empty())
    }

    /// All tensors that the node reads, those of its branches included.
    pub(super) fn reads(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.inputs.iter().map(String::as_str).filter(|name| !name.is_empty()).collect();
        self.attributes.values().filter_map(|a| a.g.as_ref()).for_each(|g| outer_names(g, &mut names));
        names
    }
}

/// Names that a branch reads, its own included.
fn outer_names<'a>(graph: &'a GraphProto, names: &mut Vec<&'a str>) {
    for node in &graph.node {
        names.extend(node.input.iter().map(String::as_str).filter(|name| !name.is_empty()));
        node.attribute.iter().filter_map(|a| a.g.as_ref()).for_each(|g| outer_names(g, names));
    }
    names.extend(graph.output.iter().map(|o| o.name.as_str()));
}

/// An input or output.
#[derive(Debug, Clone)]
pub(super) struct Port {
    pub(super) name: String,
    /// ONNX's code of the number type; 0 if unknown.
    pub(super) element: i32,
    /// Sizes; `None` where any will do.
    pub(super) dims: Option<Vec<Option<usize>>>,
}

impl Port {
    /// Whether its numbers are whole ones.
    pub(super) fn has_whole_numbers(&self) -> bool {
        matches!(self.element, 2..=7 | 12 | 13)
    }

    fn of(info: &ValueInfoProto) -> Self {
        let tensor = info.r#type.as_ref().and_then(|t| t.tensor_type.as_ref());
        let size =
            |d: &super::wire::DimensionProto| d.dim_value.and_then(|n| usize::try_from(n).ok()).filter(|&n| n > 0);
        Self {
            name: info.name.clone(),
            element: tensor.map_or(0, |t| t.elem_type),
            dims: tensor.and_then(|t| t.shape.as_ref()).map(|s| s.dim.iter().map(size).collect()),
        }
    }
}

/// A file as read.
pub(super) struct File {
    pub(super) nodes: Vec<Node>,
    /// What the file holds of numbers, or why they cannot be read.
    pub(super) constants: HashMap<String, Result<Constant, String>>,
    /// Inputs that have no numbers in the file.
    pub(super) inputs: Vec<Port>,
    pub(super) outputs: Vec<Port>,
    pub(super) metadata: BTreeMap<String, String>,
    /// The program that wrote the file, with its version.
    pub(super) producer: String,
    /// Version of the operations.
    pub(super) opset: i64,
    /// Size of all files.
    pub(super) bytes: usize,
    /// Files with numbers besides this one, in the order of their names.
    pub(super) beside: Vec<graph::Bytes>,
}

/// Bytes that others own.
struct Owner(graph::Bytes);

impl AsRef<[u8]> for Owner {
    fn as_ref(&self) -> &[u8] {
        (*self.0).as_ref()
    }
}

/// Reads numbers from the files beside a graph.
struct External<'f> {
    folder: Option<&'f Path>,
    files: Mutex<BTreeMap<String, (Bytes, graph::Bytes)>>,
}

impl External<'_> {
    /// The file `location`, which lies in the folder.
    fn file(&self, location: &str) -> Result<Bytes> {
        let mut files = self.files.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some((bytes, _)) = files.get(location) {
            return Ok(bytes.clone());
        }
        let refuse = |why: &str| Error::model(format!("its numbers are in the external file '{location}', {why}"));
        let folder = self.folder.ok_or_else(|| refuse("and a graph in memory has no folder"))?;
        let relative = Path::new(location);
        if location.is_empty() || relative.components().any(|c| !matches!(c, Component::Normal(_) | Component::CurDir))
        {
            return Err(refuse("which is outside the folder of the graph"));
        }
        // A name without a folder lies in the working folder.
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        let path = folder.join(relative);
        let (real, home) = (path.canonicalize(), folder.canonicalize());
        let real = real.map_err(|e| refuse(&format!("which cannot be read: {e}")))?;
        let home = home.map_err(|e| refuse(&format!("whose folder cannot be read: {e}")))?;
        if !real.starts_with(&home) {
            return Err(refuse("a link that leads outside the folder of the graph"));
        }
        let owner = mapped(&real).map_err(|e| refuse(&format!("which cannot be read: {e}")))?;
        let bytes = Bytes::from_owner(Owner(owner.clone()));
        files.insert(location.to_owned(), (bytes.clone(), owner));
        Ok(bytes)
    }

    fn read(&self, tensor: &TensorProto) -> Result<Bytes> {
        let value = |key: &str| tensor.external_data.iter().find(|e| e.key == key).map(|e| e.value.as_str());
        let number = |key: &str| {
            let parsed = value(key).map(|text| text.parse::<usize>());
            parsed.transpose().map_err(|_| Error::model(format!("its external data have a '{key}' that is no number")))
        };
        let location = value("location").ok_or_else(|| Error::model("its external data name no file"))?;
        let file = self.file(location)?;
        let offset = number("offset")?.unwrap_or(0);
        let length = number("length")?.or_else(|| file.len().checked_sub(offset));
        let end = length.and_then(|length| offset.checked_add(length)).filter(|&end| end <= file.len());
        let end = end.ok_or_else(|| {
            let have = file.len();
            Error::model(format!("its numbers end beyond the external file '{location}' of {have} bytes"))
        })?;
        Ok(file.slice(offset..end))
    }
}

/// Domains of ONNX's own operations.
fn is_standard(domain: &str) -> bool {
    matches!(domain, "" | "ai.onnx")
}

/// Writes calls of local functions out.
struct Inliner<'m> {
    functions: HashMap<(&'m str, &'m str, &'m str), &'m FunctionProto>,
    nodes: Vec<Node>,
    calls: usize,
}

/// Where a list of nodes stands: in the net, or in a function that was called.
struct Scope<'a> {
    /// Before names of nodes.
    path: String,
    /// Names of tensors outside, by those inside; `None` in the net itself.
    renamed: Option<HashMap<String, String>>,
    /// Attributes of the call.
    attributes: &'a BTreeMap<String, AttributeProto>,
    opset: i64,
    depth: usize,
}

impl Scope<'_> {
    fn tensor(&self, name: &str) -> String {
        match &self.renamed {
            Some(renamed) if !name.is_empty() => renamed.get(name).cloned().unwrap_or_else(|| name.to_owned()),
            _ => name.to_owned(),
        }
    }

    /// A branch with the names of this scope.
    fn branch(&self, graph: &GraphProto) -> GraphProto {
        let mut graph = graph.clone();
        if self.renamed.is_some() {
            for node in &mut graph.node {
                node.input.iter_mut().chain(&mut node.output).for_each(|name| *name = self.tensor(name));
                node.attribute = node.attribute.iter().filter_map(|a| self.attribute(a)).collect();
            }
            graph.output.iter_mut().for_each(|o| o.name = self.tensor(&o.name));
            graph.initializer.iter_mut().for_each(|t| t.name = self.tensor(&t.name));
        }
        graph
    }

    fn attribute(&self, attribute: &AttributeProto) -> Option<AttributeProto> {
        if !attribute.ref_attr_name.is_empty() {
            let given = self.attributes.get(&attribute.ref_attr_name)?;
            return Some(AttributeProto { name: attribute.name.clone(), ..given.clone() });
        }
        let mut attribute = attribute.clone();
        attribute.g = attribute.g.as_ref().map(|g| self.branch(g));
        Some(attribute)
    }
}

/// Names that nodes and their branches make.
fn made<'a>(nodes: &'a [NodeProto], names: &mut HashSet<&'a str>) {
    for node in nodes {
        names.extend(node.output.iter().map(String::as_str));
        for graph in node.attribute.iter().filter_map(|a| a.g.as_ref()) {
            names.extend(graph.initializer.iter().map(|t| t.name.as_str()));
            made(&graph.node, names);
        }
    }
}

impl<'m> Inliner<'m> {
    fn inline(&mut self, nodes: &[NodeProto], scope: &Scope) -> Result<()> {
        for node in nodes {
            if self.nodes.len() + self.calls >= MOST_NODES {
                return Err(Error::model(format!("more than {MOST_NODES} nodes")));
            }
            let inputs: Vec<String> = node.input.iter().map(|name| scope.tensor(name)).collect();
            let outputs: Vec<String> = node.output.iter().map(|name| scope.tensor(name)).collect();
            let attributes: BTreeMap<String, AttributeProto> =
                node.attribute.iter().filter_map(|a| scope.attribute(a)).map(|a| (a.name.clone(), a)).collect();
            if scope.depth > 0 {
                let bytes: usize = attributes.values().map(Message::encoded_len).sum();
                constant::spend(bytes)?;
            }
            let unnamed = || format!("of {}", outputs.iter().find(|o| !o.is_empty()).map_or("nothing", |o| o));
            let name = if node.name.is_empty() { unnamed() } else { format!("{}{}", scope.path, node.name) };
            let key = (node.domain.as_str(), node.op_type.as_str(), node.overload.as_str());
            let function = self.functions.get(&key).copied();
            let Some(function) = function else {
                let op = if is_standard(&node.domain) {
                    node.op_type.clone()
                } else {
                    format!("{} of domain {}", node.op_type, node.domain)
                };
                self.nodes.push(Node { name, op, inputs, outputs, attributes, opset: scope.opset });
                continue;
            };
            if scope.depth >= MOST_DEPTH {
                return Err(Error::model(format!(
                    "node '{name}': functions call each other more than {MOST_DEPTH} deep"
                )));
            }
            self.calls += 1;
            let mut renamed: HashMap<String, String> = HashMap::new();
            let mut own = HashSet::new();
            made(&function.node, &mut own);
            for inside in own {
                renamed.insert(inside.to_owned(), format!("{}/{inside}", self.calls));
            }
            let ports = function.input.iter().enumerate().map(|(i, port)| (port, inputs.get(i)));
            let ports = ports.chain(function.output.iter().enumerate().map(|(i, port)| (port, outputs.get(i))));
            for (inside, outside) in ports {
                match outside.filter(|outside| !outside.is_empty()) {
                    Some(outside) => renamed.insert(inside.clone(), outside.clone()),
                    // An input that is left out is one for the function's nodes too.
                    None if function.input.contains(inside) => renamed.insert(inside.clone(), String::new()),
                    None => None,
                };
            }
            let mut given: BTreeMap<String, AttributeProto> =
                function.attribute_proto.iter().map(|a| (a.name.clone(), a.clone())).collect();
            given.extend(attributes);
            let opset =
                function.opset_import.iter().find(|o| is_standard(&o.domain)).map_or(scope.opset, |o| o.version);
            if !OPSETS.contains(&opset) {
                return Err(Error::model(format!(
                    "node '{name}': the function uses opset {opset}, which is not supported"
                )));
            }
            let inner = Scope {
                path: format!("{name}/"),
                renamed: Some(renamed),
                attributes: &given,
                opset,
                depth: scope.depth + 1,
            };
            self.inline(&function.node, &inner)?;
        }
        Ok(())
    }
}

/// Nodes of a branch that is taken.
pub(super) fn branch_nodes(graph: &GraphProto, opset: i64) -> Result<Vec<Node>> {
    let mut inliner = Inliner { functions: HashMap::new(), nodes: Vec::new(), calls: 0 };
    let none = BTreeMap::new();
    let scope = Scope { path: String::new(), renamed: None, attributes: &none, opset, depth: 0 };
    inliner.inline(&graph.node, &scope)?;
    Ok(inliner.nodes)
}

impl File {
    /// Reads a file; numbers in other files lie in `folder`.
    pub(super) fn read(bytes: &graph::Bytes, folder: Option<&Path>) -> Result<Self> {
        constant::allow(COMPUTED + COMPUTED_PER_BYTE * (**bytes).as_ref().len());
        let all = Bytes::from_owner(Owner(bytes.clone()));
        let model = ModelProto::decode(all).map_err(|e| Error::model(format!("not a readable ONNX graph: {e}")))?;
        let Some(graph) = &model.graph else {
            return Err(Error::model("not a readable ONNX graph: there is no graph in it"));
        };
        let opset = model.opset_import.iter().find(|o| is_standard(&o.domain)).map_or(1, |o| o.version);
        if !OPSETS.contains(&opset) {
            return Err(Error::model(format!(
                "the graph uses opset {opset}; supported are {} to {}: export it with one of these",
                OPSETS.start(),
                OPSETS.end()
            )));
        }
        let functions = model.functions.iter();
        let functions = functions.map(|f| ((f.domain.as_str(), f.name.as_str(), f.overload.as_str()), f)).collect();
        let mut inliner = Inliner { functions, nodes: Vec::new(), calls: 0 };
        let none = BTreeMap::new();
        let scope = Scope { path: String::new(), renamed: None, attributes: &none, opset, depth: 0 };
        inliner.inline(&graph.node, &scope)?;
        let external = External { folder, files: Mutex::default() };
        let mut constants = HashMap::new();
        let read = |tensor: &TensorProto| Constant::read(tensor, |t| external.read(t)).map_err(|e| e.to_string());
        for tensor in &graph.initializer {
            if constants.insert(tensor.name.clone(), read(tensor)).is_some() {
                return Err(Error::model(format!("two initializers are named '{}'", tensor.name)));
            }
        }
        for sparse in &graph.sparse_initializer {
            let name = sparse.values.as_ref().map(|v| v.name.clone()).unwrap_or_default();
            let constant = Constant::read_sparse(sparse, |t| external.read(t)).map_err(|e| e.to_string());
            if constants.insert(name.clone(), constant).is_some() {
                return Err(Error::model(format!("two initializers are named '{name}'")));
            }
        }
        let mut outputs = HashSet::new();
        for node in &inliner.nodes {
            for output in node.outputs.iter().filter(|o| !o.is_empty()) {
                if constants.contains_key(output) || !outputs.insert(output.as_str()) {
                    return Err(Error::model(format!("{} makes '{output}', which there is already", node.shown())));
                }
            }
        }
        let inputs: Vec<Port> = graph.input.iter().filter(|i| !constants.contains_key(&i.name)).map(Port::of).collect();
        if let Some(twice) = inputs.iter().find(|i| outputs.contains(i.name.as_str())) {
            return Err(Error::model(format!("the input '{}' is made by a node too", twice.name)));
        }
        let producer = [model.producer_name.as_str(), model.producer_version.as_str()].join(" ").trim().to_owned();
        let files = external.files.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        Ok(Self {
            constants,
            inputs,
            outputs: graph.output.iter().map(Port::of).collect(),
            metadata: model.metadata_props.iter().map(|e| (e.key.clone(), e.value.clone())).collect(),
            producer,
            opset,
            bytes: (**bytes).as_ref().len() + files.values().map(|(bytes, _)| bytes.len()).sum::<usize>(),
            beside: files.into_values().map(|(_, owner)| owner).collect(),
            nodes: inliner.nodes,
        })
    }

    /// The nodes that `output` needs, each after those that it reads.
    pub(super) fn ordered(&self, output: &str) -> Result<Vec<&Node>> {
        ordered(&self.nodes, output)
    }
}

/// The nodes that `output` needs, each after those that it reads.
pub(super) fn ordered<'n>(nodes: &'n [Node], output: &str) -> Result<Vec<&'n Node>> {
    let maker: HashMap<&str, usize> =
        nodes.iter().enumerate().flat_map(|(i, n)| n.outputs.iter().map(move |o| (o.as_str(), i))).collect();
    let mut order = Vec::new();
    // Nodes that are waiting for what they read, and those that are done.
    let (mut waiting, mut done) = (vec![false; nodes.len()], vec![false; nodes.len()]);
    let mut stack: Vec<(usize, bool)> = maker.get(output).map(|&i| (i, false)).into_iter().collect();
    while let Some((i, ready)) = stack.pop() {
        if done[i] {
            continue;
        }
        if ready {
            done[i] = true;
            order.push(&nodes[i]);
            continue;
        }
        waiting[i] = true;
        stack.push((i, true));
        for read in nodes[i].reads() {
            match maker.get(read) {
                Some(&j) if j == i || waiting[j] && !done[j] => {
                    return Err(Error::model(format!("{} needs its own output: a cycle", nodes[j].shown())));
                }
                Some(&j) if !done[j] => stack.push((j, false)),
                _ => {}
            }
        }
    }
    Ok(order)
}
