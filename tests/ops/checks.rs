//! A case on a subject against the reference.

use super::*;

/// Fails unless every element of `got` is within `tolerance` of `want`; equal infinities and NaNs are no agreement.
pub(crate) fn compare(what: &str, got: &Dense, want: &Dense, tolerance: impl Fn(usize) -> f64) -> Result<(), String> {
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
pub(crate) fn check(subject: &dyn Subject, case: &Case, numbers: Numbers, salt: u64) -> Result<(), String> {
    let x = numbers.maps(salt, case.n, case.graph.input_shape());
    check_on(subject, case, numbers, &x, salt)
}

pub(crate) fn check_on(
    subject: &dyn Subject,
    case: &Case,
    numbers: Numbers,
    x: &Dense,
    salt: u64,
) -> Result<(), String> {
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

pub(crate) fn check_all(subject: &dyn Subject, make: impl Fn(Numbers) -> Vec<Case>) {
    let cases = [Numbers::Integers, Numbers::Reals].map(|numbers| (numbers, make(numbers)));
    let results = cases.iter().flat_map(|(numbers, cases)| {
        cases.iter().enumerate().map(|(i, case)| check(subject, case, *numbers, 100 + 2 * i as u64))
    });
    let failures: Vec<String> = results.filter_map(Result::err).collect();
    let count: usize = cases.iter().map(|(_, c)| c.len()).sum();
    println!("{}: {count} cases, {} failures", subject.name(), failures.len());
    assert!(failures.is_empty(), "{} of {count} cases failed:\n{}", failures.len(), failures.join("\n"));
}

/// Bits of the outputs and of the pullback, item by item and as one batch.
pub(crate) fn assert_items_do_not_meet(
    subject: &dyn Subject,
    graph: &Arc<Graph>,
    node: NodeId,
    n: usize,
) -> Result<(), String> {
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

/// `⟨A v, u⟩ = ⟨v, Aᵀ u⟩`, both sides from the subject.
pub(crate) fn assert_adjoint(subject: &dyn Subject, case: &Case) -> Result<(), String> {
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
