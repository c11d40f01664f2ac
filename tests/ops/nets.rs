//! Whole nets, and what holds of all operations.

use super::*;

pub(crate) fn every_node_of_small_nets_is_exact_on_integers(subject: &dyn Subject) {
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

pub(crate) fn results_do_not_depend_on_the_batch(subject: &dyn Subject) {
    for graph in cases::nets(Numbers::Reals) {
        for n in [2, 5, 17] {
            assert_items_do_not_meet(subject, &graph, graph.output(), n).unwrap();
        }
    }
}

pub(crate) fn linear_operations_and_their_pullbacks_are_adjoint(subject: &dyn Subject) {
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

pub(crate) fn items_of_a_batch_do_not_meet(subject: &dyn Subject) {
    proptest!(config(64), |((n, input, geometry) in convolution(), (m, map, op) in pool())| {
                    let conv = Case::of("conv", n + 1, input, geometry.conv(Numbers::Reals));
            assert_items_do_not_meet(subject, &conv.graph, conv.node, conv.n).map_err(TestCaseError::fail)?;
            let pool = Case::of("pool", m + 1, map, op.clone());
            assert_items_do_not_meet(subject, &pool.graph, pool.node, pool.n).map_err(TestCaseError::fail)?;
    });
}
