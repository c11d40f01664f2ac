//! Writes a program: the forward pass of a graph, and what backward rules request.

mod channel_max;
mod forward;
mod repeated;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::{
    ConvLayer, Elementwise, Epilogue, Form, LinearLayer, PoolLayer, Program, Range, Score, Statistic, Step, Value,
    WinnerWidth,
};
use crate::error::{Error, Result};
use crate::graph::{Activation, Graph, NodeId, Op};
use crate::tensor::{AxisMove, Moves, Shape};

/// Which pass decides the active ReLUs and the winners of max-pools.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Decided {
    /// This run's own forward pass.
    Here,
    /// Decisions passed to the run (for example of a forward pass in another precision).
    Elsewhere,
}

/// What a standardisation's deviations do on the way back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Deviation {
    /// They depend on the input.
    Follows,
    /// They are constants.
    Held,
}

/// A forward pass of a [`Builder`]'s program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forward(usize);

/// The values of a forward pass.
#[derive(Debug, Clone)]
struct PassValues {
    decided: Decided,
    /// The value that each node computes.
    own: Vec<Value>,
    /// The value that each node's consumers read: its own, unless it was replaced.
    read: Vec<Value>,
    /// Section of each node's steps.
    sections: Vec<usize>,
    bits: HashMap<NodeId, Value>,
    winners: HashMap<NodeId, Value>,
}

/// Builds a [`Program`] over one graph.
///
/// Forward values are computed only if something reads them, and kept only until their last use. There is initially one
/// forward pass, on the copy of the picture; [`Builder::replace`] adds others.
#[derive(Debug)]
pub struct Builder<'g> {
    graph: &'g Graph,
    forms: Vec<Form>,
    /// Steps, each with the node that it works for. There is one section per forward node, so that a later request for
    /// a node runs where its value is at hand, and one section for everything after a forward pass.
    sections: Vec<Vec<(Step, Option<NodeId>)>>,
    forwards: Vec<PassValues>,
    /// Index of the current forward pass.
    current: usize,
    /// Node whose rule is being written.
    pulling: Option<NodeId>,
}

impl<'g> Builder<'g> {
    /// The forward pass of `graph` on perturbed copies of a picture.
    ///
    /// # Errors
    /// Never for a graph that was built by [`crate::graph::GraphBuilder`].
    pub fn new(graph: &'g Graph, decided: Decided) -> Result<Self> {
        let mut b =
            Builder { graph, forms: Vec::new(), sections: Vec::new(), forwards: Vec::new(), current: 0, pulling: None };
        let mut values = PassValues {
            decided,
            own: Vec::new(),
            read: Vec::new(),
            sections: Vec::new(),
            bits: HashMap::new(),
            winners: HashMap::new(),
        };
        for id in graph.ids() {
            let out = b.dense(graph.node(id).shape);
            values.own.push(out);
            values.read.push(out);
            values.sections.push(b.sections.len());
            let steps = b.forward_steps(id, out, &values.read)?;
            b.sections.push(steps);
        }
        b.forwards.push(values);
        b.sections.push(Vec::new());
        Ok(b)
    }

    /// Starts another forward pass: a copy of the current one in which consumers of `node` read `value`; everything
    /// downstream is recomputed, with its own decisions. The value and decisions of `node` itself stay. The new pass
    /// becomes the current one.
    ///
    /// Replacing the picture's node runs the whole net on another input; replacing a deeper node runs only the layers
    /// after it.
    ///
    /// # Errors
    /// When `value` does not have the shape of `node`'s output.
    ///
    /// # Panics
    /// When the graph has no such node.
    pub fn replace(&mut self, node: NodeId, value: Value) -> Result<Forward> {
        self.expect_signal(node, value)?;
        let mut values = self.forwards[self.current].clone();
        values.decided = Decided::Here;
        values.read[node.index()] = value;
        let mut changed = vec![false; self.graph.nodes().len()];
        changed[node.index()] = true;
        for id in self.graph.ids().skip(node.index() + 1) {
            if !self.graph.node(id).inputs.iter().any(|i| changed[i.index()]) {
                continue;
            }
            changed[id.index()] = true;
            let out = self.dense(self.graph.node(id).shape);
            values.own[id.index()] = out;
            values.read[id.index()] = out;
            values.sections[id.index()] = self.sections.len();
            values.bits.remove(&id);
            values.winners.remove(&id);
            let steps = self.forward_steps(id, out, &values.read)?;
            self.sections.push(steps);
        }
        self.forwards.push(values);
        self.current = self.forwards.len() - 1;
        self.sections.push(Vec::new());
        Ok(Forward(self.current))
    }

    /// The current forward pass.
    pub fn forward(&self) -> Forward {
        Forward(self.current)
    }

    /// Makes another forward pass current, with its outputs, decisions and scores.
    ///
    /// # Panics
    /// When it belongs to another builder.
    pub fn enter(&mut self, forward: Forward) {
        assert!(forward.0 < self.forwards.len(), "a forward pass of another builder");
        self.current = forward.0;
    }

    fn values(&self) -> &PassValues {
        &self.forwards[self.current]
    }

    /// Node `id` (a convolution, a batch norm or an affine layer) as a convolution. With another weight or bias it can be passed to
    /// [`Builder::conv`] and [`Builder::conv_adjoint_of`].
    ///
    /// # Errors
    /// When `id` is none of these.
    ///
    /// # Panics
    /// When the graph has no such node.
    pub fn conv_layer(&self, id: NodeId) -> Result<Arc<ConvLayer>> {
        let node = self.graph.node(id);
        let conv = node.conv().ok_or_else(|| self.not("a convolution", id))?.clone();
        Ok(Arc::new(ConvLayer {
            name: node.name.clone(),
            weight: conv.weight,
            bias: conv.bias,
            window: conv.window,
            groups: conv.groups,
            input: self.graph.node(node.inputs[0]).shape,
            output: node.shape,
        }))
    }

    /// The linear layer `id`. With another weight or bias it can be passed to [`Builder::linear`] and
    /// [`Builder::linear_adjoint_of`].
    ///
    /// # Errors
    /// When `id` is not a linear layer.
    ///
    /// # Panics
    /// When the graph has no such node.
    pub fn linear_layer(&self, id: NodeId) -> Result<Arc<LinearLayer>> {
        let node = self.graph.node(id);
        let Op::Linear(linear) = &node.op else { return Err(self.not("a linear layer", id)) };
        Ok(Arc::new(LinearLayer { name: node.name.clone(), weight: linear.weight.clone(), bias: linear.bias.clone() }))
    }

    fn pool_layer(&self, id: NodeId) -> Result<PoolLayer> {
        let node = self.graph.node(id);
        let Some(&input) = node.inputs.first() else { return Err(self.not("a pool", id)) };
        let input = self.graph.node(input).shape;
        if let Op::ChannelMax = node.op {
            return Ok(channel_max::pool(input));
        }
        let window = match &node.op {
            Op::AvgPool { window, .. } => Some(*window),
            op => op.max_window(input),
        };
        let window = window.ok_or_else(|| self.not("a pool", id))?;
        Ok(PoolLayer { window, input, output: node.shape })
    }

    pub(super) fn not(&self, what: &str, id: NodeId) -> Error {
        let node = self.graph.node(id);
        Error::model(format!("node '{}' is {}, not {what}", node.name, node.op.kind()))
    }

    fn value(&mut self, form: Form) -> Value {
        self.forms.push(form);
        Value(self.forms.len() as u32 - 1)
    }

    pub(super) fn write(&mut self, step: Step) {
        if let Some(section) = self.sections.last_mut() {
            section.push((step, self.pulling));
        }
    }

    /// Steps written from now on belong to this node's rule.
    pub(crate) fn pull(&mut self, node: Option<NodeId>) {
        self.pulling = node;
    }

    pub(super) fn dense(&mut self, shape: Shape) -> Value {
        self.value(Form::Dense(shape))
    }

    /// Refuses a value of another program or of another form. Devices rely on this: they read as many bytes as the
    /// expected form has.
    fn expect(&self, what: &str, v: Value, want: Form) -> Result<()> {
        match self.forms.get(v.index()) {
            Some(&form) if form == want => Ok(()),
            Some(form) => Err(Error::model(format!("{what} takes {want:?}, not {form:?}"))),
            None => Err(Error::model(format!("{what} takes a value of this program"))),
        }
    }

    /// Shape of a value that must hold numbers.
    fn numbers(&self, what: &str, v: Value) -> Result<Shape> {
        match self.forms.get(v.index()) {
            Some(&Form::Dense(shape)) => Ok(shape),
            Some(form) => Err(Error::model(format!("{what} takes numbers, not {form:?}"))),
            None => Err(Error::model(format!("{what} takes a value of this program"))),
        }
    }

    /// Refuses a signal that does not have the shape of `node`'s output.
    pub(crate) fn expect_signal(&self, node: NodeId, s: Value) -> Result<()> {
        let node = self.graph.node(node);
        self.expect(&format!("the signal at '{}'", node.name), s, Form::Dense(node.shape))
    }

    /// The graph.
    pub fn graph(&self) -> &'g Graph {
        self.graph
    }

    /// Shape of a value.
    ///
    /// # Panics
    /// When the value belongs to another program.
    pub fn shape(&self, v: Value) -> Shape {
        self.forms[v.index()].shape()
    }

    /// The forward value of `node` that its consumers read, kept until its last use.
    ///
    /// # Panics
    /// When the graph has no such node.
    pub fn output(&self, node: NodeId) -> Value {
        self.values().read[node.index()]
    }

    /// The forward value that `node` reads as its `i`-th input.
    ///
    /// # Panics
    /// When the graph has no such node, or the node no such input.
    pub fn input(&self, node: NodeId, i: usize) -> Value {
        self.output(self.graph.node(node).inputs[i])
    }

    /// Whether consumers of `node` read a value other than its own.
    pub(crate) fn is_replaced(&self, node: NodeId) -> bool {
        self.values().own[node.index()] != self.values().read[node.index()]
    }

    /// The bits of `node` (a ReLU, clamp or PReLU): set where its input was strictly inside the range that it passes, or
    /// above 0.
    ///
    /// # Errors
    /// When `node` is none of these.
    ///
    /// # Panics
    /// When the graph has no such node.
    pub fn active(&mut self, node: NodeId) -> Result<Value> {
        let range = match self.graph.node(node).op.activation() {
            Some(Activation::Clamp { lo, hi }) => Range { lo, hi },
            Some(Activation::PRelu { .. }) => Range::POSITIVE,
            Some(Activation::Smooth(_)) | None => return Err(self.not("an activation that decides", node)),
        };
        if let Some(&bits) = self.values().bits.get(&node) {
            return Ok(bits);
        }
        let out = self.value(Form::Bits(self.graph.node(node).shape));
        let input = self.input(node, 0);
        let clamps = !matches!(self.graph.node(node).op, Op::PRelu(_));
        let values = &mut self.forwards[self.current];
        let step = match values.decided {
            // A clamp's output is strictly inside the range exactly where its input is.
            Decided::Here => Step::Inside { x: if clamps { values.own[node.index()] } else { input }, range, out },
            Decided::Elsewhere => Step::LoadDecisions { node, out },
        };
        self.sections[values.sections[node.index()]].push((step, Some(node)));
        values.bits.insert(node, out);
        Ok(out)
    }

    /// The winning tap of each window of `node` (a max-pool).
    ///
    /// # Errors
    /// When `node` is not a max-pool, or its windows have more than 65536 taps.
    ///
    /// # Panics
    /// When the graph has no such node.
    pub fn winners(&mut self, node: NodeId) -> Result<Value> {
        if !self.graph.node(node).op.takes_maxima() {
            return Err(self.not("a max-pool", node));
        }
        let layer = self.pool_layer(node)?;
        if let Some(&winners) = self.values().winners.get(&node) {
            return Ok(winners);
        }
        let width = match layer.window.taps() {
            ..=256 => WinnerWidth::One,
            257..=65536 => WinnerWidth::Two,
            taps => return Err(Error::model(format!("a max-pool over {taps} elements is not supported"))),
        };
        let value = self.value(Form::Winners(layer.output, width));
        let values = &mut self.forwards[self.current];
        let section = &mut self.sections[values.sections[node.index()]];
        match values.decided {
            Decided::Here => {
                let pool = section.iter_mut().find_map(|(step, _)| match step {
                    Step::MaxPool { winners, .. } => Some(winners),
                    _ => None,
                });
                let Some(winners) = pool else { return Err(self.not("a max-pool", node)) };
                // Another forward pass that shares the node's value may have requested them before.
                let winners = *winners.get_or_insert(value);
                values.winners.insert(node, winners);
                return Ok(winners);
            }
            Decided::Elsewhere => section.push((Step::LoadDecisions { node, out: value }, Some(node))),
        }
        values.winners.insert(node, value);
        Ok(value)
    }

    /// The winners of `node` (a max-pool), except that a tap in `preferred` wins ties: which of several equals wins
    /// then depends on another forward pass.
    ///
    /// # Errors
    /// As [`Builder::winners`], and when `preferred` does not hold this pool's winners.
    ///
    /// # Panics
    /// When the graph has no such node.
    pub fn winners_preferring(&mut self, node: NodeId, preferred: Value) -> Result<Value> {
        let winners = self.winners(node)?;
        let form = self.forms[winners.index()];
        self.expect("a choice among winners", preferred, form)?;
        let (layer, x) = (self.pool_layer(node)?, self.pooled(node)?);
        let out = self.value(form);
        self.write(Step::PreferWinners { layer, x, winners, preferred, out });
        Ok(out)
    }

    /// What the max-pool of `node` reads.
    fn pooled(&self, node: NodeId) -> Result<Value> {
        let section = &self.sections[self.values().sections[node.index()]];
        let pool = section.iter().find_map(|(step, _)| match step {
            Step::MaxPool { x, .. } => Some(*x),
            _ => None,
        });
        pool.ok_or_else(|| self.not("a max-pool", node))
    }

    /// Numbers passed to the run as its `slot`-th list of tensors, one per picture.
    ///
    /// # Errors
    /// When `shape` is empty or too large.
    pub fn load(&mut self, slot: usize, shape: Shape) -> Result<Value> {
        let out = self.dense(shape.checked()?);
        self.write(Step::Load { slot, out });
        Ok(out)
    }

    /// Scores the logits; the result is the score's gradient with respect to them.
    pub fn seed(&mut self, score: Score) -> Value {
        let logits = self.output(self.graph.output());
        let out = self.dense(self.shape(logits));
        self.write(Step::Head { logits, score, link: self.graph.link(), seed: Some(out) });
        out
    }

    /// Scores the logits, without a gradient.
    pub fn score(&mut self, score: Score) {
        let logits = self.output(self.graph.output());
        self.write(Step::Head { logits, score, link: self.graph.link(), seed: None });
    }

    /// Sends `s` back through the linear part of `node` (a convolution or a batch norm).
    ///
    /// # Errors
    /// When `node` is neither, or `s` does not have the shape of its output.
    ///
    /// # Panics
    /// When the graph has no such node.
    pub fn conv_adjoint(&mut self, node: NodeId, s: Value) -> Result<Value> {
        let layer = self.conv_layer(node)?;
        self.conv_adjoint_of(layer, s)
    }

    /// The convolution of `x` with a layer supplied by the caller, plus its bias.
    ///
    /// # Errors
    /// When `x` does not have the shape of the layer's input, or the layer's parts do not match.
    pub fn conv(&mut self, layer: Arc<ConvLayer>, x: Value) -> Result<Value> {
        layer.check()?;
        self.expect("a convolution", x, Form::Dense(layer.input))?;
        let out = self.dense(layer.output);
        self.conv_steps(layer, x, out).into_iter().for_each(|step| self.write(step));
        Ok(out)
    }

    /// Sends `s` back through the linear part of a layer supplied by the caller.
    ///
    /// # Errors
    /// When `s` does not have the shape of the layer's output, or the layer's parts do not match.
    pub fn conv_adjoint_of(&mut self, layer: Arc<ConvLayer>, s: Value) -> Result<Value> {
        layer.check()?;
        self.expect("a convolution's adjoint", s, Form::Dense(layer.output))?;
        let out = self.dense(layer.input);
        self.write(Step::ConvAdjoint { layer, s, out, epilogue: Epilogue::default() });
        Ok(out)
    }

    /// Sends `s` back through the linear part of `node` (a linear layer).
    ///
    /// # Errors
    /// When `node` is not a linear layer, or `s` does not have the shape of its output.
    ///
    /// # Panics
    /// When the graph has no such node.
    pub fn linear_adjoint(&mut self, node: NodeId, s: Value) -> Result<Value> {
        let layer = self.linear_layer(node)?;
        self.linear_adjoint_of(layer, s)
    }

    /// `W x + b` for a layer supplied by the caller.
    ///
    /// # Errors
    /// When `x` is not a vector of the layer's input length, or the layer's parts do not match.
    pub fn linear(&mut self, layer: Arc<LinearLayer>, x: Value) -> Result<Value> {
        layer.check()?;
        self.expect("a linear layer", x, Form::Dense(Shape::vector(layer.weight.row_len())))?;
        let out = self.dense(Shape::vector(layer.weight.rows()));
        self.write(Step::Linear { layer, x, out });
        Ok(out)
    }

    /// `Wᵀ s` for a layer supplied by the caller.
    ///
    /// # Errors
    /// When `s` is not a vector of the layer's output length, or the layer's parts do not match.
    pub fn linear_adjoint_of(&mut self, layer: Arc<LinearLayer>, s: Value) -> Result<Value> {
        layer.check()?;
        self.expect("a linear layer's adjoint", s, Form::Dense(Shape::vector(layer.weight.rows())))?;
        let out = self.dense(Shape::vector(layer.weight.row_len()));
        self.write(Step::LinearAdjoint { layer, s, out });
        Ok(out)
    }

    /// Gradient of the weight of `node` (a convolution, a batch norm as one, or a linear layer), where `s` is the
    /// gradient at its output and its input is that of the current forward pass: one number per weight, shape `[k, c /
    /// groups · kh, kw]`, in the weight's order.
    ///
    /// # Errors
    /// When `node` has no weight, or `s` does not have the shape of its output.
    ///
    /// # Panics
    /// When the graph has no such node.
    pub fn weight_adjoint(&mut self, node: NodeId, s: Value) -> Result<Value> {
        let linear = matches!(self.graph.node(node).op, Op::Linear(_));
        if linear {
            let (layer, x) = (self.linear_layer(node)?, self.input(node, 0));
            return self.linear_weight_adjoint_of(layer, x, s);
        }
        let layer = self.conv_layer(node)?;
        let x = self.input(node, 0);
        self.conv_weight_adjoint_of(layer, x, s)
    }

    /// Gradient of a convolution's weight, `[k, c / groups · kh, kw]`, where `x` is its input and `s` the gradient at
    /// its output. Only the weight's shape matters, not its numbers.
    ///
    /// # Errors
    /// When `x` and `s` do not have the shapes of the layer's input and output, or the layer's parts do not match.
    pub fn conv_weight_adjoint_of(&mut self, layer: Arc<ConvLayer>, x: Value, s: Value) -> Result<Value> {
        layer.check()?;
        self.expect("a weight's gradient", x, Form::Dense(layer.input))?;
        self.expect("a weight's gradient", s, Form::Dense(layer.output))?;
        let [k, c, kh, kw] = layer.weight.dims();
        let out = self.dense(Shape::new(k, c * kh, kw).checked()?);
        self.write(Step::ConvWeightAdjoint { layer, x, s, out });
        Ok(out)
    }

    /// Gradient of a linear layer's weight, `s xᵀ` as `[k, c, 1]`, where `x` is its input and `s` the gradient at its
    /// output.
    ///
    /// # Errors
    /// When `x` and `s` are not vectors of the layer's input and output lengths, or the layer's parts do not match.
    pub fn linear_weight_adjoint_of(&mut self, layer: Arc<LinearLayer>, x: Value, s: Value) -> Result<Value> {
        layer.check()?;
        let [k, c, ..] = layer.weight.dims();
        self.expect("a weight's gradient", x, Form::Dense(Shape::vector(c)))?;
        self.expect("a weight's gradient", s, Form::Dense(Shape::vector(k)))?;
        let out = self.dense(Shape::new(k, c, 1).checked()?);
        self.write(Step::LinearWeightAdjoint { layer, x, s, out });
        Ok(out)
    }

    /// Gradient of a bias, where `s` is the gradient at its layer's output: the sum over each channel's plane, a
    /// vector.
    ///
    /// # Errors
    /// When `s` does not hold numbers.
    pub fn bias_adjoint(&mut self, s: Value) -> Result<Value> {
        let shape = self.numbers("a bias's gradient", s)?;
        let mean = self.spatial_mean(s)?;
        self.scale(mean, shape.plane() as f64)
    }

    /// Sends `s` to the winners of `node` (a max-pool).
    ///
    /// # Errors
    /// When `node` is not a max-pool, or `s` does not have the shape of its output.
    ///
    /// # Panics
    /// When the graph has no such node.
    pub fn max_pool_adjoint(&mut self, node: NodeId, s: Value) -> Result<Value> {
        let winners = self.winners(node)?;
        self.max_pool_adjoint_under(node, winners, s)
    }

    /// Sends `s` to the given winners of `node` (a max-pool).
    ///
    /// # Errors
    /// As [`Builder::max_pool_adjoint`], and when `winners` does not hold this pool's winners.
    ///
    /// # Panics
    /// When the graph has no such node.
    pub fn max_pool_adjoint_under(&mut self, node: NodeId, winners: Value, s: Value) -> Result<Value> {
        let layer = self.pool_layer(node)?;
        let own = self.winners(node)?;
        self.expect("a max-pool's adjoint", winners, self.forms[own.index()])?;
        self.expect_signal(node, s)?;
        if let Op::ChannelMax = self.graph.node(node).op {
            return Ok(self.channel_max_adjoint(node, layer, winners, s));
        }
        let out = self.dense(layer.input);
        self.write(Step::MaxPoolAdjoint { layer, s, winners, out });
        Ok(out)
    }

    /// Sends `s` back through `node`, which is linear in its only input and has no weights: an average pool, a sum or
    /// mean, a resizing, a flattening, or an operation that moves numbers.
    ///
    /// # Errors
    /// When `node` is none of these, or `s` does not have the shape of its output.
    ///
    /// # Panics
    /// When the graph has no such node.
    pub fn fixed_adjoint(&mut self, node: NodeId, s: Value) -> Result<Value> {
        let graph = self.graph;
        let Some(&input) = graph.node(node).inputs.first() else { return Err(self.not("linear", node)) };
        self.expect_signal(node, s)?;
        let pool = self.pool_layer(node);
        let out = Value(self.forms.len() as u32);
        let step = match graph.node(node).op {
            Op::AvgPool { count_padding, .. } => Step::AvgPoolAdjoint { layer: pool?, count_padding, s, out },
            Op::AdaptiveAvgPool { .. } => Step::AdaptiveAvgPoolAdjoint { s, out },
            Op::Flatten => Step::Unflatten { s, out },
            Op::Reduce(reduce) => {
                let factor = Elementwise::Scale(reduce.factor(graph.node(input).shape));
                Step::Elementwise { op: factor, xs: vec![s], out }
            }
            Op::Resize(resize) => {
                let (from, to) = (graph.node(input).shape, graph.node(node).shape);
                let [rows, columns] = resize.blends(from, to);
                Step::Resample { x: s, blends: Arc::new([rows.adjoint(from.h), columns.adjoint(from.w)]), out }
            }
            Op::Subsample { .. } | Op::Slice { .. } | Op::Shuffle { .. } | Op::Pad { .. } | Op::PadChannels { .. } => {
                Step::Move { x: s, moves: self.moves(node)?.adjoint(graph.node(node).shape), out }
            }
            _ => return Err(self.not("linear without weights", node)),
        };
        // Only now: a value without a step that writes it would have no memory.
        self.forms.push(Form::Dense(graph.node(input).shape));
        self.write(step);
        Ok(out)
    }

    /// Channels of `x` from `first` on, as many as `shape` has.
    ///
    /// # Errors
    /// When `x` lacks these channels, has other rows or columns, or does not hold numbers.
    pub fn channels(&mut self, x: Value, first: usize, shape: Shape) -> Result<Value> {
        let from = self.numbers("a choice of channels", x)?;
        let inside = first.checked_add(shape.c).is_some_and(|end| end <= from.c);
        if !inside || (shape.h, shape.w) != (from.h, from.w) || shape.is_empty() {
            return Err(Error::model(format!("there is no {shape} in {from} from channel {first} on")));
        }
        let out = self.dense(shape);
        self.write(Step::Move { x, moves: Moves::channels(AxisMove::from(first as isize)), out });
        Ok(out)
    }

    /// `a + b`.
    ///
    /// # Errors
    /// When they are not numbers of equal shape.
    pub fn add(&mut self, a: Value, b: Value) -> Result<Value> {
        let shape = self.numbers("a sum", a)?;
        self.expect("a sum", b, Form::Dense(shape))?;
        let out = self.dense(shape);
        self.write(Step::Add { a, b, out });
        Ok(out)
    }

    /// `s` where the bit is set, 0 elsewhere.
    ///
    /// # Errors
    /// When `s` does not hold numbers, or `bits` not one bit for each of them.
    pub fn gate(&mut self, s: Value, bits: Value) -> Result<Value> {
        let shape = self.numbers("a gate", s)?;
        self.expect("a gate", bits, Form::Bits(shape))?;
        let out = self.dense(shape);
        self.write(Step::Gate { s, bits, out });
        Ok(out)
    }

    /// One bit per number of `x`: set where it is strictly inside the range.
    ///
    /// # Errors
    /// When `x` does not hold numbers.
    pub fn inside(&mut self, x: Value, range: Range) -> Result<Value> {
        let shape = self.numbers("a comparison", x)?;
        let out = self.value(Form::Bits(shape));
        self.write(Step::Inside { x, range, out });
        Ok(out)
    }

    /// One bit per number of `x`: set where it exceeds the `q`-quantile of all numbers of its copy (with linear
    /// interpolation). A NaN counts as above, so that it is not hidden.
    ///
    /// # Errors
    /// When `x` does not hold numbers, or `q` is not within 0 to 1.
    pub fn above_quantile(&mut self, x: Value, q: f64) -> Result<Value> {
        let shape = self.numbers("a quantile", x)?;
        if !(0.0..=1.0).contains(&q) {
            return Err(Error::settings(format!("a quantile lies between 0 and 1, not at {q:?}")));
        }
        let out = self.value(Form::Bits(shape));
        self.write(Step::AboveQuantile { x, q, out });
        Ok(out)
    }

    /// `max(s, 0)`.
    ///
    /// # Errors
    /// When `s` does not hold numbers.
    pub fn positive(&mut self, s: Value) -> Result<Value> {
        self.clamp(s, Range::POSITIVE)
    }

    /// `a · b`, element by element.
    ///
    /// # Errors
    /// When they are not numbers of equal shape.
    pub fn mul(&mut self, a: Value, b: Value) -> Result<Value> {
        self.elementwise(Elementwise::Mul, vec![a, b])
    }

    /// `a − b`.
    ///
    /// # Errors
    /// When they are not numbers of equal shape.
    pub fn sub(&mut self, a: Value, b: Value) -> Result<Value> {
        self.elementwise(Elementwise::Sub, vec![a, b])
    }

    /// `r / (z + δ·sign(z))` with `sign(0) = +1`, and 0 where the divisor is zero: the division of relevance rules.
    ///
    /// # Errors
    /// When they are not numbers of equal shape.
    pub fn divide(&mut self, r: Value, z: Value, delta: f64) -> Result<Value> {
        self.elementwise(Elementwise::Divide(delta), vec![r, z])
    }

    /// `a / b`, or `other` where `|b|` is below `threshold`.
    ///
    /// # Errors
    /// When they are not numbers of equal shape, or the threshold is not above 0.
    pub fn ratio_or(&mut self, a: Value, b: Value, other: Value, threshold: f64) -> Result<Value> {
        if !(threshold > 0.0) {
            return Err(Error::settings(format!("a ratio cannot be taken down to {threshold}")));
        }
        self.elementwise(Elementwise::RatioOr(threshold), vec![a, b, other])
    }

    /// `k · a`.
    ///
    /// # Errors
    /// When `a` does not hold numbers.
    pub fn scale(&mut self, a: Value, k: f64) -> Result<Value> {
        self.elementwise(Elementwise::Scale(k), vec![a])
    }

    /// Applies one of the elementwise functions.
    ///
    /// # Errors
    /// When the number of values is not its arity, or they are not numbers of equal shape.
    pub fn elementwise(&mut self, op: Elementwise, xs: Vec<Value>) -> Result<Value> {
        let (Some(&first), true) = (xs.first(), xs.len() == op.arity()) else {
            return Err(Error::model(format!("{} takes {} values, not {}", op.name(), op.arity(), xs.len())));
        };
        let shape = self.numbers(op.name(), first)?;
        xs.iter().try_for_each(|&x| self.expect(op.name(), x, Form::Dense(shape)))?;
        let out = self.dense(shape);
        self.write(Step::Elementwise { op, xs, out });
        Ok(out)
    }

    /// `min(s, 0)`.
    ///
    /// # Errors
    /// When `s` does not hold numbers.
    pub fn negative(&mut self, s: Value) -> Result<Value> {
        self.clamp(s, Range::NEGATIVE)
    }

    fn clamp(&mut self, x: Value, range: Range) -> Result<Value> {
        let shape = self.numbers("a clamp", x)?;
        let out = self.dense(shape);
        self.write(Step::Clamp { x, range, out });
        Ok(out)
    }

    /// Constants: one per channel, or one per element.
    ///
    /// # Errors
    /// When the count matches neither, or one is not finite.
    pub fn fill(&mut self, shape: Shape, values: impl Into<Arc<[f64]>>) -> Result<Value> {
        let values = values.into();
        if (values.len() != shape.c && values.len() != shape.len()) || values.iter().any(|v| !v.is_finite()) {
            return Err(Error::model(format!(
                "{} or {} numbers, all finite, fill {shape}, not {} of which some may not be",
                shape.c,
                shape.len(),
                values.len()
            )));
        }
        let out = self.dense(shape.checked()?);
        self.write(Step::Fill { values, out });
        Ok(out)
    }

    /// `weights[c] · x[c]`.
    ///
    /// # Errors
    /// When `x` does not hold numbers, or `weights` not one for each of its channels.
    pub fn scale_channels(&mut self, weights: Value, x: Value) -> Result<Value> {
        let shape = self.numbers("channels to be scaled", x)?;
        self.expect("channels to be scaled", weights, Form::Dense(Shape::vector(shape.c)))?;
        self.repeated(Elementwise::Mul, vec![x, weights], shape)
    }

    /// Mean over each channel's plane.
    ///
    /// # Errors
    /// When `x` does not hold numbers.
    pub fn spatial_mean(&mut self, x: Value) -> Result<Value> {
        let shape = self.numbers("a mean", x)?;
        let out = self.dense(Shape::vector(shape.c));
        self.write(Step::SpatialMean { x, out });
        Ok(out)
    }

    /// `Σ_c weights[c] · x[c]`, one channel.
    ///
    /// # Errors
    /// When `x` does not hold numbers, or `weights` not one for each of its channels.
    pub fn weighted_channel_sum(&mut self, weights: Value, x: Value) -> Result<Value> {
        let shape = self.numbers("a sum over channels", x)?;
        self.expect("a sum over channels", weights, Form::Dense(Shape::vector(shape.c)))?;
        let out = self.dense(Shape::new(1, shape.h, shape.w));
        self.write(Step::WeightedChannelSum { weights, x, out });
        Ok(out)
    }

    /// Folds `x` into the picture's map.
    ///
    /// # Errors
    /// When `x` does not hold numbers.
    pub fn aggregate(&mut self, x: Value, statistic: Statistic) -> Result<()> {
        self.numbers("a map", x)?;
        self.write(Step::Aggregate { x, statistic });
        Ok(())
    }

    /// Returns `x` as the run's `slot`-th list of tensors.
    ///
    /// # Errors
    /// When `x` does not hold numbers.
    pub fn store(&mut self, x: Value, slot: usize) -> Result<()> {
        self.numbers("a result", x)?;
        self.write(Step::Store { x, slot });
        Ok(())
    }

    /// Returns the decisions of every activation and max-pool.
    ///
    /// # Errors
    /// As [`Builder::winners`].
    pub fn store_decisions(&mut self) -> Result<()> {
        for id in self.graph.ids() {
            let op = &self.graph.node(id).op;
            let x = match op.activation() {
                Some(Activation::Clamp { .. } | Activation::PRelu { .. }) => self.active(id)?,
                None if op.takes_maxima() => self.winners(id)?,
                Some(Activation::Smooth(_)) | None => continue,
            };
            self.write(Step::StoreDecisions { x, node: id });
        }
        Ok(())
    }

    /// The program, fused and without unused steps.
    pub fn finish(self) -> Program {
        self.finish_watching(&[])
    }

    /// As [`Builder::finish`]; a run also fails if a number in the outputs of `watched` is not finite, in any forward
    /// pass that computes them.
    pub(crate) fn finish_watching(mut self, watched: &[NodeId]) -> Program {
        let steps = || self.sections.iter().flatten().map(|(step, _)| step);
        let needed = super::lower::needed(steps());
        let stores = steps().filter_map(|step| if let Step::Store { slot, .. } = step { Some(slot + 1) } else { None });
        let stores = stores.max().unwrap_or(0);
        let places = self
            .forwards
            .iter()
            .flat_map(|pass| watched.iter().map(|&id| (pass.own[id.index()], id, pass.sections[id.index()])));
        // Passes share values.
        let places: BTreeMap<Value, (NodeId, usize)> = places.map(|(x, id, at)| (x, (id, at))).collect();
        let places = places.into_iter().filter(|(x, _)| needed.contains(x));
        for (i, (x, (id, section))) in places.enumerate() {
            // 0 · x is 0 or NaN. A sum of the numbers themselves could overflow.
            let (zeros, sum) = (self.dense(self.shape(x)), self.dense(Shape::vector(1)));
            let steps = [
                Step::Elementwise { op: Elementwise::Scale(0.0), xs: vec![x], out: zeros },
                Step::Contract { xs: vec![zeros], out: sum },
                Step::Store { x: sum, slot: stores + i },
            ];
            self.sections[section].extend(steps.map(|step| (step, Some(id))));
        }
        let steps = self.sections.into_iter().flatten().collect();
        let (steps, nodes) = super::lower::lower(steps, &self.forms);
        Program { steps, nodes, forms: self.forms, stores }
    }
}
