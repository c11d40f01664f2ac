//! Prints a graph as a table, Graphviz or JSON.

use std::fmt::Write;

use serde_json::{Value, json};

use super::{Graph, Node, NodeId, Op};
use crate::tensor::{Padding, Resize, ResizeTo, Window};

/// An output format for graphs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dump {
    /// One line per node: name, operation, inputs, output shape, parameters, multiply-adds, stage.
    Text,
    /// Graphviz: `dot -Tsvg`.
    Dot,
    /// One object with input, output, stages, totals and nodes.
    Json,
}

/// The size or factor of a resize.
fn resized(resize: &Resize) -> (&'static str, [usize; 2]) {
    match resize.to {
        ResizeTo::Size(size) => ("size", size),
        ResizeTo::Factor(factor) => ("factor", factor),
    }
}

/// Attributes of an operation, without its trained numbers.
fn attributes(op: &Op) -> Value {
    let window = |w: &Window| {
        let padding = match w.padding {
            Padding::Explicit { top, bottom, left, right } => json!([[top, bottom], [left, right]]),
            Padding::Same => json!("same"),
        };
        json!({ "kernel": w.kernel, "stride": w.stride, "dilation": w.dilation, "padding": padding, "ceil": w.ceil })
    };
    // JSON has no infinity.
    let bound = |x: f64| x.is_finite().then_some(x);
    match op {
        Op::Conv(conv) => {
            let mut value = window(&conv.window);
            value["groups"] = json!(conv.groups);
            value["weight"] = json!(conv.weight.dims());
            value["bias"] = json!(conv.bias.is_some());
            value
        }
        Op::Linear(linear) => json!({ "weight": linear.weight.dims()[..2], "bias": linear.bias.is_some() }),
        Op::BatchNorm(norm) => json!({ "eps": norm.eps }),
        Op::Affine(a) => json!({ "scales": a.scale.len(), "shifts": a.shift.len() }),
        Op::Standardise(s) => json!({ "groups": s.groups, "across_positions": s.across_positions, "eps": s.eps }),
        Op::Clamp { lo, hi } => json!({ "lo": lo, "hi": hi }),
        Op::Smooth(f) => f.named_parameters().map(|(name, value)| (name.to_string(), json!(bound(value)))).collect(),
        Op::PRelu(slopes) => json!({ "slopes": slopes.len() }),
        Op::MaxPool(w) => window(w),
        Op::AvgPool { window: w, count_padding } => {
            let mut value = window(w);
            value["count_padding"] = json!(count_padding);
            value
        }
        Op::AdaptiveAvgPool { out } => json!({ "out": out }),
        Op::Subsample { stride } => json!({ "stride": stride }),
        Op::Resize(r) => {
            let (key, to) = resized(r);
            json!({ key: to, "interpolation": r.interpolation.name() })
        }
        Op::Slice { first, channels } => json!({ "first": first, "channels": channels }),
        Op::Softmax { groups } => json!({ "groups": groups }),
        Op::Shuffle { groups } => json!({ "groups": groups }),
        Op::Pad { rows, columns } => json!({ "rows": rows, "columns": columns }),
        Op::PadChannels { before, after } => json!({ "before": before, "after": after }),
        Op::Input
        | Op::Relu
        | Op::GlobalMaxPool
        | Op::ChannelMax
        | Op::Add
        | Op::Mul
        | Op::Divide
        | Op::Flatten
        | Op::Concat => json!({}),
        Op::Reduce(r) => json!({ "over": format!("{:?}", r.over).to_lowercase(), "mean": r.mean }),
    }
}

/// A short description of the operation: `conv 3x3 / 2, groups 32`.
fn brief(op: &Op) -> String {
    let pair = |[y, x]: [usize; 2]| format!("{y}x{x}");
    let stride = |s: [usize; 2]| match s {
        [1, 1] => String::new(),
        [y, x] if y == x => format!(" / {y}"),
        _ => format!(" / {}", pair(s)),
    };
    let kind = op.kind();
    match op {
        Op::Conv(c) => {
            let groups = if c.groups > 1 { format!(", groups {}", c.groups) } else { String::new() };
            format!("{kind} {}{}{groups}", pair(c.window.kernel), stride(c.window.stride))
        }
        Op::MaxPool(w) | Op::AvgPool { window: w, .. } => format!("{kind} {}{}", pair(w.kernel), stride(w.stride)),
        Op::AdaptiveAvgPool { out } => format!("{kind} to {}", pair(*out)),
        Op::Clamp { lo, hi } => format!("{kind} [{lo}, {hi}]"),
        Op::Smooth(f) => f.named_parameters().fold(kind.to_string(), |text, (name, value)| {
            let comma = if text == kind { "" } else { "," };
            format!("{text}{comma} {name} {value}")
        }),
        Op::PRelu(slopes) if slopes.len() == 1 => format!("{kind}, one slope"),
        Op::Subsample { stride: s } => format!("{kind}{}", stride(*s)),
        Op::Standardise(s) => {
            let over = if s.across_positions { "all positions" } else { "each position" };
            format!("{kind} {over}, groups {}", s.groups)
        }
        Op::Resize(r) => {
            let (key, to) = resized(r);
            format!("{kind} by {}, {key} {}", r.interpolation.name(), pair(to))
        }
        Op::Reduce(r) => {
            let what = if r.mean { "mean" } else { "sum" };
            format!("{kind}, {what} over {}", format!("{:?}", r.over).to_lowercase())
        }
        Op::Slice { first, channels } => format!("{kind} {first}..{}", first + channels),
        Op::Softmax { groups } | Op::Shuffle { groups } => format!("{kind}, groups {groups}"),
        Op::Pad { rows: [top, bottom], columns: [left, right] } => format!("{kind} {top} {bottom} {left} {right}"),
        Op::PadChannels { before, after } => format!("{kind} {before} + {after}"),
        Op::Input
        | Op::Linear(_)
        | Op::BatchNorm(_)
        | Op::Affine(_)
        | Op::Relu
        | Op::PRelu(_)
        | Op::GlobalMaxPool
        | Op::ChannelMax
        | Op::Add
        | Op::Mul
        | Op::Divide
        | Op::Flatten
        | Op::Concat => kind.to_string(),
    }
}

/// The text in double quotes, for Graphviz.
fn quoted(text: &str) -> String {
    let escaped = text.chars().filter(|c| !c.is_control());
    let escaped: String =
        escaped.flat_map(|c| matches!(c, '"' | '\\').then_some('\\').into_iter().chain([c])).collect();
    format!("\"{escaped}\"")
}

impl Graph {
    /// The graph in the given form.
    pub fn dump(&self, form: Dump) -> String {
        match form {
            Dump::Text => self.table(),
            Dump::Dot => self.dot(),
            Dump::Json => format!("{:#}", self.json()),
        }
    }

    fn input_names(&self, node: &Node) -> Vec<&str> {
        node.inputs.iter().map(|&i| self.node(i).name.as_str()).collect()
    }

    /// A short description of a node's operation; of a product also which operand is the gate.
    fn brief(&self, id: NodeId) -> String {
        match &self.node(id).op {
            op @ (Op::Mul | Op::Divide) => format!("{}, gate {}", op.kind(), self.gate_name(id).unwrap_or("none")),
            op => brief(op),
        }
    }

    /// Name of a product's gate.
    fn gate_name(&self, id: NodeId) -> Option<&str> {
        self.gate(id).map(|i| self.node(self.node(id).inputs[i]).name.as_str())
    }

    /// Names of the stages that end at `id`.
    fn stage_names(&self, id: NodeId) -> Vec<&str> {
        self.stages().iter().filter(|(_, stage)| *stage == id).map(|(name, _)| name.as_str()).collect()
    }

    fn table(&self) -> String {
        let head = ["name", "operation", "inputs", "output", "parameters", "macs", "stage"].map(str::to_string);
        let row = |id: NodeId| {
            let node = self.node(id);
            [
                node.name.clone(),
                self.brief(id),
                self.input_names(node).join(" "),
                node.shape.to_string(),
                node.op.parameters().to_string(),
                node.op.macs(node.shape).to_string(),
                self.stage_names(id).join(" "),
            ]
        };
        let total =
            ["total", "", "", "", &self.parameters().to_string(), &self.macs().to_string(), ""].map(str::to_string);
        let rows: Vec<[String; 7]> = [head].into_iter().chain(self.ids().map(row)).chain([total]).collect();
        let widths: [usize; 7] =
            std::array::from_fn(|column| rows.iter().map(|r| r[column].chars().count()).max().unwrap_or(0));
        let mut out = String::new();
        for row in &rows {
            let cells: Vec<String> = row
                .iter()
                .enumerate()
                .map(|(column, cell)| {
                    let width = widths[column];
                    if matches!(column, 4 | 5) { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
                })
                .collect();
            out.push_str(cells.join("  ").trim_end());
            out.push('\n');
        }
        out
    }

    fn dot(&self) -> String {
        let mut out = String::from("digraph net {\n  node [shape=box, fontname=\"sans-serif\"];\n");
        // Writing to a string cannot fail.
        for id in self.ids() {
            let node = self.node(id);
            let stages = self.stage_names(id);
            let fill = if stages.is_empty() { "" } else { ", style=filled, fillcolor=lightgrey" };
            let stages = if stages.is_empty() { String::new() } else { format!(" ({})", stages.join(", ")) };
            let label = quoted(&format!("{}{stages} | {} | {}", node.name, self.brief(id), node.shape));
            let _ = writeln!(out, "  n{} [label={label}{fill}];", id.index());
            for input in &node.inputs {
                let _ = writeln!(out, "  n{} -> n{};", input.index(), id.index());
            }
        }
        out.push_str("}\n");
        out
    }

    fn json(&self) -> Value {
        let node = |id: NodeId| {
            let node = self.node(id);
            let mut attributes = attributes(&node.op);
            if matches!(node.op, Op::Mul | Op::Divide) {
                attributes["gate"] = json!(self.gate_name(id));
            }
            json!({
                "name": node.name,
                "op": node.op.kind(),
                "attributes": attributes,
                "inputs": self.input_names(node),
                "shape": node.shape.dims(),
                "parameters": node.op.parameters(),
                "macs": node.op.macs(node.shape),
            })
        };
        let stage = |(name, id): &(String, NodeId)| json!({ "name": name, "node": self.node(*id).name });
        json!({
            "input": self.input_shape().dims(),
            "output": self.node(self.output()).name,
            "classes": self.classes(),
            "link": self.link().name(),
            "stages": self.stages().iter().map(stage).collect::<Vec<_>>(),
            "parameters": self.parameters(),
            "macs": self.macs(),
            "nodes": self.ids().map(node).collect::<Vec<_>>(),
        })
    }
}
