//! Decoys keep to their constraint and their mask, their patches do not see each other, and methods nest.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod nets;

use std::path::Path;
use std::sync::Arc;

use nets::{Net, bits, build, machines};
use safetensors::SafeTensors;
use verilume::device::cpu::Kernels;
use verilume::engine::{Batch, Engine, Settings};
use verilume::graph::{Conv, Graph, GraphBuilder, Linear, NodeId, Op, Weight};
use verilume::map::{Map, Sign};
use verilume::method::{Promise, Spec};
use verilume::model::Model;
use verilume::perturb::decoy::{DecoyMasks, Generator, Recipe, first_activation};
use verilume::perturb::footprint::Footprint;
use verilume::program::Score;
use verilume::reliability::bootstrap::Bootstrap;
use verilume::reliability::fidelity;
use verilume::tensor::{Precision, Shape, Tensor, Window};

/// Folder of the data that is not part of the repository.
const DATA: Option<&str> = needs::test_data!();

fn recipe(node: NodeId) -> Recipe {
    Recipe { node, patch: 3, stride: 3, masks: DecoyMasks::Lattice, epsilon: 0.05, iterations: 60, lr: 0.1, seed: 1 }
}

fn range(net: &Net) -> [Vec<f64>; 2] {
    [net.preprocess.black(), net.preprocess.white()]
}

/// Outputs of a layer in double precision.
fn outputs(graph: &Graph, node: NodeId, pictures: Vec<Tensor>) -> Vec<Vec<f64>> {
    let settings = Settings { precision: Precision::F64, threads: Some(1), ..Settings::default() };
    let all = Engine::new(&settings).unwrap().node_outputs(graph, &Batch::of(pictures).unwrap(), &[node]).unwrap();
    (0..all[0].dims()[0]).map(|i| all[0].item(i).unwrap().to_f64().into_owned()).collect()
}

#[test]
fn every_decoy_keeps_to_its_constraint_and_its_mask() {
    for name in nets::SMALL {
        let net = Net::small(name);
        let first = first_activation(&net.graph).unwrap();
        // The first activation is solved patch by patch, a stage's end by programs.
        for (node, epsilon, iterations) in [(first, 0.05, 60), (first, 0.01, 60), (net.graph.stages()[0].1, 0.05, 5)] {
            for settings in machines() {
                // Programs are the same on every device; one of each precision will do.
                if node != first && settings.precision == Precision::F32 && settings.kernels != Kernels::Portable {
                    continue;
                }
                let mut engine = Engine::new(&settings).unwrap();
                let recipe = Recipe { epsilon, iterations, ..recipe(node) };
                let generator = Generator::new(&mut engine, &net.graph, &net.x, range(&net), recipe).unwrap();
                let before = outputs(&net.graph, node, net.x.items().to_vec());
                let all: Vec<(usize, usize)> =
                    (0..net.x.len()).flat_map(|i| (0..generator.decoys().min(4)).map(move |d| (i, d))).collect();
                let decoys = generator.make(&mut engine, &all).unwrap();
                let after = outputs(&net.graph, node, decoys.iter().map(|d| d.picture.clone()).collect());
                let (mut moved, mut most) = (0.0, 0.0f64);
                for (((item, number), decoy), after) in all.iter().zip(&decoys).zip(&after) {
                    let what = format!("{name}, {settings:?}, picture {item}, decoy {number}");
                    let largest = before[*item].iter().fold(0.0f64, |m, v| m.max(v.abs()));
                    let change = before[*item].iter().zip(after).fold(0.0f64, |m, (a, b)| m.max((a - b).abs()));
                    let limit = epsilon * largest;
                    assert!(change <= limit * (1.0 + 1e-6), "{what}: {change} of {limit}");
                    assert!(decoy.change <= 1.0, "{what}: {}", decoy.change);
                    most = most.max(change / limit);
                    moved += decoy.moved;
                    // Nothing moves outside the mask, nothing leaves its range, and something moves the right way.
                    let (patches, sign) = generator.mask(*item, *number);
                    let shape = net.x.shape();
                    let x = net.x.items()[*item].to_f64();
                    let [low, high] = range(&net);
                    for (i, (&x, &z)) in x.iter().zip(decoy.picture.to_f64().iter()).enumerate() {
                        let (c, y, column) = (i / shape.plane(), i / shape.w % shape.h, i % shape.w);
                        let inside = patches.iter().any(|[r, q]| r.contains(&y) && q.contains(&column));
                        assert!(inside || x == z, "{what}: moved outside its mask");
                        let within = z >= low[c].min(x) - 1e-6 && z <= high[c].max(x) + 1e-6;
                        assert!(within, "{what}: {z} for {x}");
                    }
                    // Only moves in the direction count; others make up for them.
                    let way: f64 =
                        x.iter().zip(decoy.picture.to_f64().iter()).map(|(x, z)| ((z - x) * sign).max(0.0)).sum();
                    assert!(way > 0.0, "{what}: no move in its direction");
                }
                assert!(moved / all.len() as f64 > 1e-4, "{name}: nothing moved");
                assert!(most > 0.3, "{name}: the constraint was never near, {most}");
            }
        }
    }
}

/// A lattice's patches are solved as if each were alone, patch by patch and by programs.
#[test]
fn patches_of_a_lattice_do_not_see_each_other() {
    let net = Net::small("vgg");
    let settings = Settings { threads: Some(2), ..Settings::default() };
    let mut engine = Engine::new(&settings).unwrap();
    for (node, iterations) in [(first_activation(&net.graph).unwrap(), 60), (net.graph.stages()[0].1, 10)] {
        let recipe = Recipe { iterations, ..recipe(node) };
        let lattice = Generator::new(&mut engine, &net.graph, &net.x, range(&net), recipe).unwrap();
        let alone = Recipe { masks: DecoyMasks::Patch(None), ..recipe };
        let alone = Generator::new(&mut engine, &net.graph, &net.x, range(&net), alone).unwrap();
        let together = lattice.make(&mut engine, &[(1, 0)]).unwrap().remove(0);
        let (patches, _) = lattice.mask(1, 0);
        assert!(patches.len() > 1, "one patch is always alone");
        let shape = net.x.shape();
        let x = net.x.items()[1].to_f64();
        for patch in [&patches[0], &patches[patches.len() / 2], &patches[patches.len() - 1]] {
            let number = (0..alone.decoys()).find(|&d| alone.mask(1, d).0[0] == *patch).unwrap();
            let one = alone.make(&mut engine, &[(1, number)]).unwrap().remove(0);
            let (mut worst, mut size) = (0.0f64, 0.0f64);
            for c in 0..shape.c {
                for (y, column) in patch[0].clone().flat_map(|y| patch[1].clone().map(move |x| (y, x))) {
                    let i = (c * shape.h + y) * shape.w + column;
                    worst = worst.max((together.picture.at(i) - one.picture.at(i)).abs());
                    size = size.max((one.picture.at(i) - x[i]).abs());
                }
            }
            assert!(size > 0.0, "the patch did not move");
            assert!(worst <= 1e-3 * size.max(1e-3), "{worst} of {size}");
        }
    }
}

/// The two solvers are one method: where both apply they give the same decoys, up to the rounding of sums.
#[test]
fn programs_and_patches_solve_the_same_problem() {
    // The same net with a layer before the first that changes nothing, so that its first ReLU is no stem.
    let values: Vec<f32> = (0..5 * 27).map(|i| ((i * 31 % 17) as f32 - 8.0) / 16.0).collect();
    let net = |shift: bool| {
        let mut b = GraphBuilder::new(Shape::new(3, 13, 11));
        let mut at = b.input();
        if shift {
            at = b.push("same", Op::Subsample { stride: [1, 1] }, &[at]).unwrap();
        }
        let weight = Weight::owned([5, 3, 3, 3], &values).unwrap();
        let bias = Some(Arc::from([0.1, -0.2, 0.3, 0.0, -0.4]));
        at =
            b.push("conv", Op::Conv(Conv { weight, bias, window: Window::square(3, 1, 1), groups: 1 }), &[at]).unwrap();
        let relu = b.push("relu", Op::Relu, &[at]).unwrap();
        let flat = b.push("flatten", Op::Flatten, &[relu]).unwrap();
        (b.finish(flat).unwrap(), relu)
    };
    let x: Vec<f32> = (0..3 * 13 * 11).map(|i| ((i * 37 % 41) as f32 - 20.0) / 12.0).collect();
    let x = Batch::new(&Tensor::f32([1, 3, 13, 11], x).unwrap()).unwrap();
    let range = || [vec![-2.0; 3], vec![2.0; 3]];
    let settings = Settings { precision: Precision::F64, ..Settings::default() };
    let decoys = [false, true].map(|shift| {
        let (graph, relu) = net(shift);
        let mut engine = Engine::new(&settings).unwrap();
        let generator = Generator::new(&mut engine, &graph, &x, range(), recipe(relu)).unwrap();
        assert_eq!(generator.decoys(), 8);
        generator.make(&mut engine, &[(0, 0), (0, 1), (0, 5), (0, 7)]).unwrap()
    });
    let mut moved = 0.0f64;
    for (a, b) in decoys[0].iter().zip(&decoys[1]) {
        assert_eq!(a.patches, b.patches);
        for ((a, b), x) in a.picture.to_f64().iter().zip(b.picture.to_f64().iter()).zip(x.items()[0].to_f64().iter()) {
            assert!((a - b).abs() <= 1e-6, "{a} by patches, {b} by programs");
            moved = moved.max((a - x).abs());
        }
    }
    assert!(moved > 0.01, "{moved}");
}

#[test]
fn decoys_are_counted_by_the_first_layer() {
    let mut engine = Engine::new(&Settings::default()).unwrap();
    for (name, decoys, size) in [("vgg16", 8, 224), ("resnet18", 18, 224), ("resnet18", 18, 64)] {
        let model = Model::random(name, 0).unwrap();
        let shape = Shape::new(3, size, size);
        let graph = model.graph(shape).unwrap();
        let x = Batch::of(vec![Tensor::f32(shape.dims(), vec![0.25; shape.len()]).unwrap()]).unwrap();
        let node = first_activation(&graph).unwrap();
        let range = [model.preprocess().black(), model.preprocess().white()];
        let generator = Generator::new(&mut engine, &graph, &x, range.clone(), recipe(node)).unwrap();
        assert_eq!(generator.decoys(), decoys, "{name}");
        // Every pixel is in one patch of each direction, and patches of one decoy are seen by different outputs.
        let footprint = Footprint::of(&graph, node).unwrap();
        let mut covered = vec![0; shape.plane()];
        for decoy in 0..decoys {
            let (patches, _) = generator.mask(0, decoy);
            for axis in [0, 1] {
                let mut spans: Vec<_> = patches.iter().map(|p| (p[axis].start, p[axis].end)).collect();
                spans.sort_unstable();
                spans.dedup();
                let seen = spans.iter().map(|&(first, end)| footprint.positions(axis, first, end));
                let seen: Vec<_> = seen.collect();
                assert!(seen.windows(2).all(|w| w[0].last() < w[1].first()), "{name}: footprints meet");
            }
            for [rows, columns] in patches {
                rows.for_each(|y| columns.clone().for_each(|x| covered[y * size + x] += 1));
            }
        }
        assert!(covered.iter().all(|&n| n == 2), "{name}");
        let all = Recipe { masks: DecoyMasks::Patch(None), ..recipe(node) };
        let all = Generator::new(&mut engine, &graph, &x, range, all).unwrap();
        assert_eq!(all.decoys(), 2 * size.div_ceil(3).pow(2));
    }
}

/// Without a ReLU all decoys have one gradient.
#[test]
fn a_linear_net_has_no_range() {
    let values: Vec<f32> = (0..4 * 27).map(|i| ((i * 29 % 23) as f32 - 11.0) / 16.0).collect();
    let mut b = GraphBuilder::new(Shape::new(3, 12, 12));
    let conv = Conv {
        weight: Weight::owned([4, 3, 3, 3], &values).unwrap(),
        bias: None,
        window: Window::square(3, 1, 1),
        groups: 1,
    };
    let conv = b.push("conv", Op::Conv(conv), &[b.input()]).unwrap();
    let pool = b.push("pool", Op::AdaptiveAvgPool { out: [2, 2] }, &[conv]).unwrap();
    let flat = b.push("flatten", Op::Flatten, &[pool]).unwrap();
    let weight = Weight::owned([3, 16, 1, 1], &values[..48]).unwrap();
    let fc = b.push("fc", Op::Linear(Linear { weight, bias: None }), &[flat]).unwrap();
    let graph = b.finish(fc).unwrap();
    let x: Vec<f32> = (0..3 * 144).map(|i| ((i * 37 % 41) as f32 - 20.0) / 12.0).collect();
    let x = Batch::new(&Tensor::f32([1, 3, 12, 12], x).unwrap()).unwrap();
    let preprocess = Net::small("vgg").preprocess;
    let mut engine = Engine::new(&Settings::default()).unwrap();
    let explain = |engine: &mut Engine, spec: &str| {
        build(spec, Score::Logit, 0, &preprocess).unwrap().explain(engine, &graph, &x, &[1]).map(|mut m| m.remove(0))
    };
    let flat = explain(&mut engine, "decoy:layer=conv").unwrap();
    assert!(flat.values.to_f64().iter().all(|&v| v == 0.0));
    // The input counts again where the map does: the decoys did move.
    let moved = explain(&mut engine, "decoy:layer=conv,base=input_x_gradient").unwrap();
    assert!(moved.values.to_f64().iter().all(|&v| v >= 0.0) && moved.values.to_f64().iter().any(|&v| v > 0.0));
    let error = explain(&mut engine, "decoy").unwrap_err();
    assert!(error.to_string().contains("no activation follows a convolution"), "{error}");
}

#[test]
fn arms_and_wrappers() {
    let net = Net::small("resnet_basic");
    let mut engine = Engine::new(&Settings { threads: Some(2), ..Settings::default() }).unwrap();
    let mut maps =
        |spec: &str| net.explain(&mut engine, spec, Score::Logit, 3).unwrap_or_else(|e| panic!("{spec}: {e}"));
    let plain = maps("gradient");
    let none = maps("decoy:arm=none");
    assert!(plain.iter().zip(&none).all(|(a, b)| a.values == b.values && b.method == "decoy"));
    for arm in ["decoys", "constant", "noise"] {
        for map in maps(&format!("decoy:arm={arm}")) {
            assert!(map.sign == Sign::Unsigned && map.values.to_f64().iter().all(|&v| v >= 0.0), "{arm}");
            assert!(map.values.to_f64().iter().any(|&v| v > 0.0), "{arm}");
            assert_eq!(map.gap.is_some(), arm == "decoys");
            assert_eq!(map.gap.map_or(0.0, |g| g.value), 0.0);
        }
    }
    let mean = maps("decoy:arm=mean");
    let notes = &mean[0].notes;
    assert!(
        mean[0].sign == Sign::Signed
            && notes.iter().map(|n| n.0.as_str()).eq(["copies", "shrunk_patches_share", "mean_move_share"])
    );
    assert_eq!(notes[0].1, 18.0, "a 7×7 first layer");
    assert!(notes[1].1 >= 0.0 && notes[1].1 <= 1.0 && notes[2].1 > 0.0 && notes[2].1 < 1.0, "{notes:?}");
    // A wrapped method is the method on each copy.
    let near = |a: &Map, b: &Map| {
        let largest = b.values.to_f64().iter().fold(0.0f64, |m, v| m.max(v.abs()));
        a.values.to_f64().iter().zip(b.values.to_f64().iter()).all(|(a, b)| (a - b).abs() <= 1e-5 * largest)
            && largest > 0.0
    };
    let (a, b) = (maps("smooth:base=gradient,n=9,sigma=0.1"), maps("smoothgrad:n=9,sigma=0.1"));
    assert!(a.iter().zip(&b).all(|(a, b)| near(a, b)), "smooth:base=gradient is smoothgrad");
    assert!(a[0].sign == Sign::Signed);
    for spec in [
        "decoy:base=(smoothgrad:n=3),patch=4",
        "smooth:base=(decoy:arm=noise),n=2",
        "decoy:base=(grad_cam:layer=layer1)",
        "decoy:masks=patch,n=3,arm=noise",
        "smooth:base=grad_cam,n=3",
    ] {
        let maps = maps(spec);
        let promised = Spec::parse(spec).unwrap().promises().contains(&Promise::NotNegative);
        assert_eq!(maps[0].sign == Sign::Unsigned, promised, "{spec}");
    }
}

#[test]
fn wrappers_tell_how_far_they_are() {
    let net = Net::small("vgg");
    for (spec, total) in [("decoy", 2 * 8 * net.x.len()), ("smooth:n=20", 20 * net.x.len())] {
        let (send, heard) = std::sync::mpsc::channel();
        let mut engine = Engine::new(&Settings::default()).unwrap();
        engine.observe(Box::new(move |p| send.send((p.method.to_string(), p.done, p.total)).unwrap()));
        net.explain(&mut engine, spec, Score::Logit, 0).unwrap();
        drop(engine);
        let heard: Vec<_> = heard.iter().collect();
        assert!(heard.iter().all(|h| spec.starts_with(&h.0) && h.2 == total), "{heard:?}");
        assert!(heard.windows(2).all(|w| w[0].1 < w[1].1), "{heard:?}");
        assert_eq!((heard[0].1, heard[heard.len() - 1].1), (0, total));
    }
}

#[test]
fn nested_methods_are_read_and_refused() {
    let spec = Spec::parse("dance:base=(smoothgrad:n=8),patch=5").unwrap();
    assert_eq!(spec.values().text("base").unwrap(), "smoothgrad:n=8,sigma=0.15");
    assert_eq!(spec.values().text("patch").unwrap(), "5");
    assert_eq!(Spec::parse(&spec.to_string()).unwrap().to_string(), spec.to_string());
    let twice = Spec::parse("smooth:base=(decoy:base=(ig:steps=3,baseline=(value:-2)),n=all)").unwrap();
    assert_eq!(Spec::parse(&twice.to_string()).unwrap().to_string(), twice.to_string());
    assert!(twice.to_string().contains("value:-2"));
    let draws = |spec: &str| Spec::parse(spec).unwrap().draws();
    assert!(!draws("decoy") && draws("decoy:base=smoothgrad") && draws("decoy:arm=noise"));
    assert!(draws("decoy:masks=patch,n=2") && !draws("decoy:masks=patch") && !draws("decoy:masks=patch,n=2,arm=none"));
    assert!(draws("smooth") && draws("decoy:base=(decoy:base=vargrad)"));
    let net = Net::small("vgg");
    let mut engine = Engine::new(&Settings::default()).unwrap();
    let deep = (0..4000).fold("gradient".to_string(), |inner, _| format!("smooth:base=({inner})"));
    for (spec, part) in [
        ("decoy:base=smoothgard", "smoothgrad"),
        ("decoy:base=(smoothgrad:sigm=1)", "sigma"),
        ("smooth:base=(decoy:base=(ig:rule=simpson))", "simpson"),
        ("decoy:base=(smoothgrad:n=1", "not closed"),
        (deep.as_str(), "nest"),
        ("decoy:base=(grad_cam:upsample=none)", "grad_cam gives maps of"),
        ("smooth:base=(grad_cam:upsample=none)", "grad_cam gives maps of"),
        ("decoy:base=(grad_cam:layer=nowhere)", "no layer is named 'nowhere'"),
        ("decoy:layer=nowhere", "no layer is named 'nowhere'"),
        ("decoy:masks=rings", "masks=rings"),
        ("decoy:arm=leg", "arm=leg"),
        ("decoy:n=4", "masks=patch"),
        ("decoy:masks=patch,n=0", "n=0"),
        ("decoy:masks=patch,n=4000", "n=4000"),
        ("decoy:patch=0", "patch=0"),
        ("decoy:stride=0", "stride=0"),
        ("decoy:epsilon=-1", "epsilon=-1"),
        ("decoy:epsilon=NaN", "epsilon=NaN"),
        ("decoy:lr=0", "lr=0"),
        ("decoy:iterations=-1", "iterations=-1"),
        ("smooth:n=0", "n=0"),
    ] {
        let made = net.explain(&mut engine, spec, Score::Logit, 0);
        let error = made.expect_err(&spec[..spec.len().min(80)]).to_string();
        assert!(error.contains(part), "{}: {}", &spec[..spec.len().min(80)], &error[error.len().saturating_sub(300)..]);
    }
}

#[test]
fn wrapped_maps_depend_on_the_seed_only_where_they_say_so() {
    let net = Net::small("vgg");
    for spec in [
        "decoy",
        "decoy:arm=noise",
        "decoy:masks=patch,n=2",
        "decoy:base=(smoothgrad:n=2)",
        "decoy:layer=stage1,iterations=2",
    ] {
        let maps = |threads: usize, memory: Option<u64>, seed: u64| -> Vec<Vec<u64>> {
            let mut engine = Engine::new(&Settings { threads: Some(threads), memory, ..Settings::default() }).unwrap();
            net.explain(&mut engine, spec, Score::Logit, seed).unwrap().iter().map(bits).collect()
        };
        let reference = maps(1, None, 1);
        assert!(reference == maps(3, Some(3 << 20), 1), "{spec}");
        assert_eq!(reference != maps(2, None, 2), Spec::parse(spec).unwrap().draws(), "{spec}");
        let mut engine = Engine::new(&Settings::default()).unwrap();
        let method = build(spec, Score::Logit, 1, &net.preprocess).unwrap();
        for (i, item) in net.x.items().iter().enumerate() {
            let alone = Batch::of(vec![item.clone()]).unwrap();
            let maps = method.explain(&mut engine, &net.graph, &alone, &net.targets[i..=i]).unwrap();
            assert!(bits(&maps[0]) == reference[i], "{spec}, picture {i} alone");
        }
    }
}

/// `count` pictures of the CIFAR-10 test set, prepared.
fn cifar(model: &Model, count: usize) -> Batch {
    let bytes = std::fs::read(Path::new(DATA.unwrap()).join("cifar10-test-1000.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let (_, images) = file.tensors().into_iter().find(|(_, t)| t.shape().len() == 4).unwrap();
    let size = 3 * 32 * 32;
    let picture = |i: usize| model.preprocess().from_u8(&images.data()[i * size..][..size], 32, 32).unwrap().tensor;
    Batch::of((0..count).map(picture).collect()).unwrap()
}

/// On trained weights decoys keep to the layer's output as they promise, and their range lowers S_F: surely for SmoothGrad; for
/// the gradient the interval holds 0, so that only "not surely higher" is asked.
#[needs::shared_data]
#[test]
fn ranges_over_decoys_are_more_faithful_than_their_base() {
    let model = Model::open(&Path::new(DATA.unwrap()).join("cifar10-resnet20.safetensors"), None).unwrap();
    let x = cifar(&model, 200);
    let graph = model.graph(x.shape()).unwrap();
    let mut engine = Engine::new(&Settings::default()).unwrap();
    let logits = engine.forward(&graph, &x).unwrap();
    let top = |i: usize| {
        let row = logits.item(i).unwrap();
        (0..row.len()).max_by(|&a, &b| row.at(a).total_cmp(&row.at(b))).unwrap()
    };
    let targets: Vec<usize> = (0..x.len()).map(top).collect();
    let mut difference = |base: &str| {
        let mut scores = |spec: &str| {
            let method = build(spec, Score::Logit, 0, model.preprocess()).unwrap();
            let maps = method.explain(&mut engine, &graph, &x, &targets).unwrap();
            for gap in maps.iter().filter_map(|m| m.gap.as_ref()).filter(|gap| gap.promise == "constraint") {
                assert_eq!(gap.value, 0.0, "{spec}: a decoy moves the layer's output by more than it may");
            }
            let scores = fidelity(&mut engine, &graph, &x, &maps).unwrap();
            scores.into_iter().map(Some).collect::<Vec<_>>()
        };
        let (range, plain) = (scores(&format!("decoy:base=({base})")), scores(base));
        let estimate = Bootstrap::new(0).difference(&range, &plain).unwrap().unwrap();
        println!("S_F of decoy:base=({base}) less that of {base}: {estimate:?}");
        estimate
    };
    let gradient = difference("gradient");
    assert!(gradient.low.unwrap() < 0.0, "{gradient:?}");
    let smoothgrad = difference("smoothgrad:n=8");
    assert!(smoothgrad.high.unwrap() < 0.0, "{smoothgrad:?}");
}
