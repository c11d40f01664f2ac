//! Every method of the registry: it runs with its defaults, keeps its promises, and refuses what makes no sense.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod nets;

use std::sync::Arc;

use nets::{Net, SMALL, bits, brief, build, machines};
use verilume::ErrorKind;
use verilume::device::Perturbation;
use verilume::engine::{At, Batch, Copies, Engine, Job, Pullback, Settings};
use verilume::graph::{Conv, Graph, GraphBuilder, Linear, Op, Weight};
use verilume::map::{Map, MapDims, Sign, Space};
use verilume::method::{Method, Promise, Spec, registry};
use verilume::program::{Score, Statistic, Step, Times};
use verilume::tensor::{Precision, Shape, Tensor, Window};

/// Methods that need no file; tests of their own show the others.
fn runnable() -> impl Iterator<Item = &'static verilume::method::Entry> {
    registry().iter().filter(|entry| entry.required().is_none())
}

fn sum(map: &Map) -> f64 {
    map.values.to_f64().iter().sum()
}

#[test]
fn every_method_runs_and_keeps_its_promises() {
    let mut engine = Engine::new(&Settings { threads: Some(2), ..Settings::default() }).unwrap();
    for name in SMALL {
        let net = Net::small(name);
        for entry in runnable() {
            for score in [Score::Logit, Score::Prob, Score::LogProb] {
                // A score changes the seed only; one net is enough to see that it arrives.
                if score != Score::Logit && name != "vgg" {
                    continue;
                }
                let what = format!("{} on {name}", entry.id);
                let promises = Spec::parse(entry.id).unwrap().promises();
                let maps = net.explain(&mut engine, &brief(entry), score, 1).unwrap_or_else(|e| panic!("{what}: {e}"));
                assert_eq!(maps.len(), net.x.len(), "{what}");
                let dims = build(&brief(entry), score, 1, &net.preprocess).unwrap().map_dims(&net.graph).unwrap();
                assert_eq!(maps[0].values.dims(), dims.dims(), "{what}: other axes than were said before");
                for (map, &target) in maps.iter().zip(&net.targets) {
                    assert_eq!((&*map.method, map.target), (entry.id, target));
                    assert_eq!(map.values.first_not_finite(), None, "{what}");
                    assert!(matches!(map.space, Space::Input), "{what}");
                    let shape = net.x.shape();
                    let whole = map.values.dims() == shape.dims() || map.values.dims() == [shape.h, shape.w];
                    assert!(whole, "{what}: {:?} for {shape}", map.values.dims());
                    let negative = map.values.to_f64().iter().any(|&v| v < 0.0);
                    let promised = promises.contains(&Promise::NotNegative);
                    assert!(!(promised && negative), "{what} promised not to be negative");
                    assert_eq!(map.sign == Sign::Unsigned, promised, "{what}");
                    assert_eq!(map.gap.is_some(), promises.iter().any(|p| p.is_measured()), "{what}");
                    // The class a CAM looks for may have no evidence at all, and HAF's masks weigh more than a probability.
                    let zero = map.values.to_f64().iter().all(|&v| v == 0.0);
                    let may_be = entry.id.contains("cam") || (entry.id == "haf" && score != Score::Logit);
                    assert!(!zero || may_be, "{what} with {score:?} is all zero");
                }
            }
        }
    }
}

/// Per channel, per pixel and per position of a layer.
#[test]
fn the_axes_of_a_map_are_known_before() {
    let mut engine = Engine::new(&Settings::default()).unwrap();
    let net = Net::small("resnet_basic");
    let shape = net.x.shape();
    let layer = net.graph.node(net.graph.stages()[0].1).shape;
    let (numbers, pixels) = (MapDims::Channels(shape.dims()), MapDims::Plane([shape.h, shape.w]));
    let first = format!("grad_cam:layer={},upsample=none", net.graph.stages()[0].0);
    for (spec, want) in [
        ("gradient", numbers),
        ("occlusion:window=9,stride=9", numbers),
        ("grad_cam", pixels),
        ("rise:n=2", pixels),
        (first.as_str(), MapDims::Plane([layer.h, layer.w])),
        ("smooth:base=(grad_cam),n=2", pixels),
        ("smooth:base=(gradient),n=2", numbers),
    ] {
        let method = build(spec, Score::Logit, 0, &net.preprocess).unwrap();
        let dims = method.map_dims(&net.graph).unwrap();
        assert_eq!((dims, dims.count()), (want, want.dims().iter().product()), "{spec}");
        let maps = method.explain(&mut engine, &net.graph, &net.x, &net.targets).unwrap();
        assert_eq!(maps[0].values.dims(), dims.dims(), "{spec}");
    }
    let refused = |spec: &str| {
        let why = build(spec, Score::Logit, 0, &net.preprocess).unwrap().map_dims(&net.graph).unwrap_err();
        assert_eq!(why.kind(), ErrorKind::Settings, "{why}");
        why.to_string()
    };
    assert!(refused("grad_cam:layer=nowhere").contains("nowhere"));
    assert!(refused("smooth:base=(grad_cam:upsample=none)").contains("upsampling"));
    /// A method that says nothing of its maps.
    struct Silent;
    impl Method for Silent {
        fn explain(&self, _: &mut Engine, _: &Graph, _: &Batch, _: &[usize]) -> verilume::Result<Vec<Map>> {
            Ok(Vec::new())
        }
    }
    assert!(Silent.map_dims(&net.graph).unwrap_err().to_string().contains("before it computes"));
}

/// A graph whose arrays have their channels last gets maps with channels first, as its inputs are in the library.
#[cfg(feature = "onnx")]
#[test]
fn maps_have_their_channels_first() {
    use std::path::Path;

    use verilume::model::Model;
    use verilume::session::Options;

    let file = |name: &str| Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/zoo/{name}.onnx"));
    for name in ["keras-mobilenet.13", "keras-mobilenet.nchw"] {
        let model = Model::open(&file(name), None).unwrap();
        assert_eq!(model.input_form().channels_last, name == "keras-mobilenet.13", "{name}");
        let shape = model.default_input();
        assert_eq!(shape.c, 3, "{name}: {shape}");
        let mut session = verilume::Session::open(model, &Options::default()).unwrap();
        let input = Tensor::f32(shape.dims(), (0..shape.len()).map(|i| (i * 7 % 13) as f32 - 6.0).collect()).unwrap();
        let method = session.method("gradient").unwrap();
        let dims = session.map_dims(method.as_ref(), input.dims()).unwrap();
        assert_eq!(dims, MapDims::Channels([3, shape.h, shape.w]), "{name}");
        let map = session.explain(method.as_ref(), &[&input], &[0]).remove(0).unwrap();
        assert_eq!(map.values.dims(), dims.dims(), "{name}");
        assert!(session.map_dims(method.as_ref(), &[3, 4]).is_err(), "{name}");
    }
}

#[test]
fn promises_depend_on_the_values() {
    let promises = |spec: &str| Spec::parse(spec).unwrap().promises();
    assert_eq!(promises("grad_cam"), [Promise::NotNegative]);
    assert_eq!(promises("grad_cam:relu=no"), []);
    let mut engine = Engine::new(&Settings::default()).unwrap();
    let maps = Net::small("vgg").explain(&mut engine, "grad_cam:relu=no", Score::Logit, 0).unwrap();
    assert!(maps.iter().all(|m| m.sign == Sign::Signed));
    let draws = |spec: &str| Spec::parse(spec).unwrap().draws();
    assert!(draws("ig:baseline=noise") && !draws("ig") && draws("vargrad") && !draws("gradient"));
}

/// A path between equal scores has nothing of which a gap could be a share.
#[test]
fn a_gap_of_nothing_has_no_share() {
    let net = Net::small("vgg");
    let flat = Tensor::f32(net.x.shape().dims(), vec![0.0; net.x.shape().len()]).unwrap();
    let method = build("ig:steps=3", Score::Logit, 0, &net.preprocess).unwrap();
    let mut engine = Engine::new(&Settings::default()).unwrap();
    let maps = method.explain(&mut engine, &net.graph, &Batch::of(vec![flat]).unwrap(), &[0]).unwrap();
    let gap = maps[0].gap.as_ref().unwrap();
    assert_eq!((gap.value, gap.relative), (0.0, None));
}

/// The gap is measured in one run over pictures and baselines, equal ones once, or not at all; the map is the same.
#[test]
fn a_gap_may_be_left_out() {
    let net = Net::small("vgg");
    let mut engine = Engine::new(&Settings::default()).unwrap();
    let pictures = net.x.len();
    assert!(pictures > 1);
    // Forward passes for the gap, and the runs they are made in.
    let cases = [
        ("ig:steps=3,baseline=zero", pictures + 1, 1),
        ("ig:steps=3,baseline=noise", 2 * pictures, 1),
        ("guided_ig:steps=3", pictures + 1, 1),
        ("blur_ig:steps=3", 2 * pictures, 1),
        ("expected_gradients:n=3", 4 * pictures, pictures),
    ];
    for (spec, passes, runs) in cases {
        let mut run = |gap: &str| {
            let spec = format!("{spec},gap={gap}");
            let (maps, profile) = engine.profile(|e| net.explain(e, &spec, Score::Prob, 2)).unwrap();
            let forward = |steps: &[Step]| !steps.iter().any(|s| matches!(s, Step::Aggregate { .. }));
            let alone: Vec<usize> =
                profile.chunks.iter().filter(|c| forward(c.plan.steps())).map(|c| c.copies).collect();
            (maps, alone)
        };
        let ((with, measured), (without, unmeasured)) = (run("yes"), run("no"));
        assert_eq!((measured.iter().sum::<usize>(), measured.len()), (passes, runs), "{spec}");
        assert!(unmeasured.is_empty(), "{spec}: {unmeasured:?}");
        for (with, without) in with.iter().zip(&without) {
            assert!(with.gap.is_some() && without.gap.is_none(), "{spec}");
            assert!(bits(with) == bits(without), "{spec}");
        }
        let promises = |gap: &str| Spec::parse(&format!("{spec},gap={gap}")).unwrap().promises();
        assert_eq!((promises("yes"), promises("no")), (vec![Promise::Completeness], vec![]));
        let refused = build(&format!("{spec},gap=perhaps"), Score::Prob, 0, &net.preprocess).err().unwrap().to_string();
        assert!(refused.contains("gap=perhaps"), "{refused}");
    }
}

#[test]
fn completeness_is_measured_and_kept() {
    let net = Net::small("vgg_bn");
    for precision in [Precision::F32, Precision::F64] {
        let mut engine = Engine::new(&Settings { precision, threads: Some(2), ..Settings::default() }).unwrap();
        for score in [Score::Logit, Score::Prob] {
            for (baseline, value) in [("zero", 0.0), ("value:-2", -2.0)] {
                let shape = net.x.shape();
                let start = vec![Tensor::f32(shape.dims(), vec![value; shape.len()]).unwrap(); net.x.len()];
                let here = engine.forward(&net.graph, &net.x).unwrap();
                let there = engine.forward(&net.graph, &Batch::of(start).unwrap()).unwrap();
                let spec = |steps: usize| format!("ig:steps={steps},baseline={baseline}");
                let few = net.explain(&mut engine, &spec(4), score, 0).unwrap();
                let many = net.explain(&mut engine, &spec(400), score, 0).unwrap();
                for (i, map) in many.iter().enumerate() {
                    let at = |logits: &Tensor| score.evaluate(&logits.item(i).unwrap().to_f64(), net.targets[i]).0;
                    let difference = at(&here) - at(&there);
                    for map in [map, &few[i]] {
                        let gap = map.gap.as_ref().unwrap();
                        assert_eq!(gap.promise, "completeness");
                        assert_eq!(gap.value.to_bits(), (sum(map) - difference).to_bits());
                        assert_eq!(gap.relative, Some(gap.value.abs() / difference.abs()));
                    }
                    let gap = map.gap.as_ref().unwrap();
                    // The gradient jumps along the path, so the gap shrinks as one over the steps and no faster.
                    let within = gap.value.abs() <= 2e-2 * difference.abs().max(1.0);
                    assert!(within, "{precision}, {score:?}, {baseline}, picture {i}: {gap:?} of {difference}");
                }
            }
        }
    }
}

fn refusal(engine: &mut Engine, net: &Net, spec: &str, targets: &[usize]) -> verilume::Error {
    let method = match build(spec, Score::Logit, 0, &net.preprocess) {
        Ok(method) => method,
        Err(e) => return e,
    };
    method.explain(engine, &net.graph, &net.x, targets).map(|_| ()).expect_err(spec)
}

#[test]
fn what_makes_no_sense_is_refused() {
    let net = Net::small("vgg");
    let mut engine = Engine::new(&Settings::default()).unwrap();
    let ok = net.targets.clone();
    for (spec, part) in [
        ("grad_cam:layer=nowhere", "no layer is named 'nowhere'"),
        ("grad_cam:relu=perhaps", "relu=perhaps"),
        ("grad_cam:upsample=up", "upsample=up"),
        ("smoothgrad:n=0", "n=0"),
        ("smoothgrad:n=-1", "n=-1"),
        ("smoothgrad:sigma=-0.1", "sigma=-0.1"),
        ("smoothgrad:sigma=NaN", "sigma=NaN"),
        ("smoothgrad:n=4294967295", "smoothgrad:n=4294967295"),
        ("squaregrad:n=1048577", "squaregrad:n=1048577"),
        ("vargrad:n=18446744073709551615", "vargrad:n=18446744073709551615"),
        ("ig:steps=2000000000", "integrated_gradients:steps=2000000000"),
        ("ig:steps=9000000000000000000", "integrated_gradients:steps=9000000000000000000"),
        ("ig:steps=100000,rule=gausslegendre", "at most 16384 steps"),
        ("ig:baseline=blur:1e18", "integrated_gradients: baseline=blur:1e18"),
        ("ig:baseline=blur:10000", "larger side"),
        ("vargrad:n=1", "too few"),
        ("ig:steps=0", "0"),
        ("ig:steps=1,rule=trapezoid", "trapezoid"),
        ("ig:rule=simpson", "simpson"),
        ("ig:baseline=grey", "grey"),
        ("ig:baseline=value:inf", "inf"),
    ] {
        let error = refusal(&mut engine, &net, spec, &ok);
        assert!(matches!(error.kind(), ErrorKind::Settings | ErrorKind::Shape | ErrorKind::Input), "{spec}: {error}");
        assert!(error.to_string().contains(part), "{spec}: {error}");
    }
    for entry in runnable() {
        let classes = net.graph.classes();
        let error = refusal(&mut engine, &net, entry.id, &[0, classes]);
        assert_eq!(error.kind(), ErrorKind::Settings, "{}", entry.id);
        assert!(error.to_string().contains(&classes.to_string()), "{error}");
        let error = refusal(&mut engine, &net, entry.id, &[0]);
        assert_eq!(error.kind(), ErrorKind::Settings, "{}: a class too few", entry.id);
    }
    // Another net's pictures.
    let other = Net::small("vgg_bn");
    for entry in runnable() {
        let method = build(entry.id, Score::Logit, 0, &net.preprocess).unwrap();
        let error = method.explain(&mut engine, &net.graph, &other.x, &other.targets).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Input, "{}: {error}", entry.id);
    }
}

#[test]
fn a_baseline_of_another_size_is_refused() {
    let net = Net::small("vgg");
    let load = |_: &std::path::Path| Tensor::f32([3, 2, 2], vec![0.0; 12]);
    let context = verilume::method::Context { seed: 0, score: Score::Logit, preprocess: &net.preprocess, load: &load };
    let method = verilume::method::Spec::parse("ig:baseline=file:small.png").unwrap().build(&context).unwrap();
    let mut engine = Engine::new(&Settings::default()).unwrap();
    let error = method.explain(&mut engine, &net.graph, &net.x, &net.targets).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Input);
    assert!(error.to_string().contains("small.png") && error.to_string().contains("[3, 2, 2]"), "{error}");
}

#[test]
fn jobs_that_do_not_fit_their_pictures_are_refused() {
    let net = Net::small("vgg");
    let mut engine = Engine::new(&Settings::default()).unwrap();
    let shape = net.x.shape();
    let whole = Tensor::f32(shape.dims(), vec![0.0; shape.len()]).unwrap();
    let small = Tensor::f32([3, 1, 1], vec![0.0; 3]).unwrap();
    let path = |alphas, baselines| Perturbation::Path { alphas, baselines };
    let noise = |images, sigmas| Perturbation::Noise { seed: 0, first: 0, images, sigmas };
    for perturbation in [
        path(vec![0.5], vec![whole.clone(); 2]),
        path(vec![0.5; 3], vec![whole.clone()]),
        path(vec![0.5; 3], vec![whole, small]),
        noise(vec![1], vec![0.1; 2]),
        noise(vec![1; 2], vec![0.1]),
    ] {
        let copies = Copies { perturbation, weights: vec![0.3; 3] };
        let job = Job { copies, ..Job::gradient(Score::Logit) };
        let error = engine.explain(&net.graph, &job, &net.x, &net.targets).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Settings, "{error}");
    }
    // Found before anything runs: a byte of memory would do for nothing.
    let mut tight = Engine::new(&Settings { memory: Some(1), ..Settings::default() }).unwrap();
    let deep = At::Node(net.graph.stages()[0].1);
    for (times, at) in [(Times::InputMinusBaseline, At::Input), (Times::Input, deep)] {
        let job = Job { times, at, ..Job::gradient(Score::Logit) };
        let error = tight.explain(&net.graph, &job, &net.x, &net.targets).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Settings, "{error}");
    }
    for (statistic, weights) in [(Statistic::Sum, vec![]), (Statistic::Variance, vec![1.0])] {
        let copies = Copies { perturbation: Perturbation::None, weights };
        let job = Job { copies, statistic, ..Job::gradient(Score::Logit) };
        assert_eq!(engine.explain(&net.graph, &job, &net.x, &net.targets).unwrap_err().kind(), ErrorKind::Settings);
    }
}

/// Three layers on a 2-channel picture; `second` and `third` are the weights of the later ones.
fn chain(second: f32, third: f32) -> Arc<Graph> {
    let mut b = GraphBuilder::new(Shape::new(2, 5, 5));
    let conv = |values: Vec<f32>| {
        let weight = Weight::owned([2, 2, 3, 3], &values).unwrap();
        Op::Conv(Conv { weight, bias: None, window: Window::square(3, 1, 1), groups: 1 })
    };
    let mut at = b.push("first", conv(vec![1.0; 36]), &[b.input()]).unwrap();
    at = b.push("first.relu", Op::Relu, &[at]).unwrap();
    at = b.push("second", conv([vec![1.0; 35], vec![second]].concat()), &[at]).unwrap();
    at = b.push("second.relu", Op::Clamp { lo: 0.0, hi: f64::MAX }, &[at]).unwrap();
    at = b.push("flatten", Op::Flatten, &[at]).unwrap();
    let weight = Weight::owned([3, 50, 1, 1], &[vec![1.0; 149], vec![third]].concat()).unwrap();
    at = b.push("third", Op::Linear(Linear { weight, bias: None }), &[at]).unwrap();
    Arc::new(b.finish(at).unwrap())
}

#[test]
fn numbers_that_are_not_finite_are_traced_to_their_layer() {
    let x = Batch::new(&Tensor::f32([1, 2, 5, 5], vec![1e10; 50]).unwrap()).unwrap();
    let job = Job::gradient(Score::Logit);
    let signal = Tensor::f32([1, 2, 5, 5], vec![1.0; 50]).unwrap();
    for settings in machines() {
        let mut engine = Engine::new(&settings).unwrap();
        assert!(engine.explain(&chain(1.0, 1.0), &job, &x, &[0]).is_ok());
        let overflow = settings.precision == Precision::F32;
        for (second, third, layer) in
            [(f32::NAN, 1.0, "second"), (f32::INFINITY, 1.0, "second"), (1.0, f32::NAN, "third"), (1e38, 1.0, "second")]
        {
            if second == 1e38 && !overflow {
                continue;
            }
            let graph = chain(second, third);
            // The signal itself stays finite: it does not meet the layers that overflow.
            let from = graph.find("first.relu").unwrap();
            let way = Pullback { from, signal: &signal, rules: &job.rules, to: graph.input() };
            let errors = [
                engine.explain(&graph, &job, &x, &[0]).map(|_| ()).unwrap_err(),
                engine.forward(&graph, &x).map(|_| ()).unwrap_err(),
                engine.decisions(&graph, &x).map(|_| ()).unwrap_err(),
                engine.pullback(&graph, &x, &way).map(|_| ()).unwrap_err(),
            ];
            for error in errors {
                assert_eq!(error.kind(), ErrorKind::Device, "{error}");
                assert!(error.to_string().contains(&format!("layer '{layer}'")), "{:?}: {error}", settings.kernels);
            }
        }
    }
}

#[test]
fn overflows_outside_layers_with_weights_are_named_too() {
    let mut b = GraphBuilder::new(Shape::new(1, 1, 1));
    let sum = b.push("twice", Op::Add, &[b.input(); 2]).unwrap();
    let flat = b.push("flatten", Op::Flatten, &[sum]).unwrap();
    let graph = b.finish(flat).unwrap();
    let x = Batch::new(&Tensor::f32([1, 1, 1, 1], vec![f32::MAX]).unwrap()).unwrap();
    let error = Engine::new(&Settings::default()).unwrap().forward(&graph, &x).unwrap_err();
    assert!(error.to_string().ends_with("layer 'twice' (add)"), "{error}");
}

#[test]
fn pictures_that_are_not_finite_are_refused_with_the_place() {
    let mut numbers = vec![0.0f32; 2 * 3 * 4 * 5];
    numbers[60 + 20 + 2 * 5 + 3] = f32::NAN;
    let error = Batch::new(&Tensor::f32([2, 3, 4, 5], numbers).unwrap()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Input);
    assert_eq!(error.to_string(), "picture 1 holds NaN at channel 1, row 2, column 3");
    for dims in [vec![0, 3, 4, 4], vec![1, 3, 0, 4], vec![3, 4, 4]] {
        let empty = Tensor::f32(dims.clone(), vec![0.0; dims.iter().product()]).unwrap();
        assert_eq!(Batch::new(&empty).unwrap_err().kind(), ErrorKind::Input, "{dims:?}");
    }
}

/// A finite sum of finite signals can leave the range of single precision when it becomes a map.
#[test]
fn maps_that_overflow_are_refused() {
    let mut b = GraphBuilder::new(Shape::new(1, 1, 1));
    let flat = b.push("flatten", Op::Flatten, &[b.input()]).unwrap();
    let weight = Weight::owned([1, 1, 1, 1], &[1e30]).unwrap();
    let fc = b.push("fc", Op::Linear(Linear { weight, bias: None }), &[flat]).unwrap();
    let graph = b.finish(fc).unwrap();
    let x = Batch::new(&Tensor::f32([1, 1, 1, 1], vec![1.0]).unwrap()).unwrap();
    let job = Job { statistic: Statistic::SumOfSquares, ..Job::gradient(Score::Logit) };
    let error = Engine::new(&Settings::default()).unwrap().explain(&graph, &job, &x, &[0]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Device, "{error}");
    assert!(error.to_string().contains("picture 0"), "{error}");
}

/// A window of more than 256 taps: a winner's number takes two bytes.
#[test]
fn winners_of_large_windows_are_the_first_largest() {
    let [h, w] = [23, 19];
    let window = Window::square(17, 3, 0);
    let mut b = GraphBuilder::new(Shape::new(2, h, w));
    let pool = b.push("pool", Op::MaxPool(window), &[b.input()]).unwrap();
    let flat = b.push("flatten", Op::Flatten, &[pool]).unwrap();
    let graph = b.finish(flat).unwrap();
    // The lower rows are larger, so that late taps win.
    let number = |i: usize| (i * 7919 % 1009 / 3 + if i / w % h > 14 { 400 } else { 0 }) as f32;
    let numbers: Vec<f32> = (0..2 * h * w).map(number).collect();
    let [rows, columns] = window.output(h, w).unwrap();
    let mut want = Vec::new();
    for (c, y, x) in (0..2).flat_map(|c| (0..rows).flat_map(move |y| (0..columns).map(move |x| (c, 3 * y, 3 * x)))) {
        let at = |tap: usize| numbers[(c * h + y + tap / 17) * w + x + tap % 17];
        let first = (0..289).reduce(|best, tap| if at(tap) > at(best) { tap } else { best }).unwrap();
        want.push(first as u16);
    }
    assert!(want.iter().any(|&tap| tap > 255), "no winner needs two bytes");
    let x = Batch::new(&Tensor::f32([1, 2, h, w], numbers.clone()).unwrap()).unwrap();
    for settings in machines() {
        let decisions = Engine::new(&settings).unwrap().decisions(&graph, &x).unwrap();
        assert_eq!(decisions[0].nodes[&pool], want, "{:?}", settings.kernels);
    }
}

/// Decisions come from the caller: whatever they say, nothing outside the feature maps is touched.
#[test]
fn given_decisions_cannot_point_outside() {
    let net = Net::small("resnet_basic");
    let job = Job::gradient(Score::Logit);
    for settings in machines() {
        let mut engine = Engine::new(&settings).unwrap();
        let own = engine.decisions(&net.graph, &net.x).unwrap();
        let plain = engine.explain(&net.graph, &job, &net.x, &net.targets).unwrap().maps;
        let under = |engine: &mut Engine, d: &[verilume::device::Decisions]| {
            engine.explain_under(&net.graph, &job, &net.x, &net.targets, d)
        };
        assert!(under(&mut engine, &own).unwrap().maps == plain, "its own decisions change nothing");
        for wrong in [0, 255, u16::MAX] {
            let mut given = own.clone();
            given.iter_mut().flat_map(|d| d.nodes.values_mut()).for_each(|d| d.fill(wrong));
            assert!(under(&mut engine, &given).unwrap().maps != plain);
        }
        assert!(under(&mut engine, &own).unwrap().maps == plain, "again");
        let mut short = own.clone();
        short[1].nodes.values_mut().for_each(|d| d.truncate(3));
        assert_eq!(under(&mut engine, &short).unwrap_err().kind(), ErrorKind::Device);
    }
}
