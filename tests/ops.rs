//! Every operation on every subject: first on small integers, where results must be equal, then on reals, where they
//! must lie within the rounding error that their sums allow.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod reference;

use std::cell::RefCell;
use std::sync::Arc;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError};
use reference::cases::{self, Case, Geometry, Numbers};
use reference::{
    Dense, ReluRule, backward, backward_magnitude, forward, forward_is_exact, forward_magnitude, op_divides, op_terms,
};
use verilume::ErrorKind;
#[cfg(feature = "cuda")]
use verilume::device::Products;
use verilume::device::cpu::{Convolution, Kernels};
#[cfg(feature = "cuda")]
use verilume::engine::DeviceChoice;
use verilume::engine::{Batch, Engine, Pullback, Settings};
use verilume::graph::{Encoding, Graph, GraphBuilder, Linear, NodeId, Op, Weight};
use verilume::rule::Composite;
use verilume::tensor::{Padding, Precision, Shape, Tensor, Window};

/// Something that runs graphs.
trait Subject {
    /// Who it is, for messages.
    fn name(&self) -> String;

    /// Largest relative error of one rounding.
    fn unit_roundoff(&self) -> f64;

    /// Outputs of `nodes` for the batch `x`.
    fn outputs(&self, graph: &Arc<Graph>, x: &Dense, nodes: &[NodeId]) -> Vec<Dense>;

    /// What `seed` at the output of `from` becomes at the output of `want`.
    fn pullback(
        &self,
        graph: &Arc<Graph>,
        x: &Dense,
        from: NodeId,
        seed: &Dense,
        rule: ReluRule,
        want: NodeId,
    ) -> Dense;

    /// By how much more than plain summation a direction of `op` may err. More than 1 means that integers may be rounded.
    fn slack(&self, _op: &Op, _direction: Direction) -> f64 {
        1.0
    }

    /// Largest relative error of a product before it is summed; integers are multiplied exactly.
    fn product_error(&self, _op: &Op, _direction: Direction) -> f64 {
        0.0
    }
}

/// Which way an operation is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    Forward,
    Backward,
}

/// The reference in the place of a device: the cases and their bounds are tested on it.
struct Reference;

impl Subject for Reference {
    fn name(&self) -> String {
        "reference".into()
    }

    fn unit_roundoff(&self) -> f64 {
        f64::EPSILON / 2.0
    }

    fn outputs(&self, graph: &Arc<Graph>, x: &Dense, nodes: &[NodeId]) -> Vec<Dense> {
        let all = forward(graph, x);
        nodes.iter().map(|id| all[id.index()].clone()).collect()
    }

    fn pullback(
        &self,
        graph: &Arc<Graph>,
        x: &Dense,
        from: NodeId,
        seed: &Dense,
        rule: ReluRule,
        want: NodeId,
    ) -> Dense {
        backward(graph, &forward(graph, x), from, seed.clone(), rule).swap_remove(want.index())
    }
}

/// The engine on the CPU.
struct Cpu {
    engine: RefCell<Engine>,
    precision: Precision,
    kernels: Kernels,
    convolution: Convolution,
}

impl Cpu {
    fn new(precision: Precision, kernels: Kernels) -> Self {
        Self::convolving(precision, kernels, Convolution::Fast)
    }

    fn convolving(precision: Precision, kernels: Kernels, convolution: Convolution) -> Self {
        let settings = Settings { precision, kernels, convolution, threads: Some(2), ..Settings::default() };
        Self { engine: RefCell::new(Engine::new(&settings).unwrap()), precision, kernels, convolution }
    }

    fn tensor(&self, d: &Dense) -> Tensor {
        let [c, h, w] = d.shape.dims();
        Tensor::rounded([d.n(), c, h, w], d.data.clone(), self.precision).unwrap()
    }
}

impl Subject for Cpu {
    fn name(&self) -> String {
        format!("{:?} {}", self.kernels, self.precision)
    }

    /// Winograd's transforms F(4×4, 3×3): the greatest row sums of |Aᵀ|, |G| and |Bᵀ| are 19, 1 and 10 on each axis.
    fn slack(&self, op: &Op, direction: Direction) -> f64 {
        let Op::Conv(conv) = op else { return 1.0 };
        let plain = self.convolution == Convolution::Exact && direction == Direction::Forward;
        let transformed = conv.window.kernel == [3, 3]
            && conv.window.stride == [1, 1]
            && conv.window.dilation == [1, 1]
            && conv.groups == 1
            && conv.weight.dims()[0].min(conv.weight.dims()[1]) >= 16;
        let vectors = matches!(self.kernels, Kernels::Avx2 | Kernels::Avx512);
        if transformed && vectors && !plain { (19.0 * 10.0f64).powi(2) } else { 1.0 }
    }

    fn unit_roundoff(&self) -> f64 {
        match self.precision {
            Precision::F32 => 2f64.powi(-24),
            Precision::F64 => 2f64.powi(-53),
        }
    }

    fn outputs(&self, graph: &Arc<Graph>, x: &Dense, nodes: &[NodeId]) -> Vec<Dense> {
        let x = Batch::new(&self.tensor(x)).unwrap();
        let outputs = self.engine.borrow_mut().node_outputs(graph, &x, nodes).unwrap();
        outputs.iter().map(Dense::from_tensor).collect()
    }

    fn pullback(
        &self,
        graph: &Arc<Graph>,
        x: &Dense,
        from: NodeId,
        seed: &Dense,
        rule: ReluRule,
        want: NodeId,
    ) -> Dense {
        let rules = match rule {
            ReluRule::Vjp => Composite::gradient(),
            ReluRule::Guided => Composite::guided(),
            ReluRule::Deconvnet => Composite::deconvnet(),
        };
        let x = Batch::new(&self.tensor(x)).unwrap();
        let down = self.engine.borrow_mut().pullback(
            graph,
            &x,
            &Pullback { from, signal: &self.tensor(seed), rules: &rules, to: want },
        );
        match down {
            Ok(down) => Dense::from_tensor(&down),
            // A node that does not influence another has a derivative of zero there.
            Err(e) if e.kind() == ErrorKind::Settings => Dense::zeros(x.len(), graph.node(want).shape),
            Err(e) => panic!("{e}"),
        }
    }
}

/// The kernels of a GPU, emulated on the CPU.
#[cfg(feature = "cuda")]
struct Emulated {
    engine: Engine32,
    products: Products,
    convolution: Convolution,
}

/// An engine in single precision.
#[cfg(feature = "cuda")]
type Engine32 = Cpu;

#[cfg(feature = "cuda")]
impl Emulated {
    fn new(products: Products, convolution: Convolution) -> Self {
        // As in `nets`: a real GPU, if one is named.
        let device = match std::env::var("VERILUME_TEST_DEVICE") {
            Ok(name) => name.parse().unwrap(),
            Err(_) => DeviceChoice::Emulated(1),
        };
        let settings = Settings { device, products, convolution, threads: Some(2), ..Settings::default() };
        let engine = RefCell::new(Engine::new(&settings).unwrap());
        let engine = Cpu { engine, precision: Precision::F32, kernels: Kernels::Auto, convolution };
        Self { engine, products, convolution }
    }
}

#[cfg(feature = "cuda")]
impl Subject for Emulated {
    fn name(&self) -> String {
        format!("emulated {:?} {:?}", self.products, self.convolution)
    }

    fn unit_roundoff(&self) -> f64 {
        2f64.powi(-24)
    }

    /// Half precision and bfloat16 have 11 and 8 significant bits, TF32 has 11: each factor is off by half a unit at most.
    /// Of two parts the last 22nd bits and the product of the smaller parts are lost: three times 2⁻²².
    fn product_error(&self, op: &Op, direction: Direction) -> f64 {
        if !matches!(op, Op::Conv(_) | Op::Linear(_)) {
            return 0.0;
        }
        match self.products {
            Products::F32 if direction == Direction::Forward || self.convolution == Convolution::Exact => {
                3.0 * 2f64.powi(-22)
            }
            Products::Bf16 => 2.0 * 2f64.powi(-8) + 2f64.powi(-16),
            // Numbers below 2⁻¹⁴ keep fewer bits in half precision; the cases have none that matter.
            _ => 2.0 * 2f64.powi(-11) + 2f64.powi(-22),
        }
    }

    fn outputs(&self, graph: &Arc<Graph>, x: &Dense, nodes: &[NodeId]) -> Vec<Dense> {
        self.engine.outputs(graph, x, nodes)
    }

    fn pullback(
        &self,
        graph: &Arc<Graph>,
        x: &Dense,
        from: NodeId,
        seed: &Dense,
        rule: ReluRule,
        want: NodeId,
    ) -> Dense {
        self.engine.pullback(graph, x, from, seed, rule, want)
    }
}

/// Fails unless every element of `got` is within `tolerance` of `want`; equal infinities and NaNs are no agreement.
fn compare(what: &str, got: &Dense, want: &Dense, tolerance: impl Fn(usize) -> f64) -> Result<(), String> {
    if (got.shape, got.n()) != (want.shape, want.n()) {
        return Err(format!("{what}: {} x {} instead of {} x {}", got.n(), got.shape, want.n(), want.shape));
    }
    for (i, (g, w)) in got.data.iter().zip(&want.data).enumerate() {
        let (d, limit) = ((g - w).abs(), tolerance(i));
        let within = d <= limit;
        if !within {
            let (item, rest) = (i / want.shape.len(), i % want.shape.len());
            let (c, rest) = (rest / want.shape.plane(), rest % want.shape.plane());
            let (y, x) = (rest / want.shape.w, rest % want.shape.w);
            return Err(format!("{what}: at [{item}, {c}, {y}, {x}] {g:e} for {w:e}, off by {d:e} of {limit:e}"));
        }
    }
    Ok(())
}

/// A case forward and, under each rule, backward.
fn check(subject: &dyn Subject, case: &Case, numbers: Numbers, salt: u64) -> Result<(), String> {
    let x = numbers.maps(salt, case.n, case.graph.input_shape());
    check_on(subject, case, numbers, &x, salt)
}

fn check_on(subject: &dyn Subject, case: &Case, numbers: Numbers, x: &Dense, salt: u64) -> Result<(), String> {
    let outputs = forward(&case.graph, x);
    let node = case.graph.node(case.node);
    let inputs: Vec<&Dense> = node.inputs.iter().map(|i| &outputs[i.index()]).collect();
    let out = &outputs[case.node.index()];
    out.assert_informative(&case.name);
    // Roundings: of the operation, and of sums where the input is read several times.
    let terms = (op_terms(&node.op, &inputs, out) + case.graph.nodes().len()) as f64;
    let per_unit = |direction| {
        let slack = subject.slack(&node.op, direction);
        let exact = numbers == Numbers::Integers && !op_divides(&node.op) && slack <= 1.0;
        let products = subject.product_error(&node.op, direction);
        // The reference is rounded too.
        if exact { 0.0 } else { (terms + 2.0) * (slack * subject.unit_roundoff() + f64::EPSILON) + products }
    };
    let who = format!("{}, {numbers:?}, {}", subject.name(), case.name);

    let got = subject.outputs(&case.graph, x, &[case.node]);
    let magnitude = forward_magnitude(&node.op, &inputs);
    let unit = if forward_is_exact(&node.op) { 0.0 } else { per_unit(Direction::Forward) };
    compare(&format!("{who}, forward"), &got[0], out, |i| unit * magnitude.data[i])?;

    let seed = numbers.maps(salt + 1, case.n, out.shape);
    for rule in ReluRule::ALL {
        let want = backward(&case.graph, &outputs, case.node, seed.clone(), rule).swap_remove(0);
        want.assert_informative(&case.name);
        let magnitude = backward_magnitude(&case.graph, &outputs, case.node, &seed, rule).swap_remove(0);
        let got = subject.pullback(&case.graph, x, case.node, &seed, rule, case.graph.input());
        let unit = per_unit(Direction::Backward);
        compare(&format!("{who}, backward, {rule:?}"), &got, &want, |i| unit * magnitude.data[i])?;
    }
    Ok(())
}

fn check_all(subject: &dyn Subject, make: impl Fn(Numbers) -> Vec<Case>) {
    let cases = [Numbers::Integers, Numbers::Reals].map(|numbers| (numbers, make(numbers)));
    let results = cases.iter().flat_map(|(numbers, cases)| {
        cases.iter().enumerate().map(|(i, case)| check(subject, case, *numbers, 100 + 2 * i as u64))
    });
    let failures: Vec<String> = results.filter_map(Result::err).collect();
    let count: usize = cases.iter().map(|(_, c)| c.len()).sum();
    println!("{}: {count} cases, {} failures", subject.name(), failures.len());
    assert!(failures.is_empty(), "{} of {count} cases failed:\n{}", failures.len(), failures.join("\n"));
}

fn convolutions_and_linear_layers(subject: &dyn Subject) {
    check_all(subject, cases::convolutions);
}

fn pools(subject: &dyn Subject) {
    check_all(subject, |_| cases::pools());
}

fn pointwise_and_moving_operations(subject: &dyn Subject) {
    check_all(subject, cases::pointwise);
}

fn every_node_of_small_nets_is_exact_on_integers(subject: &dyn Subject) {
    for (i, graph) in cases::nets(Numbers::Integers).iter().enumerate() {
        for n in [1, 3] {
            let x = Numbers::Integers.maps(50 + i as u64, n, graph.input_shape());
            let outputs = forward(graph, &x);
            let slack = graph.nodes().iter().any(|node| {
                [Direction::Forward, Direction::Backward].iter().any(|&d| subject.slack(&node.op, d) > 1.0)
            });
            let limit = |d: &Dense| {
                let largest = d.data.iter().fold(0.0f64, |m, v| m.max(v.abs()));
                if slack { 1e4 * subject.unit_roundoff() * largest } else { 0.0 }
            };
            let who = format!("{}, net {i}, batch {n}", subject.name());
            let ids: Vec<NodeId> = graph.ids().collect();
            let got = subject.outputs(graph, &x, &ids);
            for (id, got) in ids.iter().zip(&got) {
                let (want, name) = (&outputs[id.index()], &graph.node(*id).name);
                want.assert_informative(name);
                compare(&format!("{who}, {name}"), got, want, |_| limit(want)).unwrap();
            }
            // From the logits and from the middle to every node before.
            for from in [graph.output(), ids[ids.len() / 2]] {
                for rule in ReluRule::ALL {
                    let seed = Numbers::Integers.maps(60, n, outputs[from.index()].shape);
                    let back = backward(graph, &outputs, from, seed.clone(), rule);
                    for &want in ids.iter().filter(|&&id| id < from) {
                        let got = subject.pullback(graph, &x, from, &seed, rule, want);
                        let (from, to) = (&graph.node(from).name, &graph.node(want).name);
                        let what = format!("{who}, {rule:?}, {from} to {to}");
                        compare(&what, &got, &back[want.index()], |_| limit(&back[want.index()])).unwrap();
                    }
                    back[0].assert_informative(&who);
                }
            }
        }
    }
}

/// With stride 2 and one row of padding the windows step over the only pixel.
fn pixels_that_no_window_reads_have_no_gradient(subject: &dyn Subject) {
    for groups in [1, 20] {
        let geometry = Geometry { c: 20, k: 20, kernel: [1; 2], stride: [2; 2], groups, ..Geometry::default() };
        let op = geometry.conv(Numbers::Integers);
        let case = Case::of("stepped over", 2, Shape::new(20, 1, 1), op);
        let x = Numbers::Integers.maps(1, 2, case.graph.input_shape());
        let want = forward(&case.graph, &x).swap_remove(case.node.index());
        let got = subject.outputs(&case.graph, &x, &[case.node]);
        compare(&subject.name(), &got[0], &want, |_| 0.0).unwrap();
        let seed = Numbers::Integers.maps(2, 2, want.shape);
        let got = subject.pullback(&case.graph, &x, case.node, &seed, ReluRule::Vjp, case.graph.input());
        assert!(got.data.iter().all(|&v| v == 0.0), "{}, {groups} groups", subject.name());
    }
}

/// Bits of the outputs and of the pullback, item by item and as one batch.
fn assert_items_do_not_meet(subject: &dyn Subject, graph: &Arc<Graph>, node: NodeId, n: usize) -> Result<(), String> {
    let bits = |d: &Dense| d.data.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
    let x = Numbers::Reals.maps(70, n, graph.input_shape());
    let out = subject.outputs(graph, &x, &[node]).swap_remove(0);
    let seed = Numbers::Reals.maps(71, n, out.shape);
    let back = subject.pullback(graph, &x, node, &seed, ReluRule::Vjp, graph.input());
    for i in 0..n {
        let alone = subject.outputs(graph, &x.item(i), &[node]).swap_remove(0);
        if bits(&alone) != bits(&out.item(i)) {
            return Err(format!("{}: item {i} of {n} differs from itself alone, forward", subject.name()));
        }
        let alone = subject.pullback(graph, &x.item(i), node, &seed.item(i), ReluRule::Vjp, graph.input());
        if bits(&alone) != bits(&back.item(i)) {
            return Err(format!("{}: item {i} of {n} differs from itself alone, backward", subject.name()));
        }
    }
    Ok(())
}

fn results_do_not_depend_on_the_batch(subject: &dyn Subject) {
    for graph in cases::nets(Numbers::Reals) {
        for n in [2, 5, 17] {
            assert_items_do_not_meet(subject, &graph, graph.output(), n).unwrap();
        }
    }
}

fn axes(range: std::ops::RangeInclusive<usize>) -> impl Strategy<Value = [usize; 2]> {
    [range.clone(), range]
}

fn padding() -> impl Strategy<Value = Padding> {
    let explicit = (0usize..4, 0usize..4, 0usize..4, 0usize..4);
    prop_oneof![
        4 => explicit.prop_map(|(top, bottom, left, right)| Padding::Explicit { top, bottom, left, right }),
        1 => Just(Padding::Same),
    ]
}

/// Batch, input shape and geometry of a convolution that fits.
fn convolution() -> impl Strategy<Value = (usize, Shape, Geometry)> {
    let channels = prop_oneof![
        (1usize..20, 1usize..20).prop_map(|(c, k)| (c, k, 1)),
        (1usize..5, 1usize..5, 1usize..9).prop_map(|(c, k, groups)| (c * groups, k * groups, groups)),
        (1usize..20, 1usize..3).prop_map(|(c, multiplier)| (c, c * multiplier, c)),
    ];
    let window = (axes(1..=5), axes(1..=3), axes(1..=2), padding());
    (1usize..4, channels, axes(1..=15), window, any::<bool>())
        .prop_map(|(n, (c, k, groups), [h, w], (kernel, stride, dilation, padding), bias)| {
            let geometry = Geometry { c, k, kernel, stride, dilation, padding, groups, bias };
            (n, Shape::new(c, h, w), geometry)
        })
        .prop_filter("the window fits", |(_, input, g)| g.conv(Numbers::Integers).output(&[*input]).is_ok())
}

/// Batch, input shape and a pool that fits.
fn pool() -> impl Strategy<Value = (usize, Shape, Op)> {
    let window = || {
        (axes(1..=5), axes(1..=4), axes(1..=2), padding(), any::<bool>())
            .prop_map(|(kernel, stride, dilation, padding, ceil)| Window { kernel, stride, dilation, padding, ceil })
    };
    let op = prop_oneof![
        window().prop_map(Op::MaxPool),
        (window(), any::<bool>()).prop_map(|(window, count_padding)| Op::AvgPool { window, count_padding }),
        axes(1..=9).prop_map(|out| Op::AdaptiveAvgPool { out }),
    ];
    (1usize..4, 1usize..20, axes(1..=15), op)
        .prop_map(|(n, c, [h, w], op)| (n, Shape::new(c, h, w), op))
        .prop_filter("the window fits", |(_, input, op)| op.output(&[*input]).is_ok())
}

fn config(cases: u32) -> Config {
    Config { cases, failure_persistence: None, ..Config::default() }
}

/// `⟨A v, u⟩ = ⟨v, Aᵀ u⟩`, both sides from the subject.
fn assert_adjoint(subject: &dyn Subject, case: &Case) -> Result<(), String> {
    let v = Numbers::Reals.maps(80, case.n, case.graph.input_shape());
    let out = subject.outputs(&case.graph, &v, &[case.node]).swap_remove(0);
    let u = Numbers::Reals.maps(81, case.n, out.shape);
    let back = subject.pullback(&case.graph, &v, case.node, &u, ReluRule::Vjp, case.graph.input());
    let (left, right) = (out.dot(&u), back.dot(&v));
    let op = case.op();
    let magnitude = forward_magnitude(op, &[&v]).dot(&u.map(f64::abs));
    let terms = op_terms(op, &[&v], &out) as f64 + 2.0;
    let both = [Direction::Forward, Direction::Backward];
    let slack: f64 = both.iter().map(|&d| subject.slack(op, d)).sum();
    let products: f64 = both.iter().map(|&d| subject.product_error(op, d)).sum();
    let limit = (terms * (slack * subject.unit_roundoff() + f64::EPSILON) + products) * magnitude
        + f64::EPSILON * (v.data.len() + u.data.len()) as f64 * magnitude;
    if (left - right).abs() <= limit {
        Ok(())
    } else {
        Err(format!("{}: {}: {left} is not {right} (within {limit:e})", subject.name(), case.name))
    }
}

fn convolutions_that_skip_the_whole_input(subject: &dyn Subject) {
    let padding = Padding::Explicit { top: 0, bottom: 0, left: 1, right: 0 };
    for groups in [1, 2] {
        let geometry = Geometry { c: 2, k: 2, kernel: [1, 1], stride: [1, 2], padding, groups, ..Geometry::default() };
        for bias in [false, true] {
            let conv = Geometry { bias, ..geometry }.conv(Numbers::Reals);
            let case = Case::of(format!("{groups} groups"), 3, Shape::new(2, 1, 1), conv);
            let x = Numbers::Reals.maps(95, case.n, case.graph.input_shape());
            let out = subject.outputs(&case.graph, &x, &[case.node]).swap_remove(0);
            assert_eq!(out, forward(&case.graph, &x)[case.node.index()], "{}", subject.name());
            let back = subject.pullback(&case.graph, &x, case.node, &out, ReluRule::Vjp, case.graph.input());
            assert!(back.data.iter().all(|&v| v == 0.0), "{}", subject.name());
        }
    }
}

fn convolutions_of_any_geometry(subject: &dyn Subject) {
    proptest!(config(64), |((n, input, geometry) in convolution())| {
                    for numbers in [Numbers::Integers, Numbers::Reals] {
                let case = Case::of(format!("{n}x{input} {geometry:?}"), n, input, geometry.conv(numbers));
                // A window may see nothing but padding and a stride may skip the input: such references are zero.
                let x = numbers.maps(90, n, input);
                let outputs = forward(&case.graph, &x);
                let seed = numbers.maps(91, n, outputs[case.node.index()].shape);
                let back = backward(&case.graph, &outputs, case.node, seed, ReluRule::Vjp);
                let zero = |d: &Dense| d.data.iter().all(|&v| v == 0.0);
                prop_assume!(!zero(&outputs[case.node.index()]) && !zero(&back[0]));
                check_on(subject, &case, numbers, &x, 90).map_err(TestCaseError::fail)?;
            }
    });
}

fn pools_of_any_geometry(subject: &dyn Subject) {
    proptest!(config(64), |((n, input, op) in pool())| {
                    for numbers in [Numbers::Integers, Numbers::Reals] {
                let case = Case::of(format!("{n}x{input} {op:?}"), n, input, op.clone());
                let x = numbers.maps(92, n, input).map(|v| if v == 0.0 { 1.0 } else { v });
                let sum: f64 = forward(&case.graph, &x)[case.node.index()].data.iter().map(|v| v.abs()).sum();
                prop_assume!(sum > 0.0);
                let seeds = numbers.maps(93, n, forward(&case.graph, &x)[case.node.index()].shape);
                prop_assume!(seeds.data.iter().any(|&v| v != 0.0));
                check_on(subject, &case, numbers, &x, 92).map_err(TestCaseError::fail)?;
            }
    });
}

fn linear_operations_and_their_pullbacks_are_adjoint(subject: &dyn Subject) {
    proptest!(config(64), |((n, input, geometry) in convolution(), (m, map, op) in pool())| {
                    let conv = Geometry { bias: false, ..geometry }.conv(Numbers::Reals);
            let case = Case::of(format!("{n}x{input} {geometry:?}"), n, input, conv);
            assert_adjoint(subject, &case).map_err(TestCaseError::fail)?;
            if !matches!(op, Op::MaxPool(_)) {
                let case = Case::of(format!("{m}x{map} {op:?}"), m, map, op.clone());
                assert_adjoint(subject, &case).map_err(TestCaseError::fail)?;
            }
    });
}

fn items_of_a_batch_do_not_meet(subject: &dyn Subject) {
    proptest!(config(64), |((n, input, geometry) in convolution(), (m, map, op) in pool())| {
                    let conv = Case::of("conv", n + 1, input, geometry.conv(Numbers::Reals));
            assert_items_do_not_meet(subject, &conv.graph, conv.node, conv.n).map_err(TestCaseError::fail)?;
            let pool = Case::of("pool", m + 1, map, op.clone());
            assert_items_do_not_meet(subject, &pool.graph, pool.node, pool.n).map_err(TestCaseError::fail)?;
    });
}

/// Convolutions of what a ReLU or the adjoint of a pooling left: full of zeros that some kernels skip.
fn zeros_are_skipped(subject: &dyn Subject) {
    // Slabs that are full, partly full and several; groups of blocks with and without idle lanes; one and more bands.
    for (c, k, size, kernel, stride, pooled) in [
        (16, 48, [9, 13], 1, 1, false),
        (80, 100, [5, 7], 1, 1, false),
        (144, 272, [3, 3], 1, 2, false),
        (32, 64, [30, 31], 1, 1, false),
        (64, 64, [8, 8], 3, 2, false),
        (48, 56, [7, 11], 5, 3, true),
        (64, 64, [18, 15], 3, 1, true),
        (160, 96, [6, 4], 3, 1, true),
    ] {
        let padding = Padding::all(kernel / 2);
        let geometry = Geometry { c, k, kernel: [kernel; 2], stride: [stride; 2], padding, ..Geometry::default() };
        for numbers in [Numbers::Integers, Numbers::Reals] {
            let mut builder = GraphBuilder::new(Shape::new(c, size[0], size[1]));
            let relu = builder.push("relu", Op::Relu, &[builder.input()]).unwrap();
            let conv = builder.push("conv", geometry.conv(numbers), &[relu]).unwrap();
            let last = match pooled {
                true => Op::MaxPool(Window { ceil: true, ..Window::square(2, 2, 0) }),
                false => Op::Relu,
            };
            let last = builder.push("last", last, &[conv]).unwrap();
            let flat = builder.push("flatten", Op::Flatten, &[last]).unwrap();
            let graph = Arc::new(builder.finish(flat).unwrap());
            let x = numbers.maps(90, 2, graph.input_shape());
            let outputs = forward(&graph, &x);
            let op = &graph.node(conv).op;
            let who = format!("{}, {numbers:?}, {c} to {k} by {kernel}/{stride}", subject.name());
            if numbers == Numbers::Integers && pooled && subject.slack(op, Direction::Forward) > 1.0 {
                // Transforms round integers, and the pooling would decide ties between them otherwise. `exact` does these.
                continue;
            }
            // The greatest error of a sum of `terms` products, and a bias, whose magnitudes sum to 1.
            let unit = |direction, terms: usize| {
                // Backward nothing is transformed: what has one tap or a stride, nor what comes from a pooling.
                let transformed = subject.slack(op, direction) > 1.0 && direction == Direction::Forward;
                let slack = if transformed { subject.slack(op, direction) } else { 1.0 };
                let exact = numbers == Numbers::Integers && !transformed;
                let error = (terms + 3) as f64 * (slack * subject.unit_roundoff() + f64::EPSILON);
                if exact { 0.0 } else { error + subject.product_error(op, direction) }
            };
            let got = subject.outputs(&graph, &x, &[conv]);
            let magnitude = forward_magnitude(op, &[&outputs[relu.index()]]);
            let forward_unit = unit(Direction::Forward, c * kernel * kernel);
            compare(&format!("{who}, forward"), &got[0], &outputs[conv.index()], |i| forward_unit * magnitude.data[i])
                .unwrap();
            let seed = numbers.maps(91, 2, outputs[last.index()].shape);
            let want = backward(&graph, &outputs, last, seed.clone(), ReluRule::Vjp);
            let magnitude = backward_magnitude(&graph, &outputs, last, &seed, ReluRule::Vjp);
            let back_unit = unit(Direction::Backward, k * kernel * kernel);
            for to in [relu, graph.input()] {
                want[to.index()].assert_informative(&who);
                let got = subject.pullback(&graph, &x, last, &seed, ReluRule::Vjp, to);
                let bound = |i: usize| back_unit * magnitude[to.index()].data[i];
                compare(&format!("{who}, backward"), &got, &want[to.index()], bound).unwrap();
            }
            assert_items_do_not_meet(subject, &graph, last, 3).unwrap();
        }
    }
}

/// Linear layers read weights where they are stored: aligned and not, in every encoding.
fn every_way_that_weights_are_stored(subject: &dyn Subject) {
    for numbers in [Numbers::Integers, Numbers::Reals] {
        for (i, case) in cases::stored(numbers).iter().enumerate() {
            check(subject, case, numbers, 300 + 2 * i as u64).unwrap();
        }
    }
}

/// Many positions and channels are computed in other tiles than few: the same numbers, and right ones.
#[cfg(feature = "cuda")]
fn large_tiles_do_as_small_ones(subject: &dyn Subject) {
    for (c, k, stride) in [(20, 128, 1), (128, 24, 2), (7, 256, 1)] {
        let geometry =
            Geometry { c, k, kernel: [3, 3], stride: [stride; 2], padding: Padding::all(1), ..Geometry::default() };
        let input = Shape::new(c, 9, 13);
        for numbers in [Numbers::Integers, Numbers::Reals] {
            let case = Case::of(format!("{c} to {k} channels"), 3, input, geometry.conv(numbers));
            check(subject, &case, numbers, 500).unwrap();
            assert_items_do_not_meet(subject, &case.graph, case.node, 3).unwrap();
        }
    }
}

/// A linear layer of one graph, with a bias that is zero with a sign in every third row.
fn linear_layer(weight: Weight) -> Case {
    let c = weight.row_len();
    let bias = (0..weight.rows()).map(|k| if k % 3 == 0 { -0.0 } else { k as f64 / 8.0 - 1.0 }).collect();
    Case::of("linear", 1, Shape::vector(c), Op::Linear(Linear { weight, bias: Some(bias) }))
}

fn bits_of(d: &Dense) -> Vec<u64> {
    d.data.iter().map(|v| v.to_bits()).collect()
}

/// Half precision stands for single precision's numbers, at any address: the same bits in both directions.
fn halves_are_what_they_stand_for(subject: &dyn Subject) {
    // Several blocks of columns and of rows, and tails of both.
    let (c, k) = (2085, 37);
    let wide = |encoding: Encoding, bits: u16| match encoding {
        Encoding::F16 => half::f16::from_bits(bits).to_f32(),
        _ => half::bf16::from_bits(bits).to_f32(),
    };
    for encoding in [Encoding::F16, Encoding::Bf16] {
        // All exponents below 1: subnormal numbers too.
        let below = if encoding == Encoding::F16 { 0xbbff } else { 0xbfff };
        let halves: Vec<u16> = (0..k * c).map(|i| cases::scrambled(31, i) as u16 & below).collect();
        let widened: Vec<f32> = halves.iter().map(|&bits| wide(encoding, bits)).collect();
        let whole = linear_layer(Weight::owned([k, c, 1, 1], &widened).unwrap());
        for odd in [0, 1] {
            let bytes: Vec<u8> = vec![0; odd].into_iter().chain(halves.iter().flat_map(|h| h.to_le_bytes())).collect();
            let half = linear_layer(Weight::stored([k, c, 1, 1], Arc::new(bytes), odd, encoding).unwrap());
            for n in 1..=17 {
                let x = Numbers::Reals.maps(32, n, Shape::vector(c));
                let [got, want] = [&half, &whole].map(|case| {
                    let out = subject.outputs(&case.graph, &x, &[case.node]).swap_remove(0);
                    let seed = Numbers::Reals.maps(33, n, out.shape);
                    let input = case.graph.input();
                    let back = subject.pullback(&case.graph, &x, case.node, &seed, ReluRule::Vjp, input);
                    [out, back].map(|d| bits_of(&d))
                });
                assert!(got == want, "{}: {} at {odd}, {n} copies", subject.name(), encoding.name());
            }
        }
    }
}

/// Columns that are zero in every copy are not read: the same bits as beside a copy that is zero nowhere.
fn zeros_are_left_out_unseen(subject: &dyn Subject) {
    let (c, k) = (2085, 37);
    let mut weights: Vec<f32> = Numbers::Reals.fill(41, k * c, 1).iter().map(|&w| w as f32).collect();
    // Products so small that a fused sum is rounded to −0, which any product with zero but those of the tail makes +0.
    weights[..c].fill(1e-30);
    weights[..32].fill(-1e-30);
    weights[c - 5..c].fill(-1e-30);
    let case = linear_layer(Weight::owned([k, c, 1, 1], &weights).unwrap());
    let dense = Numbers::Reals.maps(42, 1, Shape::vector(c));
    assert!(dense.data.iter().all(|&x| x != 0.0));
    let number = |n: usize, i: usize| dense.data[(i + 13 * n) % c];
    let random = |salt: u64, i: usize| cases::scrambled(salt, i) % 100;
    type Pattern<'a> = (&'a str, Box<dyn Fn(usize, usize) -> f64 + 'a>);
    let kept = |keep: bool, x: f64| if keep { x } else { 0.0 };
    let patterns: [Pattern<'_>; 9] = [
        ("half of the vectors", Box::new(|n, i| kept(random(43, i / 16) < 50, number(n, i)))),
        ("nine vectors of ten", Box::new(|n, i| kept(random(44, i / 16) >= 90, number(n, i)))),
        ("other vectors in every copy", Box::new(|n, i| kept(random(45 + n as u64, i / 8) >= 95, number(n, i)))),
        ("vectors of odd place", Box::new(|n, i| kept(i / 16 % 2 == 0, number(n, i)))),
        ("channels of 49", Box::new(|n, i| kept(random(46, i / 49) < 30, number(n, i)))),
        ("single numbers", Box::new(|n, i| kept(random(47, i) < 60, number(n, i)))),
        ("all but one", Box::new(|n, i| kept(i == 1500, number(n, i)))),
        ("zeros of both signs", Box::new(|n, i| if (n + i) % 3 == 0 { -0.0 } else { 0.0 })),
        ("tiny", Box::new(|_, i| kept(i < 32, 1e-30))),
    ];
    for (what, pattern) in &patterns {
        let items: Vec<Vec<f64>> = (0..17).map(|n| (0..c).map(|i| pattern(n, i)).collect()).collect();
        let outputs = |x: &Dense| subject.outputs(&case.graph, x, &[case.node]).swap_remove(0);
        let beside: Vec<Vec<u64>> = items
            .iter()
            .map(|item| {
                let pair = item.iter().chain(&dense.data).copied().collect();
                bits_of(&outputs(&Dense::new(dense.shape, pair)).item(0))
            })
            .collect();
        for n in 1..=17 {
            let out = outputs(&Dense::new(dense.shape, items[..n].concat()));
            for (i, want) in beside[..n].iter().enumerate() {
                assert!(bits_of(&out.item(i)) == *want, "{}: {what}, copy {i} of {n}", subject.name());
            }
        }
    }
}

/// Every test on one subject: a set of kernels that this machine lacks is shown as ignored.
macro_rules! tests_of {
    ($name:ident, $subject:expr $(, $attribute:meta)?) => {
        mod $name {
            use super::*;

            tests_of!(@ $subject, [$($attribute)?],
                convolutions_and_linear_layers,
                pools,
                pointwise_and_moving_operations,
                every_node_of_small_nets_is_exact_on_integers,
                pixels_that_no_window_reads_have_no_gradient,
                results_do_not_depend_on_the_batch,
                convolutions_that_skip_the_whole_input,
                zeros_are_skipped,
                every_way_that_weights_are_stored,
                convolutions_of_any_geometry,
                pools_of_any_geometry,
                linear_operations_and_their_pullbacks_are_adjoint,
                items_of_a_batch_do_not_meet,
            );
        }
    };
    // Numbers of few bits hold the integers of single layers, not those of whole nets.
    (few bits: $name:ident, $subject:expr, $attribute:meta) => {
        mod $name {
            use super::*;

            tests_of!(@ $subject, [$attribute],
                convolutions_and_linear_layers,
                pools,
                pointwise_and_moving_operations,
                pixels_that_no_window_reads_have_no_gradient,
                results_do_not_depend_on_the_batch,
                convolutions_that_skip_the_whole_input,
                every_way_that_weights_are_stored,
                convolutions_of_any_geometry,
                linear_operations_and_their_pullbacks_are_adjoint,
                items_of_a_batch_do_not_meet,
                large_tiles_do_as_small_ones,
            );
        }
    };
    (@ $subject:expr, $attributes:tt, $($test:ident,)+) => {
        $(tests_of!(@one $subject, $attributes, $test);)+
    };
    (@one $subject:expr, [$($attribute:meta)?], $test:ident) => {
        #[test]
        $(#[$attribute])?
        fn $test() {
            super::$test(&$subject);
        }
    };
}

/// What the CPU's linear layers do with weights and inputs, on one set of kernels.
macro_rules! linear_tests_of {
    ($name:ident, $precision:ident, $kernels:ident $(, $attribute:meta)?) => {
        mod $name {
            use super::*;

            #[test]
            $(#[$attribute])?
            fn halves_are_what_they_stand_for() {
                super::halves_are_what_they_stand_for(&Cpu::new(Precision::$precision, Kernels::$kernels));
            }

            #[test]
            $(#[$attribute])?
            fn zeros_are_left_out_unseen() {
                super::zeros_are_left_out_unseen(&Cpu::new(Precision::$precision, Kernels::$kernels));
            }
        }
    };
}

linear_tests_of!(linear_portable_f64, F64, Portable);
linear_tests_of!(linear_portable_f32, F32, Portable);
linear_tests_of!(
    linear_avx2,
    F32,
    Avx2,
    cfg_attr(not(host_avx2), ignore = "this machine has no AVX2 with FMA and F16C")
);
linear_tests_of!(
    linear_avx512,
    F32,
    Avx512,
    cfg_attr(not(host_avx512), ignore = "this machine has no AVX-512 (F, BW, DQ, VL)")
);

tests_of!(the_reference, Reference);
tests_of!(portable_f64, Cpu::new(Precision::F64, Kernels::Portable));
tests_of!(portable_f32, Cpu::new(Precision::F32, Kernels::Portable));
tests_of!(
    avx2,
    Cpu::new(Precision::F32, Kernels::Avx2),
    cfg_attr(not(host_avx2), ignore = "this machine has no AVX2 with FMA and F16C")
);
tests_of!(
    avx512,
    Cpu::new(Precision::F32, Kernels::Avx512),
    cfg_attr(not(host_avx512), ignore = "this machine has no AVX-512 (F, BW, DQ, VL)")
);

/// Without transforms on the way forward, integers are exact where a pooling's adjoint leaves most numbers zero: the way back
/// is not transformed there, or it would round them.
macro_rules! exact_tests_of {
    ($name:ident, $kernels:expr, $attribute:meta) => {
        mod $name {
            use super::*;

            tests_of!(@ Cpu::convolving(Precision::F32, $kernels, Convolution::Exact), [$attribute],
                convolutions_and_linear_layers,
                zeros_are_skipped,
            );
        }
    };
}

exact_tests_of!(
    avx2_exact,
    Kernels::Avx2,
    cfg_attr(not(host_avx2), ignore = "this machine has no AVX2 with FMA and F16C")
);
exact_tests_of!(
    avx512_exact,
    Kernels::Avx512,
    cfg_attr(not(host_avx512), ignore = "this machine has no AVX-512 (F, BW, DQ, VL)")
);

#[cfg(feature = "cuda")]
tests_of!(
    emulated_f32,
    Emulated::new(Products::F32, Convolution::Exact),
    cfg_attr(not(cxx), ignore = "no C++ compiler")
);
#[cfg(feature = "cuda")]
tests_of!(
    few bits: emulated_fast,
    Emulated::new(Products::F32, Convolution::Fast),
    cfg_attr(not(cxx), ignore = "no C++ compiler")
);
#[cfg(feature = "cuda")]
tests_of!(
    few bits: emulated_f16,
    Emulated::new(Products::F16, Convolution::Fast),
    cfg_attr(not(cxx), ignore = "no C++ compiler")
);
#[cfg(feature = "cuda")]
tests_of!(
    few bits: emulated_bf16,
    Emulated::new(Products::Bf16, Convolution::Fast),
    cfg_attr(not(cxx), ignore = "no C++ compiler")
);

/// A subject that is wrong in one way: the comparison must notice.
struct Wrong(fn(&mut Dense));

impl Subject for Wrong {
    fn name(&self) -> String {
        "wrong on purpose".into()
    }

    fn unit_roundoff(&self) -> f64 {
        f64::from(f32::EPSILON) / 2.0
    }

    fn outputs(&self, graph: &Arc<Graph>, x: &Dense, nodes: &[NodeId]) -> Vec<Dense> {
        let mut outputs = Reference.outputs(graph, x, nodes);
        outputs.iter_mut().for_each(self.0);
        outputs
    }

    fn pullback(
        &self,
        graph: &Arc<Graph>,
        x: &Dense,
        from: NodeId,
        seed: &Dense,
        rule: ReluRule,
        want: NodeId,
    ) -> Dense {
        Reference.pullback(graph, x, from, seed, rule, want)
    }
}

#[test]
fn wrong_numbers_are_noticed() {
    type Spoil = fn(&mut Dense);
    let wrong: [(&str, Spoil); 3] = [
        ("a NaN", |d| *d.data.last_mut().unwrap() = f64::NAN),
        ("a small error", |d| d.data[0] += 1e-2),
        ("a missing item", |d| d.data.truncate(d.shape.len() * (d.n() - 1).max(1))),
    ];
    for numbers in [Numbers::Integers, Numbers::Reals] {
        for (what, spoil) in wrong {
            let case = Case::of("conv", 2, Shape::new(3, 5, 7), Geometry::default().conv(numbers));
            assert!(check(&Reference, &case, numbers, 3).is_ok());
            assert!(check(&Wrong(spoil), &case, numbers, 3).is_err(), "{what} passed");
        }
    }
}
