//! Attacks keep to their ball and to what pictures can hold, do what they promise, and depend on nothing but their settings.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

mod nets;

use nets::Net;
use verilume::engine::{Batch, Engine, Settings};
use verilume::graph::{Conv, Graph, GraphBuilder, Linear, NodeId, Op, Smooth, Weight};
use verilume::image::Preprocess;
use verilume::perturb::baseline::Baseline;
use verilume::reliability::attack::{
    self, Adversarial, Base, Goal, Magnitude, MapAttack, MapTarget, Objective, Pgd, PictureLength, PixelRegion,
    StartPoint, Stop,
};
use verilume::reliability::metric::Bounds;
use verilume::tensor::{Precision, Shape, Tensor, Window};

fn engine(precision: Precision, threads: usize) -> Engine {
    Engine::new(&Settings { precision, threads: Some(threads), ..Settings::default() }).unwrap()
}

/// The classes that the net predicts.
fn predicted(net: &Net, engine: &mut Engine) -> Vec<usize> {
    predicted_on(net, engine, &net.x)
}

fn predicted_on(net: &Net, engine: &mut Engine, x: &Batch) -> Vec<usize> {
    let logits = engine.forward(&net.graph, x).unwrap();
    let best = |i: usize| {
        let row = logits.item(i).unwrap().to_f64().into_owned();
        (0..row.len()).fold(0, |best, k| if row[k] > row[best] { k } else { best })
    };
    (0..x.len()).map(best).collect()
}

/// The net's pictures, moved into the range of what pictures hold, in the given precision.
fn pictures(net: &Net, precision: Precision) -> Batch {
    let (black, white) = (net.preprocess.black(), net.preprocess.white());
    let inside = |t: &Tensor| {
        let plane = t.len() / black.len();
        let values = t.to_f64().iter().enumerate().map(|(i, v)| v.clamp(black[i / plane], white[i / plane])).collect();
        Tensor::rounded(t.dims(), values, precision).unwrap()
    };
    Batch::of(net.x.items().iter().map(inside).collect()).unwrap()
}

/// Every number within ε of the original's and within its channel's range, exactly.
fn assert_inside(net: &Net, x: &Batch, found: &[Adversarial], epsilon: PictureLength) {
    let (black, white, each) = (net.preprocess.black(), net.preprocess.white(), epsilon.normalised(&net.preprocess));
    assert_eq!(found.len(), x.len());
    for (original, found) in x.items().iter().zip(found) {
        assert_eq!((found.picture.dims(), found.picture.precision()), (original.dims(), original.precision()));
        let plane = original.len() / black.len();
        let mut most: f64 = 0.0;
        for i in 0..original.len() {
            let (x, v, c) = (original.at(i), found.picture.at(i), i / plane);
            assert!((v - x).abs() <= each[c], "{} > {}", (v - x).abs(), each[c]);
            assert!(black[c] <= v && v <= white[c], "{v} outside");
            most = most.max((v - x).abs());
        }
        assert_eq!(most, found.linf);
    }
}

fn bits(t: &Tensor) -> Vec<u64> {
    t.to_f64().iter().map(|v| v.to_bits()).collect()
}

#[test]
fn attacks_on_predictions_stay_inside_and_flip() {
    for name in ["resnet_basic", "vgg_bn"] {
        let net = Net::small(name);
        for precision in [Precision::F32, Precision::F64] {
            let mut engine = engine(precision, 2);
            let x = pictures(&net, precision);
            let classes = predicted_on(&net, &mut engine, &x);
            let goal = Goal::Untargeted(&classes);
            let (graph, p) = (&net.graph, &net.preprocess);
            for epsilon in [PictureLength::Levels(8.0), PictureLength::Normalised(0.07)] {
                let found = attack::fgsm(&mut engine, graph, p, &x, goal, epsilon).unwrap();
                assert_inside(&net, &x, &found, epsilon);
                assert!(found.iter().all(|f| f.iterations == 1 && f.linf > 0.0));
                let settings = Pgd { epsilon, iterations: 5, ..Pgd::default() };
                let found = attack::pgd(&mut engine, graph, p, &x, goal, &settings).unwrap();
                assert_inside(&net, &x, &found, epsilon);
                for (f, &class) in found.iter().zip(&classes) {
                    assert_eq!(f.predicted()[0], class);
                    assert_eq!(f.succeeded, f.predicted()[1] != class);
                    assert!(f.objective[1] > f.objective[0], "{name}: {:?}", f.objective);
                }
            }
            // With room enough every picture flips, and to any class that is wanted.
            let wide = Pgd {
                epsilon: PictureLength::Levels(64.0),
                step: PictureLength::Levels(8.0),
                iterations: 60,
                ..Pgd::default()
            };
            let found = attack::pgd(&mut engine, graph, p, &x, goal, &wide).unwrap();
            assert!(found.iter().all(|f| f.succeeded), "{name} {precision}");
            assert_inside(&net, &x, &found, wide.epsilon);
            let wanted: Vec<usize> = classes.iter().map(|c| (c + 1) % graph.classes()).collect();
            let found = attack::pgd(&mut engine, graph, p, &x, Goal::Targeted(&wanted), &wide).unwrap();
            for (f, &class) in found.iter().zip(&wanted) {
                assert_eq!(f.succeeded, f.predicted()[1] == class);
                assert!(f.objective[1] > f.objective[0]);
            }
            let first = Pgd { stop: Stop::Reached, start: StartPoint::Picture, ..wide };
            let sooner = attack::pgd(&mut engine, graph, p, &x, goal, &first).unwrap();
            assert!(sooner.iter().all(|f| f.succeeded && f.iterations < 60), "{name} {precision}");
        }
    }
}

#[test]
fn results_depend_on_neither_batch_nor_threads() {
    let net = Net::small("resnet_basic");
    let mut one = engine(Precision::F32, 1);
    let classes = predicted(&net, &mut one);
    let settings = Pgd { iterations: 4, ..Pgd::default() };
    let (graph, p) = (&net.graph, &net.preprocess);
    let alone: Vec<Vec<u64>> = (0..net.x.len())
        .map(|i| {
            let x = Batch::of(vec![net.x.items()[i].clone()]).unwrap();
            let goal = Goal::Untargeted(&classes[i..=i]);
            bits(&attack::pgd(&mut one, graph, p, &x, goal, &settings).unwrap()[0].picture)
        })
        .collect();
    for threads in [1, 2, 3] {
        let found =
            attack::pgd(&mut engine(Precision::F32, threads), graph, p, &net.x, Goal::Untargeted(&classes), &settings);
        let together: Vec<Vec<u64>> = found.unwrap().iter().map(|f| bits(&f.picture)).collect();
        assert!(together == alone, "{threads} threads");
    }
    let other = Pgd { seed: 1, ..settings };
    let found = attack::pgd(&mut one, graph, p, &net.x, Goal::Untargeted(&classes), &other).unwrap();
    assert!(bits(&found[0].picture) != alone[0], "the seed counts");
}

#[test]
fn settings_without_meaning_are_errors() {
    let net = Net::small("vgg");
    let mut engine = engine(Precision::F32, 1);
    let classes = predicted(&net, &mut engine);
    let good = Pgd { iterations: 1, ..Pgd::default() };
    for bad in [
        Pgd { epsilon: PictureLength::Levels(0.0), ..good },
        Pgd { epsilon: PictureLength::Normalised(f64::NAN), ..good },
        Pgd { epsilon: PictureLength::Normalised(-1.0), ..good },
        Pgd { step: PictureLength::Normalised(f64::INFINITY), ..good },
        Pgd { iterations: 0, ..good },
    ] {
        let made = attack::pgd(&mut engine, &net.graph, &net.preprocess, &net.x, Goal::Untargeted(&classes), &bad);
        assert_eq!(made.unwrap_err().kind(), verilume::ErrorKind::Settings);
    }
    let few = &classes[1..];
    assert!(attack::pgd(&mut engine, &net.graph, &net.preprocess, &net.x, Goal::Untargeted(few), &good).is_err());
    let none = vec![net.graph.classes(); net.x.len()];
    assert!(attack::pgd(&mut engine, &net.graph, &net.preprocess, &net.x, Goal::Targeted(&none), &good).is_err());
}

/// Every objective, for inputs of `[h, w]` pixels; `manipulate` towards a map with its mass in one corner.
fn objectives([h, w]: [usize; 2]) -> [Objective; 4] {
    let bounds = Bounds { top: 1, left: 2, height: h / 2, width: w / 3 };
    let corner = (0..h * w).map(|i| if i / w < h / 3 && i % w < w / 3 { 1.0 } else { 0.1 }).collect();
    [
        Objective::TopK { k: Some(h * w / 10) },
        Objective::MassCentre,
        Objective::TargetRegion(PixelRegion::Bounds(bounds)),
        Objective::Manipulate { target: MapTarget::Map(Tensor::f64([h, w], corner).unwrap()), logits: 1.0 },
    ]
}

/// A net without pools that choose: a convolution, a residual block with batch norm folded away, a clamp, two layers more.
/// `activations` are ReLU, a ReLU6 and ReLU, or others in their places.
fn smooth_net(activations: [Op; 3]) -> (Graph, Preprocess) {
    let mut seed = 1u64;
    let mut weight = |dims: [usize; 4]| {
        let fan: usize = dims[1..].iter().product();
        let values: Vec<f32> = (0..dims.iter().product())
            .map(|_| {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                ((seed >> 40) as f32 / 16_777_216.0 - 0.5) * (6.0 / fan as f32).sqrt()
            })
            .collect();
        Weight::owned(dims, &values).unwrap()
    };
    let mut conv = |k, c, stride| {
        let window = Window::square(3, stride, 1);
        Op::Conv(Conv { weight: weight([k, c, 3, 3]), bias: Some(vec![0.05; k].into()), window, groups: 1 })
    };
    let (first, inner, last) = (conv(8, 3, 2), conv(8, 8, 1), conv(6, 8, 2));
    let linear = Op::Linear(Linear { weight: weight([5, 6, 1, 1]), bias: None });
    let mut b = GraphBuilder::new(Shape::new(3, 16, 20));
    let input = b.input();
    let mut push = |name: &str, op: Op, inputs: &[NodeId]| b.push(name, op, inputs).unwrap();
    let [early, middle, late] = activations;
    let x = push("first", first, &[input]);
    let stem = push("stem", early, &[x]);
    let x = push("inner", inner, &[stem]);
    let x = push("sum", Op::Add, &[x, stem]);
    let x = push("clamp", middle, &[x]);
    let x = push("last", last, &[x]);
    let x = push("relu", late, &[x]);
    let x = push("mean", Op::AdaptiveAvgPool { out: [1, 1] }, &[x]);
    let x = push("flat", Op::Flatten, &[x]);
    let x = push("logits", linear, &[x]);
    let preprocess = Net::small("vgg").preprocess;
    (b.finish(x).unwrap(), preprocess)
}

/// The objective's gradient, made of a central difference of gradients, against differences of the objective itself.
#[test]
fn second_order_gradients_are_those_of_the_objective() {
    let hard = [Op::Relu, Op::Clamp { lo: 0.0, hi: 6.0 }, Op::Relu];
    let smooth = [Smooth::HardSwish, Smooth::HardSigmoid, Smooth::LeakyRelu { slope: 0.1 }].map(Op::Smooth);
    let others = [
        Op::PRelu((0..8).map(|i| 0.2 - 0.1 * f64::from(i)).collect()),
        Op::Smooth(Smooth::Elu { alpha: 0.5 }),
        Op::Relu,
    ];
    for activations in [hard, smooth, others] {
        second_order_gradients(activations);
    }
}

fn second_order_gradients(activations: [Op; 3]) {
    let bases = [
        (Base::Gradient, Magnitude::Sum),
        (Base::Gradient, Magnitude::Max),
        (Base::InputXGradient, Magnitude::Sum),
        (Base::IntegratedGradients { steps: 3, baseline: Baseline::Value(0.2) }, Magnitude::Sum),
    ];
    let (graph, preprocess) = smooth_net(activations);
    let mut engine = engine(Precision::F64, 2);
    let shape = graph.input_shape();
    let picture = (0..shape.len()).map(|i| (0.7 * i as f64).sin() + 0.5 * (0.013 * (i * i) as f64).cos()).collect();
    let x = Batch::of(vec![Tensor::f64(shape.dims(), picture).unwrap()]).unwrap();
    let point = x.items()[0].clone().map(|v| v + 0.05 * (7.0 * v).sin());
    let mut worst: f64 = 0.0;
    for objective in objectives([shape.h, shape.w]) {
        for (base, magnitude) in bases.clone() {
            let attack = MapAttack { base, magnitude, beta: 5.0, ..MapAttack::new(objective.clone()) };
            let mut at = |point: Tensor| {
                attack.objective(&mut engine, &graph, &preprocess, (&x, &[2]), &[point]).unwrap().remove(0)
            };
            let gradient = at(point.clone()).gradient;
            let largest = gradient.iter().fold(0.0f64, |m, v| m.max(v.abs()));
            assert!(largest > 0.0, "{attack:?}");
            // Along the gradient, and along single elements.
            let mut ways: Vec<Vec<f64>> = vec![gradient.iter().map(|g| g / largest).collect()];
            for k in [0, shape.len() / 3, shape.len() - 1] {
                ways.push((0..shape.len()).map(|i| if i == k { 1.0 } else { 0.0 }).collect());
            }
            for way in ways {
                let t = 1e-6;
                let mut moved = |sign: f64| {
                    let values = (0..shape.len()).map(|i| point.at(i) + sign * t * way[i]).collect();
                    at(Tensor::f64(point.dims(), values).unwrap()).objective
                };
                let naive = (moved(1.0) - moved(-1.0)) / (2.0 * t);
                let made: f64 = gradient.iter().zip(&way).map(|(g, d)| g * d).sum();
                let miss = (naive - made).abs() / (largest * way.iter().map(|d| d * d).sum::<f64>());
                worst = worst.max(miss);
                let what = (attack.objective.name(), &attack.base, magnitude);
                assert!(miss <= 1e-5, "{what:?}: {naive} {made}, {miss:e} of the largest element");
            }
        }
    }
    println!("largest miss {worst:e}");
}

/// Share of the `k` pixels with the largest summed magnitude of the gradient that two pictures have in common.
fn intersection(net: &Net, engine: &mut Engine, classes: &[usize], [a, b]: [&Batch; 2], k: usize) -> Vec<f64> {
    let mut tops = |x: &Batch| -> Vec<Vec<usize>> {
        let job = verilume::engine::Job::gradient(verilume::program::Score::Logit);
        let maps = engine.explain(&net.graph, &job, x, classes).unwrap().maps;
        let plane = x.shape().plane();
        let top = |map: &Tensor| {
            let mass: Vec<f64> =
                (0..plane).map(|i| (0..x.shape().c).map(|c| map.at(c * plane + i).abs()).sum()).collect();
            let mut order: Vec<usize> = (0..plane).collect();
            order.sort_by(|&i, &j| mass[j].total_cmp(&mass[i]));
            order.truncate(k);
            order
        };
        maps.iter().map(top).collect()
    };
    let (a, b) = (tops(a), tops(b));
    let share = |(a, b): (&Vec<usize>, &Vec<usize>)| a.iter().filter(|i| b.contains(i)).count() as f64 / k as f64;
    a.iter().zip(&b).map(share).collect()
}

#[test]
fn attacks_on_maps_keep_the_prediction_and_move_the_map() {
    for name in ["resnet_basic", "vgg_bn"] {
        let net = Net::small(name);
        for precision in [Precision::F32, Precision::F64] {
            let mut engine = engine(precision, 2);
            let x = pictures(&net, precision);
            let classes = predicted_on(&net, &mut engine, &x);
            let shape = x.shape();
            for objective in objectives([shape.h, shape.w]) {
                let attack = MapAttack { iterations: 15, ..MapAttack::new(objective) };
                let found = attack.attack(&mut engine, &net.graph, &net.preprocess, &x, &classes).unwrap();
                assert_inside(&net, &x, &found, attack.epsilon);
                let kept = Batch::of(found.iter().map(|f| f.picture.clone()).collect()).unwrap();
                assert_eq!(predicted_on(&net, &mut engine, &kept), classes);
                for f in &found {
                    assert_eq!(f.succeeded, f.iterations > 0);
                    assert!(f.succeeded, "{name} {}: {:?}", attack.objective.name(), f.objective);
                }
                let Objective::TopK { k: Some(k) } = attack.objective else { continue };
                // A random step of full length to either side, in every element.
                let radius = attack.epsilon.normalised(&net.preprocess);
                let noisy = x.items().iter().zip(x.keys()).map(|(picture, key)| {
                    let mut draws = vec![0f32; picture.len()];
                    verilume::random::fill_uniforms(7, key, 0, 0, &mut draws);
                    let ball = attack::Ball::around(picture, attack.epsilon, &net.preprocess).unwrap();
                    let side = |u: f32| if u > 0.5 { 1.0 } else { -1.0 };
                    let mut values: Vec<f64> = (0..picture.len())
                        .map(|i| picture.at(i) + side(draws[i]) * radius[i / shape.plane()])
                        .collect();
                    ball.project(&mut values);
                    ball.tensor(&values).unwrap()
                });
                let noisy = Batch::of(noisy.collect()).unwrap();
                let attacked = intersection(&net, &mut engine, &classes, [&x, &kept], k);
                let random = intersection(&net, &mut engine, &classes, [&x, &noisy], k);
                println!("{name} {precision}: {attacked:.2?} after the attack, {random:.2?} after noise");
                for (a, r) in attacked.iter().zip(&random) {
                    assert!(a < r, "{name}: {a} {r}");
                }
            }
        }
    }
}

#[test]
fn attacks_on_maps_depend_on_neither_batch_nor_threads() {
    let net = Net::small("resnet_basic");
    let shape = net.x.shape();
    for objective in objectives([shape.h, shape.w]) {
        let attack = MapAttack { iterations: 3, start: StartPoint::Random, ..MapAttack::new(objective) };
        let run = |engine: &mut Engine, x: &Batch, classes: &[usize]| -> Vec<Vec<u64>> {
            let found = attack.attack(engine, &net.graph, &net.preprocess, x, classes).unwrap();
            found.iter().map(|f| bits(&f.picture)).collect()
        };
        let mut one = engine(Precision::F32, 1);
        let classes = predicted(&net, &mut one);
        let alone: Vec<Vec<u64>> = (0..net.x.len())
            .flat_map(|i| run(&mut one, &Batch::of(vec![net.x.items()[i].clone()]).unwrap(), &classes[i..=i]))
            .collect();
        for threads in [1, 3] {
            assert!(run(&mut engine(Precision::F32, threads), &net.x, &classes) == alone, "{threads} threads");
        }
    }
}

#[test]
fn objectives_without_meaning_are_errors() {
    let net = Net::small("vgg");
    let mut engine = engine(Precision::F32, 1);
    let shape = net.x.shape();
    let [h, w] = [shape.h, shape.w];
    let bounds =
        |top, left, height, width| Objective::TargetRegion(PixelRegion::Bounds(Bounds { top, left, height, width }));
    let plane = |h: usize, w: usize, v: f64| Tensor::f64([h, w], vec![v; h * w]).unwrap();
    let towards = |map, logits| Objective::Manipulate { target: MapTarget::Map(map), logits };
    let mut message = |attack: &MapAttack| {
        let made = attack.attack(&mut engine, &net.graph, &net.preprocess, &net.x, &net.targets);
        let error = made.map(|_| ()).unwrap_err();
        // What the picture's shape decides is that picture's error.
        assert!(matches!(error.kind(), verilume::ErrorKind::Settings | verilume::ErrorKind::Shape), "{error}");
        error.to_string()
    };
    for (objective, hint) in [
        (Objective::TopK { k: Some(0) }, "pixels"),
        (Objective::TopK { k: Some(h * w) }, "pixels"),
        (bounds(0, 0, h + 1, 1), "outside"),
        (bounds(usize::MAX, 0, 2, 1), "outside"),
        (bounds(0, 0, 0, 3), "without pixels"),
        (bounds(0, 0, h, w), "all pixels"),
        (Objective::TargetRegion(PixelRegion::Mask(plane(h, w + 1, 1.0))), "shape"),
        (towards(plane(h + 1, w, 1.0), 0.0), "shape"),
        (towards(plane(h, w, f64::NAN), 0.0), "finite"),
        (towards(plane(h, w, 1.0), -1.0), "weight"),
    ] {
        let found = message(&MapAttack { iterations: 1, ..MapAttack::new(objective) });
        assert!(found.contains(hint), "{found}");
    }
    let good = MapAttack { iterations: 1, ..MapAttack::new(Objective::MassCentre) };
    message(&MapAttack { beta: 0.0, ..good.clone() });
    message(&MapAttack { step: PictureLength::Normalised(0.0), ..good.clone() });
    message(&MapAttack { base: Base::IntegratedGradients { steps: 0, baseline: Baseline::Zero }, ..good.clone() });
    message(&MapAttack { base: Base::IntegratedGradients { steps: 2, baseline: Baseline::Mean }, ..good });
}
