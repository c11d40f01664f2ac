//! Graphs made from graphs: the net for shifted data and the net with rounded corners.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod nets;

use nets::{Net, SMALL};
use verilume::engine::{Batch, Engine, Job, Pullback, Settings};
use verilume::graph::{Affine, Graph, GraphBuilder, NodeId, Op, Smooth, SoftClamp};
use verilume::model::Model;
use verilume::program::Score;
use verilume::random;
use verilume::reliability::randomise::{layers, randomised};
use verilume::rule::Composite;
use verilume::tensor::{Precision, Shape, Tensor};

fn twin() -> Engine {
    Engine::new(&Settings { precision: Precision::F64, ..Settings::default() }).unwrap()
}

fn noise(shape: Shape, key: u64, size: f64) -> Tensor {
    let mut values = vec![0.0f32; shape.len()];
    random::fill_normals(7, key, 0, 0, &mut values);
    Tensor::f64(shape.dims(), values.iter().map(|&v| f64::from(v) * size).collect()).unwrap()
}

fn sum(a: &Tensor, b: &Tensor) -> Tensor {
    let values = a.to_f64().iter().zip(b.to_f64().iter()).map(|(a, b)| a + b).collect();
    Tensor::f64(a.dims(), values).unwrap()
}

fn pictures(net: &Graph) -> Vec<Tensor> {
    (0..2).map(|i| noise(net.input_shape(), i, 1.0)).collect()
}

/// Largest |f'(x + m) − f(x)| over largest |f(x)|.
fn difference(engine: &mut Engine, net: &Graph, pictures: &[Tensor], shift: &Tensor) -> f64 {
    let shifted = net.shifted(shift).unwrap();
    let before = engine.forward(net, &Batch::of(pictures.to_vec()).unwrap()).unwrap().to_f64().into_owned();
    let moved = pictures.iter().map(|x| sum(x, shift)).collect();
    let after = engine.forward(&shifted, &Batch::of(moved).unwrap()).unwrap().to_f64().into_owned();
    let most = before.iter().zip(&after).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    most / before.iter().fold(0.0, |m: f64, v| m.max(v.abs()))
}

#[test]
fn a_net_for_shifted_data_says_the_same() {
    let mut engine = twin();
    let mut nets: Vec<(String, Graph)> =
        SMALL.iter().map(|n| (n.to_string(), (*Net::small(n).graph).clone())).collect();
    // Batch norms that were not folded, 'same' padding with stride 2, and layers that see the picture as a vector.
    nets.push(("resnet20 unfolded".into(), Model::random("resnet20", 3).unwrap().unfolded().clone()));
    let lite = Model::random("efficientnet-lite0", 3).unwrap();
    nets.push(("lite0".into(), (*lite.graph(Shape::new(3, 64, 48)).unwrap()).clone()));
    let mlp = Model::random("mlp", 3).unwrap();
    nets.push(("mlp".into(), (*mlp.graph(mlp.default_input()).unwrap()).clone()));
    for (name, net) in &nets {
        let x = pictures(net);
        for shift in [
            Tensor::f64(net.input_shape().dims(), vec![-1.0; net.input_shape().len()]).unwrap(),
            noise(net.input_shape(), 9, 3.0),
        ] {
            let off = difference(&mut engine, net, &x, &shift);
            assert!(off <= 1e-10, "{name}: {off:e}");
        }
    }
}

/// The old biases on the new data would not do: the test above can fail.
#[test]
fn the_shift_is_felt_without_new_biases() {
    let mut engine = twin();
    let net = Net::small("vgg").graph;
    let x = pictures(&net);
    let shift = noise(net.input_shape(), 9, 3.0);
    let before = engine.forward(&net, &Batch::of(x.clone()).unwrap()).unwrap();
    let after = engine.forward(&net, &Batch::of(x.iter().map(|x| sum(x, &shift)).collect()).unwrap()).unwrap();
    let most = before.to_f64().iter().zip(after.to_f64().iter()).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    assert!(most > 1e-3);
}

#[test]
fn shifting_twice_is_shifting_by_the_sum() {
    let mut engine = twin();
    let net = Net::small("resnet_basic").graph;
    let (a, b) = (noise(net.input_shape(), 1, 1.0), noise(net.input_shape(), 2, 1.0));
    let x = pictures(&net);
    let twice = net.shifted(&a).unwrap().shifted(&b).unwrap();
    let once = net.shifted(&sum(&a, &b)).unwrap();
    let batch = Batch::of(x).unwrap();
    let (twice, once) = (engine.forward(&twice, &batch).unwrap(), engine.forward(&once, &batch).unwrap());
    for (a, b) in twice.to_f64().iter().zip(once.to_f64().iter()) {
        assert!((a - b).abs() <= 1e-11 * b.abs().max(1.0), "{a} {b}");
    }
}

#[test]
fn what_cannot_be_shifted_is_refused() {
    let net = Net::small("vgg").graph;
    assert!(net.shifted(&Tensor::f64([3, 1, 1], vec![0.0; 3]).unwrap()).is_err());
    let shape = net.input_shape();
    let nan = Tensor::f64(shape.dims(), vec![f64::NAN; shape.len()]).unwrap();
    assert!(net.shifted(&nan).unwrap_err().to_string().contains("element 0"));
    let mut b = GraphBuilder::new(Shape::new(1, 2, 2));
    let relu = b.push("relu", Op::Relu, &[b.input()]).unwrap();
    let flat = b.push("flat", Op::Flatten, &[relu]).unwrap();
    let odd = b.finish(flat).unwrap();
    let message = odd.shifted(&Tensor::f64([1, 2, 2], vec![1.0; 4]).unwrap()).unwrap_err().to_string();
    assert!(message.contains("'relu'"), "{message}");
    // A bias of one number an element is for one size of pictures.
    let shifted = net.shifted(&noise(shape, 1, 1.0)).unwrap();
    assert!(shifted.resized(Shape::new(3, shape.h + 8, shape.w)).is_err());
    assert!(net.softened(0.0).is_err() && net.softened(f64::NAN).is_err());
}

#[test]
fn a_soft_clamp_is_near_its_clamp_and_its_slope_is_its_derivative() {
    for soft in [
        SoftClamp { lo: 0.0, hi: f64::INFINITY, beta: 5.0 },
        SoftClamp { lo: 0.0, hi: 6.0, beta: 3.0 },
        SoftClamp { lo: f64::NEG_INFINITY, hi: 1.0, beta: 2.0 },
    ] {
        for i in -400..=400 {
            let x = f64::from(i) * 0.05;
            let hard = x.clamp(soft.lo, soft.hi);
            assert!((soft.value(x) - hard).abs() <= 2f64.ln() / soft.beta + 1e-12, "{soft:?} at {x}");
            let slope = (soft.value(x + 1e-5) - soft.value(x - 1e-5)) / 2e-5;
            assert!((soft.slope(x) - slope).abs() <= 1e-8, "{soft:?} at {x}: {} {slope}", soft.slope(x));
        }
        assert!(soft.value(1e300).is_finite() || soft.hi.is_infinite());
        assert!(!soft.value(-1e300).is_nan() && !soft.slope(1e300).is_nan());
    }
}

#[test]
fn a_softened_net_comes_near_and_has_the_gradient_of_what_it_computes() {
    let mut engine = twin();
    let mut nets: Vec<(String, Graph)> =
        ["vgg", "resnet_basic"].map(|n| (n.into(), (*Net::small(n).graph).clone())).into();
    let lite = Model::random("efficientnet-lite0", 3).unwrap();
    nets.push(("lite0".into(), (*lite.graph(Shape::new(3, 32, 32)).unwrap()).clone()));
    // Hard swishes, and hard sigmoids as gates.
    let mobile = Model::random("mobilenet_v3_small", 3).unwrap();
    nets.push(("mobilenet_v3_small".into(), (*mobile.graph(Shape::new(3, 32, 32)).unwrap()).clone()));
    for (name, net) in &nets {
        let x = noise(net.input_shape(), 5, 1.0);
        let batch = |x: &Tensor| Batch::of(vec![x.clone()]).unwrap();
        let hard = engine.forward(net, &batch(&x)).unwrap();
        let largest = hard.to_f64().iter().fold(0.0f64, |m, v| m.max(v.abs()));
        let mut last = f64::INFINITY;
        for beta in [1e2, 1e4, 1e6] {
            let soft = engine.forward(&net.softened(beta).unwrap(), &batch(&x)).unwrap();
            let most = hard.to_f64().iter().zip(soft.to_f64().iter()).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
            assert!(most < last, "{name}: {most} at {beta} after {last}");
            last = most;
        }
        assert!(last <= 1e-3 * largest, "{name}: {last} of {largest}");

        let soft = net.softened(10.0).unwrap();
        let answer = engine.explain(&soft, &Job::gradient(Score::Logit), &batch(&x), &[1]).unwrap();
        let gradient = answer.maps[0].to_f64().into_owned();
        let direction = noise(net.input_shape(), 6, 1.0).to_f64().into_owned();
        let along: f64 = gradient.iter().zip(&direction).map(|(g, d)| g * d).sum();
        // Small enough that no max-pool changes its winner on the way.
        let h = 1e-7;
        let mut at = |sign: f64| {
            let moved = x.to_f64().iter().zip(&direction).map(|(x, d)| x + sign * h * d).collect();
            engine.forward(&soft, &batch(&Tensor::f64(x.dims(), moved).unwrap())).unwrap().at(1)
        };
        let numeric = (at(1.0) - at(-1.0)) / (2.0 * h);
        assert!((along - numeric).abs() <= 1e-6 * numeric.abs().max(1.0), "{name}: {along} {numeric}");
    }
}

/// An operation and its value at a number.
type Sharp = (Op, fn(&Op, f64) -> f64);

/// Every kind of activation, and how far it may be from the same with corners rounded at β = 1, at `x`.
fn rounded() -> Vec<Sharp> {
    let exact = |_: &Op, _: f64| 0.0;
    let clamp = |_: &Op, _: f64| 2f64.ln();
    let mut all: Vec<Sharp> = vec![
        (Op::Relu, clamp),
        (Op::Clamp { lo: -1.0, hi: 2.0 }, clamp),
        (Op::PRelu([0.25, -0.5, 1.0].into()), |_, _| 1.5 * 2f64.ln()),
    ];
    // Exponentials, logarithms and powers have no corners, and not every number has a value.
    let everywhere = |f: &Smooth| !matches!(f, Smooth::Exp | Smooth::Log | Smooth::Power { .. });
    for f in Smooth::examples().into_iter().filter(everywhere) {
        all.push((
            Op::Smooth(f),
            match f {
                Smooth::HardSigmoid => |_, _| 2f64.ln() / 6.0,
                Smooth::HardSwish => |_, x| x.abs() * 2f64.ln() / 6.0,
                Smooth::Abs => |_, _| 2.0 * 2f64.ln(),
                Smooth::LeakyRelu { .. } => |op, _| match op {
                    Op::Smooth(Smooth::LeakyRelu { slope }) => (1.0 - slope).abs() * 2f64.ln(),
                    _ => f64::NAN,
                },
                Smooth::Elu { .. } => |op, _| match op {
                    Op::Smooth(Smooth::Elu { alpha }) => (1.0 - alpha).abs() * 2f64.ln(),
                    _ => f64::NAN,
                },
                _ => exact,
            },
        ));
    }
    all
}

/// Rounded corners are near the corners, as near as computed, and no slope jumps any more.
#[test]
fn every_activation_with_corners_is_rounded() {
    let mut engine = twin();
    let n = 2001;
    let shape = Shape::new(3, 1, n);
    for (op, bound) in rounded() {
        let mut b = GraphBuilder::new(shape);
        let node = b.push("act", op.clone(), &[b.input()]).unwrap();
        b.stage("act", node);
        let flat = b.push("flat", Op::Flatten, &[node]).unwrap();
        let hard = b.finish(flat).unwrap();
        for beta in [1.0, 10.0, 1e3, 1e6] {
            let soft = hard.softened(beta).unwrap();
            let act = soft.find("act").unwrap();
            assert_eq!(soft.stages(), [("act".to_string(), act)]);
            // All around, and close to each corner.
            for (centre, width) in [(0.0, 8.0), (-3.0, 8.0 / beta), (0.0, 8.0 / beta), (3.0, 8.0 / beta)] {
                let at = |i: usize| centre + width * (i as f64 / (n - 1) as f64 - 0.5) * 2.0;
                let x: Vec<f64> = (0..3 * n).map(|i| at(i % n)).collect();
                let batch = Batch::of(vec![Tensor::f64(shape.dims(), x.clone()).unwrap()]).unwrap();
                let [before, after] =
                    [&hard, &soft].map(|net| engine.forward(net, &batch).unwrap().to_f64().into_owned());
                for ((x, hard), soft) in x.iter().zip(&before).zip(&after) {
                    let most = bound(&op, *x) / beta + 1e-14 * (1.0 + x.abs());
                    assert!((hard - soft).abs() <= most, "{op:?} at {x} with {beta}: {hard} {soft}");
                }
                let signal = Tensor::f64([1, 3, 1, n], vec![1.0; 3 * n]).unwrap();
                let rules = Composite::gradient();
                let way = Pullback { from: act, signal: &signal, rules: &rules, to: soft.input() };
                let slopes = engine.pullback(&soft, &batch, &way).unwrap().to_f64().into_owned();
                for (i, pair) in slopes.windows(2).enumerate().filter(|(i, _)| (i + 1) % n != 0) {
                    // A corner's slope changes by at most 2 over about 1 / β.
                    let step = at(1) - at(0);
                    let most = step * (4.0 + 2.0 * beta) + 1e-9;
                    assert!((pair[1] - pair[0]).abs() <= most, "{op:?} at {} with {beta}: {pair:?}", x[i]);
                }
            }
        }
    }
}

/// Norms that cannot be merged into a convolution, layer norms' scales and PReLUs' slopes are weights too.
#[test]
fn norms_are_drawn_anew() {
    let mut engine = twin();
    for name in ["densenet121", "convnext_tiny"] {
        let model = Model::random(name, 3).unwrap();
        let net = model.graph(Shape::new(3, 32, 32)).unwrap();
        let all = layers(&net);
        assert!(all.is_sorted_by(|a, b| a > b), "from the logits down");
        let norms: Vec<NodeId> = all.iter().copied().filter(|&id| matches!(net.node(id).op, Op::Affine(_))).collect();
        let every = net.ids().filter(|&id| matches!(net.node(id).op, Op::Affine(_))).count();
        assert!(norms.len() == every && every >= 20, "{name}: {} of {every}", norms.len());
        let x = Batch::of(vec![noise(net.input_shape(), 5, 1.0)]).unwrap();
        let before = engine.forward(&net, &x).unwrap();
        let last = norms[0];
        let new = randomised(&net, &[last], 1).unwrap();
        let after = engine.forward(&new, &x).unwrap();
        assert_ne!(before.to_f64(), after.to_f64(), "{name}");
        // Of the same size, by another seed another, and the same in a cascade.
        let scale = |net: &Graph| match &net.node(last).op {
            Op::Affine(Affine { scale, .. }) => scale.to_vec(),
            op => panic!("{}", op.kind()),
        };
        let moments = |v: &[f64]| {
            let mean = v.iter().sum::<f64>() / v.len() as f64;
            [mean, (v.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / v.len() as f64).sqrt()]
        };
        let [old, drawn] = [moments(&scale(&net)), moments(&scale(&new))];
        let sure = 6.0 * old[1] / (scale(&net).len() as f64).sqrt();
        assert!(old.iter().zip(drawn).all(|(a, b)| (a - b).abs() <= sure), "{name}: {old:?} {drawn:?}");
        assert_ne!(scale(&randomised(&net, &[last], 2).unwrap()), scale(&new));
        assert_eq!(scale(&randomised(&net, &all, 1).unwrap()), scale(&new));
        engine.forget(&net);
    }
    // What is the same for all channels is not learned, and stays.
    let mut b = GraphBuilder::new(Shape::new(2, 1, 1));
    let half = b.push("half", Op::Affine(Affine::product([0.5])), &[b.input()]).unwrap();
    let prelu = b.push("prelu", Op::PRelu([0.25, 0.5].into()), &[half]).unwrap();
    let net = b.finish(prelu).unwrap();
    assert_eq!(layers(&net), [prelu]);
    let drawn = randomised(&net, &[half, prelu], 1).unwrap();
    assert!(matches!(&drawn.node(half).op, Op::Affine(a) if *a == Affine::product([0.5])));
    assert!(matches!(&drawn.node(prelu).op, Op::PRelu(slopes) if slopes[..] != [0.25, 0.5]));
}
