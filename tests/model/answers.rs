//! Nets answer as PyTorch does.

use super::*;

/// Every operation by its definition, in double precision, one picture at a time.
pub(crate) fn evaluate(graph: &verilume::graph::Graph, input: &[f64]) -> Vec<f64> {
    use verilume::tensor::Window;
    /// For each output position the taps that lie inside the input, as (tap, input position).
    fn taps(window: &Window, x: Shape) -> Vec<Vec<(usize, usize)>> {
        let [h, w] = window.output(x.h, x.w).unwrap();
        let pads = window.pads(x.h, x.w);
        let place = |o: usize, k: usize, axis: usize, n: usize| {
            (o * window.stride[axis] + k * window.dilation[axis]).checked_sub(pads[axis][0]).filter(|&i| i < n)
        };
        let mut all = Vec::new();
        for (oy, ox) in (0..h).flat_map(|oy| (0..w).map(move |ox| (oy, ox))) {
            let mut here = Vec::new();
            for (ky, kx) in (0..window.kernel[0]).flat_map(|ky| (0..window.kernel[1]).map(move |kx| (ky, kx))) {
                if let (Some(y), Some(z)) = (place(oy, ky, 0, x.h), place(ox, kx, 1, x.w)) {
                    here.push((ky * window.kernel[1] + kx, y * x.w + z));
                }
            }
            all.push(here);
        }
        all
    }
    let mut values: Vec<Vec<f64>> = vec![input.to_vec()];
    for node in &graph.nodes()[1..] {
        let x = &values[node.inputs[0].index()];
        let from = graph.node(node.inputs[0]).shape;
        let plane = |c: usize| &x[c * from.plane()..(c + 1) * from.plane()];
        let bias = |b: &Option<Arc<[f64]>>, k: usize| b.as_ref().map_or(0.0, |b| b[k]);
        let mut y = Vec::with_capacity(node.shape.len());
        match &node.op {
            Op::Conv(conv) => {
                let (weight, taps) = (conv.weight.to_f64(), taps(&conv.window, from));
                let [k, c, kh, kw] = conv.weight.dims();
                for o in 0..k {
                    let first = o / (k / conv.groups) * c;
                    let start = y.len();
                    y.resize(start + taps.len(), bias(&conv.bias, o));
                    for i in 0..c {
                        let (kernel, plane) = (&weight[(o * c + i) * kh * kw..], plane(first + i));
                        for (out, taps) in y[start..].iter_mut().zip(&taps) {
                            *out += taps.iter().map(|&(t, p)| kernel[t] * plane[p]).sum::<f64>();
                        }
                    }
                }
            }
            Op::Linear(linear) => {
                let weight = linear.weight.to_f64();
                for (k, row) in weight.chunks(from.c).enumerate() {
                    y.push(bias(&linear.bias, k) + row.iter().zip(x).map(|(w, x)| w * x).sum::<f64>());
                }
            }
            Op::BatchNorm(norm) => {
                for c in 0..from.c {
                    let scale = norm.gamma[c] / (norm.variance[c] + norm.eps).sqrt();
                    y.extend(plane(c).iter().map(|v| (v - norm.mean[c]) * scale + norm.beta[c]));
                }
            }
            Op::Relu => y.extend(x.iter().map(|v| v.max(0.0))),
            Op::Clamp { lo, hi } => y.extend(x.iter().map(|v| v.clamp(*lo, *hi))),
            Op::MaxPool(window) => {
                let taps = taps(window, from);
                let largest = |plane: &[f64], taps: &[(usize, usize)]| {
                    taps.iter().map(|&(_, p)| plane[p]).fold(f64::NEG_INFINITY, f64::max)
                };
                (0..from.c).for_each(|c| y.extend(taps.iter().map(|t| largest(plane(c), t))));
            }
            Op::AvgPool { window, count_padding } => {
                let taps = taps(window, from);
                // Zeros of a window that reaches beyond the padding do not count; none does here.
                let count = |taps: &[(usize, usize)]| if *count_padding { window.taps() } else { taps.len() } as f64;
                let mean = |plane: &[f64], taps: &[(usize, usize)]| {
                    taps.iter().map(|&(_, p)| plane[p]).sum::<f64>() / count(taps)
                };
                (0..from.c).for_each(|c| y.extend(taps.iter().map(|t| mean(plane(c), t))));
            }
            Op::Concat => node.inputs.iter().for_each(|i| y.extend(&values[i.index()])),
            Op::AdaptiveAvgPool { out: [h, w] } => {
                let bin = |i: usize, n: usize, out: usize| i * n / out..((i + 1) * n).div_ceil(out);
                for (c, oy, ox) in (0..from.c).flat_map(|c| (0..h * w).map(move |o| (c, o / w, o % w))) {
                    let (rows, columns) = (bin(oy, from.h, *h), bin(ox, from.w, *w));
                    let count = (rows.len() * columns.len()) as f64;
                    let sum: f64 = rows.flat_map(|r| plane(c)[r * from.w..][columns.clone()].iter()).sum();
                    y.push(sum / count);
                }
            }
            Op::Add => y.extend(x.iter().zip(&values[node.inputs[1].index()]).map(|(a, b)| a + b)),
            Op::Flatten => y.extend(x),
            Op::Smooth(f) => y.extend(x.iter().map(|v| f.value(*v))),
            Op::Mul => {
                let (other, gate) = (&values[node.inputs[1].index()], graph.node(node.inputs[1]).shape);
                assert_eq!(gate, Shape::vector(from.c), "{}", node.name);
                (0..from.c).for_each(|c| y.extend(plane(c).iter().map(|v| v * other[c])));
            }
            Op::Affine(affine) => {
                let of = |v: &[f64], c: usize| if v.len() == 1 { v[0] } else { v[c] };
                for c in 0..from.c {
                    y.extend(plane(c).iter().map(|v| of(&affine.scale, c) * v + of(&affine.shift, c)));
                }
            }
            Op::Standardise(norm) => {
                assert!(norm.groups == 1 && !norm.across_positions);
                y.resize(x.len(), 0.0);
                for at in 0..from.plane() {
                    let all = || (0..from.c).map(|c| x[c * from.plane() + at]);
                    let mean = all().sum::<f64>() / from.c as f64;
                    let variance = all().map(|v| (v - mean) * (v - mean)).sum::<f64>() / from.c as f64;
                    for c in 0..from.c {
                        let i = c * from.plane() + at;
                        y[i] = (x[i] - mean) / (variance + norm.eps).sqrt();
                    }
                }
            }
            Op::Slice { first, channels } => (*first..first + channels).for_each(|c| y.extend(plane(c))),
            Op::Shuffle { groups } => {
                let columns = from.c / groups;
                (0..from.c).for_each(|o| y.extend(plane(o % groups * columns + o / groups)));
            }
            Op::Subsample { stride: [sy, sx] } => {
                for c in 0..from.c {
                    let rows = (0..from.h).step_by(*sy);
                    y.extend(rows.flat_map(|r| (0..from.w).step_by(*sx).map(move |q| plane(c)[r * from.w + q])));
                }
            }
            Op::PadChannels { before, after } => {
                y.resize(before * from.plane(), 0.0);
                y.extend(x);
                y.resize(y.len() + after * from.plane(), 0.0);
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(y.len(), node.shape.len(), "{}", node.name);
        values.push(y);
    }
    values.swap_remove(graph.output().index())
}

/// The first `pictures` logits of a golden file, with batch norms folded and not, against the net read from `model`.
pub(crate) fn answers_as_pytorch(model: &Model, cases: &Path, pictures: usize) {
    let bytes = std::fs::read(cases).unwrap();
    let cases = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let read = |name: &str| -> (Vec<usize>, Vec<f64>) {
        let tensor = cases.tensor(name).unwrap();
        let values = tensor.data().chunks(4).map(|b| f64::from(f32::from_le_bytes(b.try_into().unwrap())));
        (tensor.shape().to_vec(), values.collect())
    };
    let ((dims, input), (_, logits)) = (read("input"), read("logits"));
    let shape = Shape::new(dims[1], dims[2], dims[3]);
    let folded = model.graph(shape).unwrap();
    let largest = logits.iter().fold(0.0f64, |m, v| m.max(v.abs()));
    assert!(largest > 0.0);
    for (x, wanted) in input.chunks(shape.len()).zip(logits.chunks(model.classes())).take(pictures) {
        for graph in [&*folded, &model.unfolded().resized(shape).unwrap()] {
            let found = evaluate(graph, x);
            for (k, (a, b)) in found.iter().zip(wanted).enumerate() {
                assert!((a - b).abs() <= 1e-6 * largest, "{model:?}: logit {k} is {a}, expected {b}");
            }
        }
    }
}

#[test]
fn golden_nets_answer_as_pytorch() {
    for name in ["vgg", "vgg_bn", "resnet_basic", "resnet_bottleneck", "resnext"] {
        let path = golden(name);
        let model = Model::open(&path, None).unwrap();
        answers_as_pytorch(&model, &path.with_file_name(format!("{name}.cases.safetensors")), 3);
    }
}

#[cfg(feature = "embedded-model")]
#[test]
fn embedded_net_answers_as_pytorch() {
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/real/efficientnet-lite0.cases.safetensors");
    answers_as_pytorch(&Model::embedded().unwrap(), &cases, 1);
}

#[needs::shared_data]
#[test]
fn trained_cifar_net_answers_as_pytorch() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let model = Model::open(&Path::new(DATA.unwrap()).join("cifar10-resnet20.safetensors"), None).unwrap();
    answers_as_pytorch(&model, &root.join("tests/golden/real/cifar10-resnet20.cases.safetensors"), 2);
}

#[test]
fn random_nets_compute_numbers_of_order_one() {
    for (net, architecture) in [
        ("resnet20", "cifar-resnet20 [3,3,3]"),
        ("resnet110", "cifar-resnet110 [18,18,18]"),
        ("mlp", "mlp 784-1024-1024-1024-10"),
        ("efficientnet-lite0", "efficientnet-lite0"),
        ("resnet8", "cifar-resnet8 [1,1,1]"),
        ("mobilenet_v2", "mobilenet-v2"),
        ("densenet121", "densenet [6,12,24,16]"),
        ("squeezenet1_1", "squeezenet 1.1"),
        ("googlenet", "googlenet"),
        ("shufflenet_v2_x1_0", "shufflenet-v2"),
        ("regnet_y_400mf", "regnet-y [1,3,6,6]"),
        ("regnet_x_400mf", "regnet-x [1,2,7,12]"),
        ("mobilenet_v3_small", "mobilenet-v3-small"),
        ("mobilenet_v3_large", "mobilenet-v3-large"),
        ("efficientnet_b0", "efficientnet [1,2,2,3,3,4,1]"),
        ("convnext_tiny", "convnext [3,3,9,3]"),
    ] {
        let model = Model::random(net, 7).unwrap();
        assert_eq!((model.name(), model.architecture()), (net, architecture));
        assert_eq!(model.sha256(), Model::random(net, 7).unwrap().sha256());
        assert_ne!(model.sha256(), Model::random(net, 8).unwrap().sha256());
        let shape = model.default_input();
        let shape = Shape::new(shape.c, shape.h.min(64), shape.w.min(64));
        let input: Vec<f64> = (0..shape.len()).map(|i| ((i * 7919) % 997) as f64 / 300.0 - 1.6).collect();
        let logits = evaluate(&model.graph(shape).unwrap(), &input);
        let size = (logits.iter().map(|v| v * v).sum::<f64>() / logits.len() as f64).sqrt();
        assert!((1e-2..1e2).contains(&size), "{net}: {size}");
    }
}
