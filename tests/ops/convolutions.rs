//! Convolutions.

use super::*;

pub(crate) fn convolutions_and_linear_layers(subject: &dyn Subject) {
    check_all(subject, cases::convolutions);
}

/// With stride 2 and one row of padding the windows step over the only pixel.
pub(crate) fn pixels_that_no_window_reads_have_no_gradient(subject: &dyn Subject) {
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

pub(crate) fn convolutions_that_skip_the_whole_input(subject: &dyn Subject) {
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

pub(crate) fn convolutions_of_any_geometry(subject: &dyn Subject) {
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

/// Convolutions of what a ReLU or the adjoint of a pooling left: full of zeros that some kernels skip.
pub(crate) fn zeros_are_skipped(subject: &dyn Subject) {
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

/// Many positions and channels are computed in other tiles than few: the same numbers, and right ones.
#[cfg(feature = "cuda")]
pub(crate) fn large_tiles_do_as_small_ones(subject: &dyn Subject) {
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
