//! Bounds on the rounding errors of graphs, from the sizes of their numbers and the lengths of their sums. No bound is
//! measured.

use verilume::graph::{Graph, NodeId, Op};

use super::{
    Dense, ReluRule, forward_is_exact, forward_magnitude, op_forward, op_magnitude, op_terms, op_vjp, scalar,
    vjp_magnitude,
};

/// Room for errors of errors.
const SECOND_ORDER: f64 = 1.01;

fn sum(a: &Dense, b: &Dense) -> Dense {
    a.zip(b, |a, b| a + b)
}

/// How far a monotone `f` may be from its value at `x` if `x` is off by at most `e`.
fn farthest(f: impl Fn(f64) -> f64, x: f64, e: f64) -> f64 {
    if e == 0.0 { 0.0 } else { (f(x + e) - f(x)).abs().max((f(x - e) - f(x)).abs()) }
}

/// What errors of the inputs make of the output.
fn carried(op: &Op, inputs: &[&Dense], errors: &[&Dense], out: &Dense) -> Dense {
    match op {
        Op::Relu | Op::Clamp { .. } => errors[0].clone(),
        Op::Smooth(f) => inputs[0].zip(errors[0], |x, e| farthest(|x| scalar(*f, x)[0], x, e)),
        Op::Mul => {
            let [a, b] = [0, 1].map(|i| inputs[i].map(f64::abs));
            sum(&op_forward(op, &[&a, errors[1]]), &op_forward(op, &[errors[0], &b]))
        }
        Op::Divide => {
            let divisor = inputs[1].map(f64::abs);
            let relative = errors[1].zip(&divisor, |error, divisor| error / divisor);
            let of_divisor = op_forward(&Op::Mul, &[&out.map(f64::abs), &relative]);
            sum(&op_forward(op, &[errors[0], &divisor]), &of_divisor)
        }
        Op::Conv(_) | Op::Linear(_) | Op::BatchNorm(_) | Op::Affine(_) => {
            let op = op_magnitude(op);
            let constant = op_forward(&op, &[&errors[0].map(|_| 0.0)]);
            op_forward(&op, errors).zip(&constant, |all, constant| all - constant)
        }
        Op::Softmax { .. } | Op::Standardise(_) => {
            assert!(errors[0].data.iter().all(|&e| e == 0.0), "{} reads what was rounded", op.kind());
            out.map(|_| 0.0)
        }
        // A sum with positive weights, a largest number, or numbers that are moved.
        _ => op_forward(op, errors),
    }
}

/// For each node a bound on how far its output lies from the exact one where every operation rounds by `unit`; the picture
/// is exact.
pub fn forward_bounds(graph: &Graph, outputs: &[Dense], unit: f64) -> Vec<Dense> {
    let mut bounds = vec![outputs[0].map(|_| 0.0)];
    for (node, out) in graph.nodes().iter().zip(outputs).skip(1) {
        let inputs: Vec<&Dense> = node.inputs.iter().map(|i| &outputs[i.index()]).collect();
        let errors: Vec<&Dense> = node.inputs.iter().map(|i| &bounds[i.index()]).collect();
        let terms = if forward_is_exact(&node.op) { 0 } else { op_terms(&node.op, &inputs, out) + 2 };
        let own = forward_magnitude(&node.op, &inputs).map(|size| SECOND_ORDER * terms as f64 * unit * size);
        bounds.push(sum(&own, &carried(&node.op, &inputs, &errors, out)));
    }
    bounds
}

/// What errors of the inputs make of the signals that go back.
fn carried_back(op: &Op, inputs: &[&Dense], errors: &[&Dense], up: &Dense) -> Vec<Dense> {
    let rule = ReluRule::Vjp;
    match op {
        Op::Smooth(f) => {
            let turned = inputs[0].zip(errors[0], |x, e| farthest(|x| scalar(*f, x)[1], x, e));
            vec![turned.zip(up, |turned, up| turned * up)]
        }
        // Each operand's signal has the other for a factor.
        Op::Mul => op_vjp(op, errors, up, rule),
        // Of up/b and up·a/b².
        Op::Divide => {
            let [a, b] = [0, 1].map(|i| inputs[i].map(f64::abs));
            let ones = a.map(|_| 1.0);
            let relative = errors[1].zip(&b, |error, b| error / b);
            let spread = op_forward(&Op::Mul, &[&ones, &relative]);
            let [first, second] = op_vjp(op, &[&a, &b], &up.zip(&spread, |up, r| up * r), rule).try_into().unwrap();
            let of_a = op_vjp(op, &[errors[0], &b], up, rule).swap_remove(1);
            vec![first, second.zip(&of_a, |twice, once| 2.0 * twice.abs() + once.abs())]
        }
        _ => inputs.iter().map(|x| x.map(|_| 0.0)).collect(),
    }
}

/// A bound on how far the gradient at the picture, of `node`'s output times `seed`, lies from the exact one. `bounds` are
/// those of the forward pass; decisions of activations and pools are the exact ones.
pub fn backward_bound(
    graph: &Graph,
    (outputs, bounds): (&[Dense], &[Dense]),
    (node, seed): (NodeId, &Dense),
    unit: f64,
) -> Dense {
    let zeros = || outputs.iter().map(|d| Dense::zeros(d.n(), d.shape)).collect::<Vec<_>>();
    let (mut signals, mut errors) = (zeros(), zeros());
    signals[node.index()] = seed.map(f64::abs);
    for id in graph.ids().skip(1).rev().filter(|&id| id <= node) {
        let node = graph.node(id);
        let inputs: Vec<&Dense> = node.inputs.iter().map(|i| &outputs[i.index()]).collect();
        let off: Vec<&Dense> = node.inputs.iter().map(|i| &bounds[i.index()]).collect();
        let (up, error) = (&signals[id.index()], &errors[id.index()]);
        // Sums of signals that meet at a node round too.
        let terms = op_terms(&node.op, &inputs, &outputs[id.index()]) + graph.nodes().len() + 2;
        let back = vjp_magnitude(&node.op, &inputs, up, ReluRule::Vjp);
        let passed = vjp_magnitude(&node.op, &inputs, error, ReluRule::Vjp);
        let carried = carried_back(&node.op, &inputs, &off, up);
        for (i, &input) in node.inputs.iter().enumerate() {
            let own = back[i].map(|size| SECOND_ORDER * terms as f64 * unit * size);
            let all = sum(&sum(&own, &passed[i]), &carried[i]);
            errors[input.index()] = sum(&errors[input.index()], &all);
            signals[input.index()] = sum(&signals[input.index()], &back[i]);
        }
    }
    errors.swap_remove(0)
}
