//! Class activation maps against definitions written out here, on activations and gradients that the engine hands out.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod nets;

use nets::{Net, build};
use verilume::ErrorKind;
use verilume::engine::{Batch, Copies, Engine, Pullback, Settings, Task};
use verilume::graph::{Graph, GraphBuilder, Linear, NodeId, Op, Weight};
use verilume::map::{Map, Sign, Space};
use verilume::method::registry;
use verilume::program::{Score, softmax};
use verilume::rule::Composite;
use verilume::tensor::resample::{Upsample, upsample};
use verilume::tensor::{Precision, Shape, Tensor};

/// Every class activation map that gives one plane.
const PLANES: [&str; 8] =
    ["grad_cam", "grad_cam_pp", "hires_cam", "layer_cam", "xgrad_cam", "score_cam", "ablation_cam", "eigen_cam"];

fn twin() -> Engine {
    Engine::new(&Settings { precision: Precision::F64, threads: Some(2), ..Settings::default() }).unwrap()
}

/// Activations of a layer on one picture, `[c][plane]`.
fn activations(net: &Net, engine: &mut Engine, node: NodeId, picture: usize) -> Vec<Vec<f64>> {
    let all = engine.node_outputs(&net.graph, &net.x, &[node]).unwrap().remove(0);
    planes(net, node, &all.item(picture).unwrap())
}

fn planes(net: &Net, node: NodeId, values: &Tensor) -> Vec<Vec<f64>> {
    values.to_f64().chunks(net.graph.node(node).shape.plane()).map(<[f64]>::to_vec).collect()
}

/// Gradient of the target's score with respect to a layer's activations on one picture, `[c][plane]`.
fn gradients(net: &Net, engine: &mut Engine, node: NodeId, score: Score, picture: usize) -> Vec<Vec<f64>> {
    let logits = engine.forward(&net.graph, &net.x).unwrap();
    let seeds: Vec<f64> =
        (0..net.x.len()).flat_map(|i| score.evaluate(&logits.item(i).unwrap().to_f64(), net.targets[i]).1).collect();
    let signal = Tensor::f64([net.x.len(), net.graph.classes(), 1, 1], seeds).unwrap();
    let way = Pullback { from: net.graph.output(), signal: &signal, rules: &Composite::gradient(), to: node };
    let all = engine.pullback(&net.graph, &net.x, &way).unwrap();
    planes(net, node, &all.item(picture).unwrap())
}

fn sum(v: &[f64]) -> f64 {
    v.iter().sum()
}

/// `Σ_k w_k A_k`.
fn combine(weights: &[f64], a: &[Vec<f64>]) -> Vec<f64> {
    (0..a[0].len()).map(|p| weights.iter().zip(a).map(|(w, a)| w * a[p]).sum()).collect()
}

/// The signed plane of a gradient CAM, straight from its definition.
fn defined(method: &str, a: &[Vec<f64>], g: &[Vec<f64>]) -> Vec<f64> {
    let (c, plane) = (a.len(), a[0].len());
    let positive = |v: f64| if v > 0.0 { v } else { 0.0 };
    let each = |f: &dyn Fn(usize, usize) -> f64| (0..plane).map(|p| (0..c).map(|k| f(k, p)).sum()).collect();
    let weights = |f: &dyn Fn(usize) -> f64| combine(&(0..c).map(f).collect::<Vec<_>>(), a);
    match method {
        "grad_cam" => weights(&|k| sum(&g[k]) / plane as f64),
        "hires_cam" => each(&|k, p| g[k][p] * a[k][p]),
        "layer_cam" => each(&|k, p| positive(g[k][p]) * a[k][p]),
        "xgrad_cam" => weights(&|k| g[k].iter().zip(&a[k]).map(|(g, a)| g * a).sum::<f64>() / (sum(&a[k]) + 1e-7)),
        "grad_cam_pp" => weights(&|k| {
            let total = sum(&a[k]);
            let share = |g: f64| if g == 0.0 { 0.0 } else { g * g / (2.0 * g * g + total * g.powi(3) + 1e-7) };
            g[k].iter().map(|&g| share(g) * positive(g)).sum()
        }),
        _ => panic!("{method}"),
    }
}

fn near(what: &str, got: &[f64], want: &[f64], tolerance: f64) {
    assert_eq!(got.len(), want.len(), "{what}");
    let largest = want.iter().fold(0.0f64, |m, v| m.max(v.abs()));
    assert!(largest > 0.0, "{what}: the reference is all zero");
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        let within = (g - w).abs() <= tolerance * largest;
        assert!(within, "{what}, element {i}: {g} for {w} (largest {largest})");
    }
}

fn values(map: &Map) -> Vec<f64> {
    map.values.to_f64().into_owned()
}

/// Layers to look at: the first stage, a convolution whose outputs have both signs, the last stage.
fn layers(graph: &Graph) -> Vec<(String, NodeId)> {
    let before = graph.ids().find(|&id| matches!(graph.node(id).op, Op::Conv(_))).unwrap();
    let stages = graph.stages();
    [stages[0].1, before, stages[stages.len() - 1].1].map(|id| (graph.node(id).name.clone(), id)).to_vec()
}

#[test]
fn gradient_cams_are_what_they_say_at_any_layer() {
    let mut engine = twin();
    for name in ["vgg_bn", "resnet_bottleneck"] {
        let net = Net::small(name);
        for (layer, node) in layers(&net.graph) {
            for score in [Score::Logit, Score::LogProb] {
                for method in &PLANES[..5] {
                    let spec = format!("{method}:layer={layer},upsample=none,relu=no");
                    let maps = net.explain(&mut engine, &spec, score, 0).unwrap();
                    for (i, map) in maps.iter().enumerate() {
                        let a = activations(&net, &mut engine, node, i);
                        let g = gradients(&net, &mut engine, node, score, i);
                        assert_eq!(map.space, Space::Layer(layer.clone()));
                        near(&format!("{name} {spec} {score:?} {i}"), &values(map), &defined(method, &a, &g), 1e-10);
                    }
                }
            }
        }
    }
}

#[test]
fn relu_and_upsampling_are_the_same_for_all() {
    let mut engine = twin();
    let net = Net::small("vgg_bn");
    let stage = net.graph.stages().last().unwrap().1;
    let (from, to) = (net.graph.node(stage).shape, net.x.shape());
    for method in PLANES {
        let mut explain = |spec: &str| net.explain(&mut engine, &format!("{method}:{spec}"), Score::Logit, 0).unwrap();
        let raw = explain("upsample=none,relu=no");
        for how in [Upsample::Bilinear, Upsample::Nearest] {
            for (rectified, map) in
                [("yes", explain(&format!("upsample={how}"))), ("no", explain(&format!("upsample={how},relu=no")))]
            {
                for (raw, map) in raw.iter().zip(&map) {
                    let mut plane = values(raw);
                    if rectified == "yes" {
                        plane.iter_mut().for_each(|v| *v = v.max(0.0));
                    }
                    let want = upsample(&plane, [from.h, from.w], [to.h, to.w], how).unwrap();
                    assert_eq!(values(map), want, "{method} {how} relu={rectified}");
                    assert_eq!(map.values.dims(), [to.h, to.w]);
                    assert_eq!(map.sign, if rectified == "yes" { Sign::Unsigned } else { Sign::Signed });
                    assert_eq!(map.space, Space::Input);
                }
            }
        }
    }
}

#[test]
fn score_cam_masks_the_picture_channel_by_channel() {
    let mut engine = twin();
    let net = Net::small("vgg_bn");
    for (layer, node) in layers(&net.graph) {
        let shape = net.graph.node(node).shape;
        let maps = net.explain(&mut engine, &format!("score_cam:layer={layer},upsample=none,relu=no"), Score::Logit, 0);
        for (i, map) in maps.unwrap().iter().enumerate() {
            let picture = net.x.items()[i].to_f64();
            let to = [net.x.shape().h, net.x.shape().w];
            let a = activations(&net, &mut engine, node, i);
            let weights: Vec<f64> = a
                .iter()
                .map(|channel| {
                    let mask = upsample(channel, [shape.h, shape.w], to, Upsample::Bilinear).unwrap();
                    let lo = mask.iter().copied().fold(f64::INFINITY, f64::min);
                    let hi = mask.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                    if hi == lo {
                        return 0.0;
                    }
                    let masked = picture.iter().enumerate().map(|(e, x)| x * (mask[e % mask.len()] - lo) / (hi - lo));
                    let masked = Tensor::f64(net.x.shape().dims(), masked.collect()).unwrap();
                    let logits = engine.forward(&net.graph, &Batch::of(vec![masked]).unwrap()).unwrap();
                    softmax(&logits.to_f64())[net.targets[i]]
                })
                .collect();
            near(&format!("score_cam at {layer}, picture {i}"), &values(map), &combine(&weights, &a), 1e-10);
        }
    }
}

/// Where only a mean and a linear layer follow, a channel's share is known in closed form.
#[test]
fn ablation_before_a_linear_tail_is_gradient_times_activation() {
    let mut engine = twin();
    for name in ["resnet_basic", "resnext"] {
        let net = Net::small(name);
        let node = net.graph.stages().last().unwrap().1;
        let logits = engine.forward(&net.graph, &net.x).unwrap();
        let maps = net.explain(&mut engine, "ablation_cam:upsample=none,relu=no", Score::Logit, 0).unwrap();
        for (i, map) in maps.iter().enumerate() {
            let a = activations(&net, &mut engine, node, i);
            let g = gradients(&net, &mut engine, node, Score::Logit, i);
            let score = logits.item(i).unwrap().at(net.targets[i]);
            let weight = |(a, g): (&Vec<f64>, &Vec<f64>)| a.iter().zip(g).map(|(a, g)| a * g).sum::<f64>() / score;
            let weights: Vec<f64> = a.iter().zip(&g).map(weight).collect();
            near(&format!("{name} {i}"), &values(map), &combine(&weights, &a), 1e-9);
        }
    }
}

/// Elsewhere the whole net runs with the layer's output multiplied by zeros and ones, one channel at a time.
#[test]
fn ablation_elsewhere_is_a_forward_pass_without_the_channel() {
    let mut engine = twin();
    let net = Net::small("vgg");
    let (layer, node) = layers(&net.graph).remove(0);
    let shape = net.graph.node(node).shape;
    let maps = net.explain(&mut engine, &format!("ablation_cam:layer={layer},upsample=none,relu=no"), Score::Prob, 0);
    let maps = maps.unwrap();
    let mut score = |without: Option<usize>| -> Vec<f64> {
        let on = |k: usize| if Some(k) == without { 0.0 } else { 1.0 };
        let mask = (0..shape.len()).map(|i| on(i / shape.plane())).collect();
        let mask = Tensor::f64(shape.dims(), mask).unwrap();
        let loads = [vec![mask; net.x.len()]];
        let copies = Copies::one();
        let task = Task { x: &net.x, targets: &net.targets, copies: &copies, loads: &loads };
        let outcome = engine.evaluate_once(&net.graph, &task, |b| {
            let (output, mask) = (b.output(node), b.load(0, shape)?);
            let masked = b.mul(output, mask)?;
            b.replace(node, masked)?;
            b.score(Score::Prob);
            Ok(())
        });
        outcome.unwrap().scores.iter().map(|s| s[0]).collect()
    };
    let whole = score(None);
    let without: Vec<Vec<f64>> = (0..shape.c).map(|k| score(Some(k))).collect();
    for (i, map) in maps.iter().enumerate() {
        let a = activations(&net, &mut engine, node, i);
        let weights: Vec<f64> = without.iter().map(|s| (whole[i] - s[i]) / whole[i]).collect();
        near(&format!("picture {i}"), &values(map), &combine(&weights, &a), 1e-9);
    }
}

/// Against plain power iteration on `OᵀO`, for layers with more channels than positions and with fewer.
#[test]
fn eigen_cam_projects_on_the_first_component() {
    let mut engine = twin();
    let net = Net::small("resnet_basic");
    let mut kinds = [0, 0];
    for (layer, node) in layers(&net.graph) {
        for centre in ["no", "yes"] {
            let spec = format!("eigen_cam:layer={layer},upsample=none,relu=no,centre={centre}");
            let maps = net.explain(&mut engine, &spec, Score::Logit, 0).unwrap();
            for (i, map) in maps.iter().enumerate() {
                let a = activations(&net, &mut engine, node, i);
                let (c, plane) = (a.len(), a[0].len());
                kinds[usize::from(c > plane)] += 1;
                let means: Vec<f64> = a.iter().map(|a| sum(a) / plane as f64).collect();
                let taken = |k: usize| if centre == "yes" { means[k] } else { 0.0 };
                let o: Vec<Vec<f64>> = (0..c).map(|k| a[k].iter().map(|v| v - taken(k)).collect()).collect();
                let mut v: Vec<f64> = (0..c).map(|k| 1.0 + 0.01 * (k % 7) as f64).collect();
                for _ in 0..3000 {
                    let along = combine(&v, &o);
                    let next: Vec<f64> = o.iter().map(|o| o.iter().zip(&along).map(|(o, p)| o * p).sum()).collect();
                    let norm = next.iter().map(|v| v * v).sum::<f64>().sqrt();
                    v = next.iter().map(|v| v / norm).collect();
                }
                let turned = v.iter().zip(&means).map(|(v, m)| v * m).sum::<f64>() < 0.0;
                v.iter_mut().for_each(|v| *v = if turned { -*v } else { *v });
                near(&format!("{spec}, picture {i}"), &values(map), &combine(&v, &o), 1e-6);
            }
        }
    }
    assert!(kinds.iter().all(|&n| n > 0), "{kinds:?}");
    let other: Vec<usize> = net.targets.iter().map(|t| (t + 1) % net.graph.classes()).collect();
    let method = build("eigen_cam", Score::Logit, 0, &net.preprocess).unwrap();
    let [one, two] = [&net.targets, &other].map(|t| method.explain(&mut engine, &net.graph, &net.x, t).unwrap());
    assert!(one.iter().zip(&two).all(|(a, b)| a.values == b.values), "the class plays no part");
}

#[test]
fn guided_grad_cam_is_the_product() {
    let mut engine = twin();
    let net = Net::small("vgg");
    for options in ["", ":upsample=nearest,relu=no"] {
        let mut explain = |method: &str| net.explain(&mut engine, method, Score::Logit, 0).unwrap();
        let (guided, cam) = (explain("guided_backprop"), explain(&format!("grad_cam{options}")));
        for (i, map) in explain(&format!("guided_grad_cam{options}")).iter().enumerate() {
            let (g, c) = (values(&guided[i]), values(&cam[i]));
            let want: Vec<f64> = g.iter().enumerate().map(|(e, g)| g * c[e % c.len()]).collect();
            near(options, &values(map), &want, 1e-14);
            assert_eq!(map.values.dims(), net.x.shape().dims());
        }
    }
}

/// Flattening and two linear layers.
fn perceptron(weights: f32) -> Graph {
    let mut b = GraphBuilder::new(Shape::new(1, 4, 4));
    let linear = |k: usize, c: usize| {
        let numbers: Vec<f32> = (0..k * c).map(|i| weights * ((i * 7 % 5) as f32 - 1.5)).collect();
        Op::Linear(Linear { weight: Weight::owned([k, c, 1, 1], &numbers).unwrap(), bias: None })
    };
    let soft = b.push("soft", Op::Relu, &[b.input()]).unwrap();
    let flat = b.push("flatten", Op::Flatten, &[soft]).unwrap();
    let hidden = b.push("hidden", linear(6, 16), &[flat]).unwrap();
    let relu = b.push("relu", Op::Relu, &[hidden]).unwrap();
    let out = b.push("out", linear(3, 6), &[relu]).unwrap();
    b.finish(out).unwrap()
}

#[test]
fn layers_without_positions_are_refused() {
    let mut engine = twin();
    let net = Net::small("vgg");
    let vector = net.graph.ids().find(|&id| matches!(net.graph.node(id).op, Op::Linear(_))).unwrap();
    let vector = &net.graph.node(vector).name;
    let mlp = perceptron(0.25);
    let x = Batch::new(&Tensor::f32([1, 1, 4, 4], (0..16).map(|i| i as f32 - 3.0).collect()).unwrap()).unwrap();
    let cams: Vec<&str> =
        registry().iter().map(|e| e.id).filter(|id| id.ends_with("_cam") || id.contains("_cam_")).collect();
    assert_eq!(cams.len(), PLANES.len() + 1);
    for id in cams {
        let error = net.explain(&mut engine, &format!("{id}:layer={vector}"), Score::Logit, 0).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Settings, "{id}");
        assert!(error.to_string().contains("positions"), "{id}: {error}");
        for (spec, part) in [(id.to_string(), "no stages"), (format!("{id}:layer=relu"), "positions")] {
            let method = build(&spec, Score::Logit, 0, &net.preprocess).unwrap();
            let error = method.explain(&mut engine, &mlp, &x, &[1]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Settings, "{spec}");
            assert!(error.to_string().contains(part), "{spec}: {error}");
        }
        let method = build(&format!("{id}:layer=soft"), Score::Logit, 0, &net.preprocess).unwrap();
        assert!(method.explain(&mut engine, &mlp, &x, &[1]).is_ok(), "{id} at a layer before the flattening");
    }
    for (spec, part) in [
        ("guided_grad_cam:upsample=none", "upsample=none"),
        ("eigen_cam:centre=perhaps", "centre=perhaps"),
        ("xgrad_cam:relu=perhaps", "xgrad_cam:relu=perhaps"),
    ] {
        let error = build(spec, Score::Logit, 0, &net.preprocess).map(|_| ()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Settings, "{spec}");
        assert!(error.to_string().contains(part), "{spec}: {error}");
    }
    // A net whose scores are all zero.
    let method = build("ablation_cam:layer=soft", Score::Logit, 0, &net.preprocess).unwrap();
    let error = method.explain(&mut engine, &perceptron(0.0), &x, &[1]).unwrap_err();
    assert!(error.to_string().contains("divides by the score"), "{error}");
}
