//! Maps are the same bits whatever the threads, the memory, the batch and the order; and memory limits are kept.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod nets;

use nets::{Net, bits, build, machines, named_as_enough};
use verilume::ErrorKind;
use verilume::device::Perturbation;
use verilume::engine::{Batch, Copies, Engine, Job, Settings};
use verilume::graph::{Conv, Graph, GraphBuilder, Linear, Op, Weight};
use verilume::method::{Spec, registry};
use verilume::program::{Score, Statistic};
use verilume::random;
use verilume::tensor::{Padding, Precision, Shape, Tensor, Window};

/// Every method, with few copies where it makes copies.
fn specs() -> Vec<String> {
    let spec = |entry: &verilume::method::Entry| {
        let few: Vec<String> = entry
            .parameters
            .iter()
            .filter(|p| p.default.parse::<usize>().is_ok())
            .filter_map(|p| match p.key {
                "n" | "steps" => Some(format!("{}=7", p.key)),
                "copies" | "iterations" => Some(format!("{}=3", p.key)),
                _ => None,
            })
            .collect();
        if few.is_empty() { entry.id.to_string() } else { format!("{}:{}", entry.id, few.join(",")) }
    };
    registry().iter().filter(|entry| entry.required().is_none()).map(spec).collect()
}

fn all_bits(net: &Net, engine: &mut Engine, spec: &str, seed: u64) -> Vec<Vec<u64>> {
    let maps = net.explain(engine, spec, Score::Prob, seed).unwrap_or_else(|e| panic!("{spec}: {e}"));
    maps.iter().map(bits).collect()
}

#[test]
fn maps_do_not_depend_on_threads_or_memory() {
    let net = Net::small("vgg_bn");
    for settings in machines() {
        let reference: Vec<_> = {
            let mut engine = Engine::new(&Settings { threads: Some(1), ..settings.clone() }).unwrap();
            specs().iter().map(|s| all_bits(&net, &mut engine, s, 3)).collect()
        };
        let (mut least, mut most) = (u64::MAX, 0);
        for threads in [1, 2, 3] {
            let settings = Settings { threads: Some(threads), ..settings.clone() };
            let enough = specs().iter().map(|spec| named_as_enough(&settings, &net, spec)).max().unwrap();
            let unlimited = {
                let mut engine = Engine::new(&settings).unwrap();
                for (spec, want) in specs().iter().zip(&reference) {
                    assert!(all_bits(&net, &mut engine, spec, 3) == *want, "{spec} with {threads} threads");
                }
                engine.peak_bytes()
            };
            assert!(enough < unlimited, "{enough} bytes are enough, {unlimited} are held without a limit");
            // No room for a second copy or for weights that stay; a little; almost everything.
            for limit in [enough, enough + (unlimited - enough) / 4, enough + (unlimited - enough) * 3 / 4, unlimited] {
                let mut engine = Engine::new(&Settings { memory: Some(limit), ..settings.clone() }).unwrap();
                for (spec, want) in specs().iter().zip(&reference) {
                    assert!(all_bits(&net, &mut engine, spec, 3) == *want, "{spec}, {threads} threads, {limit} bytes");
                    let peak = engine.peak_bytes();
                    assert!(peak <= limit, "{spec} held {peak} bytes of {limit}");
                    (least, most) = (least.min(peak), most.max(peak));
                }
            }
        }
        println!("{:?} {}: peaks from {least} to {most} bytes", settings.kernels, settings.precision);
        assert!(least < most);
    }
}

#[test]
fn maps_do_not_depend_on_batch_or_order() {
    let net = Net::small("resnext");
    for settings in machines() {
        let mut engine = Engine::new(&settings).unwrap();
        for spec in specs() {
            let together = all_bits(&net, &mut engine, &spec, 5);
            let method = build(&spec, Score::Prob, 5, &net.preprocess).unwrap();
            let reversed: Vec<Tensor> = net.x.items().iter().rev().cloned().collect();
            let targets: Vec<usize> = net.targets.iter().rev().copied().collect();
            let maps = method.explain(&mut engine, &net.graph, &Batch::of(reversed).unwrap(), &targets).unwrap();
            assert!(maps.iter().rev().map(bits).eq(together.iter().cloned()), "{spec} in reverse order");
            for (i, item) in net.x.items().iter().enumerate() {
                let alone = Batch::of(vec![item.clone()]).unwrap();
                let maps = method.explain(&mut engine, &net.graph, &alone, &net.targets[i..=i]).unwrap();
                assert!(bits(&maps[0]) == together[i], "{spec}, picture {i} alone");
            }
        }
    }
}

#[test]
fn seeds_change_what_is_drawn_and_nothing_else() {
    let net = Net::small("vgg");
    let mut engine = Engine::new(&Settings::default()).unwrap();
    for spec in specs().into_iter().chain(["ig:steps=3,baseline=noise".into()]) {
        let [a, b] = [1, 2].map(|seed| all_bits(&net, &mut engine, &spec, seed));
        assert_eq!(a != b, Spec::parse(&spec).unwrap().draws(), "{spec}");
        assert!(a == all_bits(&net, &mut engine, &spec, 1), "{spec} again");
    }
}

#[test]
fn memory_does_not_grow_with_the_copies() {
    let net = Net::small("vgg");
    for settings in machines() {
        let limit = 2 * named_as_enough(&settings, &net, "smoothgrad");
        let peaks = [20, 200].map(|n| {
            let mut engine = Engine::new(&Settings { memory: Some(limit), ..settings.clone() }).unwrap();
            net.explain(&mut engine, &format!("smoothgrad:n={n}"), Score::Logit, 1).unwrap();
            engine.peak_bytes()
        });
        assert_eq!(peaks[0], peaks[1]);
        assert!(peaks[0] <= limit);
    }
}

/// A wide layer, a layer with much scratch, a layer with large weights: what one program leaves behind must not push the
/// next over the limit.
#[test]
fn limits_hold_across_programs() {
    let nets = [(2, 64, 40, 3), (48, 96, 6, 3), (3, 5, 90, 7)].map(|(c, k, side, kernel)| {
        let input = Shape::new(c, side, side);
        let mut b = GraphBuilder::new(input);
        let values: Vec<f32> = (0..k * c * kernel * kernel).map(|i| ((i * 31 % 17) as f32 - 8.0) / 64.0).collect();
        let weight = Weight::owned([k, c, kernel, kernel], &values).unwrap();
        let window = Window::square(kernel, 1, kernel / 2);
        let conv = b.push("conv", Op::Conv(Conv { weight, bias: None, window, groups: 1 }), &[b.input()]).unwrap();
        let relu = b.push("relu", Op::Relu, &[conv]).unwrap();
        let pool = b.push("pool", Op::AdaptiveAvgPool { out: [1, 1] }, &[relu]).unwrap();
        let flat = b.push("flatten", Op::Flatten, &[pool]).unwrap();
        let x = Tensor::f32([2, c, side, side], (0..2 * input.len()).map(|i| (i % 13) as f32 - 6.0).collect()).unwrap();
        (b.finish(flat).unwrap(), Batch::new(&x).unwrap())
    });
    // As many copies as a limit has room for.
    let copies = Copies { perturbation: Perturbation::None, weights: vec![1.0 / 20.0; 20] };
    let job = Job { copies, ..Job::gradient(Score::Logit) };
    for settings in machines() {
        let explain = |engine: &mut Engine, (graph, x): &(Graph, Batch)| {
            engine.explain(graph, &job, x, &[0, 1]).unwrap().maps.iter().map(|m| m.to_f64().into_owned()).collect()
        };
        let fresh: Vec<Vec<Vec<f64>>> =
            nets.iter().map(|net| explain(&mut Engine::new(&settings).unwrap(), net)).collect();
        let needed = |net: &(Graph, Batch)| {
            let mut engine = Engine::new(&Settings { memory: Some(1), ..settings.clone() }).unwrap();
            let message = engine.explain(&net.0, &job, &net.1, &[0, 1]).unwrap_err().to_string();
            let text = message.split_once("one copy needs ").unwrap().1.split_once(" MiB").unwrap().0;
            (text.parse::<f64>().unwrap() * f64::from(1 << 20)) as u64
        };
        let most = nets.iter().map(needed).max().unwrap();
        for limit in [most, most * 5 / 4, most * 2, most * 4] {
            let mut engine = Engine::new(&Settings { memory: Some(limit), ..settings.clone() }).unwrap();
            for i in [0, 1, 2, 1, 0, 2, 0, 1] {
                assert!(explain(&mut engine, &nets[i]) == fresh[i], "net {i} under {limit} bytes");
                assert!(engine.peak_bytes() <= limit, "net {i}: {} of {limit} bytes", engine.peak_bytes());
            }
        }
    }
}

/// A strided convolution's adjoint on a map smaller than its stride has other packed weights than on a larger map.
#[test]
fn one_engine_takes_the_same_weights_at_all_sizes() {
    let values: Vec<f32> = (0..6 * 4 * 9).map(|i| ((i * 29 % 23) as f32 - 11.0) / 8.0).collect();
    let weight = Weight::owned([6, 4, 3, 3], &values).unwrap();
    let linear = Weight::owned([3, 6, 1, 1], &values[..18]).unwrap();
    let net = |side: usize| {
        let mut b = GraphBuilder::new(Shape::new(4, side, side));
        let window = Window { stride: [3, 3], padding: Padding::all(1), ..Window::square(3, 1, 0) };
        let conv = Op::Conv(Conv { weight: weight.clone(), bias: None, window, groups: 1 });
        let conv = b.push("conv", conv, &[b.input()]).unwrap();
        let pool = b.push("pool", Op::AdaptiveAvgPool { out: [1, 1] }, &[conv]).unwrap();
        let flat = b.push("flatten", Op::Flatten, &[pool]).unwrap();
        let fc = b.push("fc", Op::Linear(Linear { weight: linear.clone(), bias: None }), &[flat]).unwrap();
        b.finish(fc).unwrap()
    };
    for settings in machines() {
        let mut shared = Engine::new(&settings).unwrap();
        for side in [1, 7, 2, 1, 8, 3] {
            let graph = net(side);
            let x = Batch::new(&Tensor::f32([1, 4, side, side], vec![1.0; 4 * side * side]).unwrap()).unwrap();
            let job = Job::gradient(Score::Logit);
            let got = shared.explain(&graph, &job, &x, &[1]).unwrap().maps;
            let fresh = Engine::new(&settings).unwrap().explain(&graph, &job, &x, &[1]).unwrap().maps;
            assert!(got == fresh, "{:?}, {side} x {side}", settings.kernels);
        }
    }
}

/// Mean, mean square and variance against the copies one by one, their noise drawn here.
#[test]
fn statistics_of_copies() {
    let net = Net::small("resnet_basic");
    let (n, share, seed) = (5, 0.15, 11);
    let settings = Settings { precision: Precision::F64, threads: Some(2), ..Settings::default() };
    let mut engine = Engine::new(&settings).unwrap();
    let picture = &net.x.items()[1];
    let numbers = picture.to_f64();
    let (lo, hi) = numbers.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), &v| (l.min(v), h.max(v)));
    let mut gradients = Vec::new();
    for sample in 0..n {
        let mut z = vec![0f32; numbers.len()];
        random::fill_normals(seed, random::image_key(picture), sample, 0, &mut z);
        let copy = numbers.iter().zip(&z).map(|(x, &z)| (share * (hi - lo)).mul_add(f64::from(z), *x)).collect();
        let copy = Batch::of(vec![Tensor::f64(picture.dims(), copy).unwrap()]).unwrap();
        let answer = engine.explain(&net.graph, &Job::gradient(Score::Logit), &copy, &net.targets[1..]).unwrap();
        gradients.push(answer.maps[0].to_f64().into_owned());
    }
    let over = |f: &dyn Fn(&[f64]) -> f64| -> Vec<f64> {
        (0..numbers.len()).map(|i| f(&gradients.iter().map(|g| g[i]).collect::<Vec<_>>())).collect()
    };
    let mean = |g: &[f64]| g.iter().sum::<f64>() / f64::from(n);
    let wanted = [
        ("smoothgrad", over(&mean)),
        ("squaregrad", over(&|g| g.iter().map(|v| v * v).sum::<f64>() / f64::from(n))),
        ("vargrad", over(&|g| g.iter().map(|v| (v - mean(g)).powi(2)).sum::<f64>() / f64::from(n - 1))),
    ];
    for (method, want) in wanted {
        let maps = net.explain(&mut engine, &format!("{method}:n={n},sigma={share}"), Score::Logit, seed).unwrap();
        let largest = want.iter().fold(0.0f64, |m, v| m.max(v.abs()));
        assert!(largest > 0.0);
        for (got, want) in maps[1].values.to_f64().iter().zip(&want) {
            let within = (got - want).abs() <= 1e-12 * largest;
            assert!(within, "{method}: {got} for {want}");
        }
    }
}

/// Other pictures in the place of copies, and the range of their maps, against the pictures one by one: the same bits.
#[test]
fn ranges_of_other_pictures() {
    let net = Net::small("resnet_bottleneck");
    for settings in machines() {
        let mut engine = Engine::new(&settings).unwrap();
        let precision = engine.describe().precision;
        let other = |item: usize, copy: usize| {
            let x = net.x.items()[item].to_f64();
            let moved = x.iter().enumerate().map(|(i, v)| v + ((i * 7 + copy * 31 + item) % 23) as f64 / 40.0);
            Tensor::rounded(net.x.shape().dims(), moved.collect(), precision).unwrap()
        };
        let others: Vec<Vec<Tensor>> =
            (0..net.x.len()).map(|item| (0..5).map(|copy| other(item, copy)).collect()).collect();
        let copies = Copies { perturbation: Perturbation::Others(others.clone()), weights: vec![1.0; 5] };
        let job = Job { copies, statistic: Statistic::Range, ..Job::gradient(Score::Prob) };
        let got = engine.explain(&net.graph, &job, &net.x, &net.targets).unwrap().maps;
        for (item, map) in got.iter().enumerate() {
            let alone: Vec<Vec<f64>> = others[item]
                .iter()
                .map(|other| {
                    let x = Batch::of(vec![other.clone()]).unwrap();
                    let job = Job::gradient(Score::Prob);
                    let answer = engine.explain(&net.graph, &job, &x, &net.targets[item..=item]).unwrap();
                    answer.maps[0].to_f64().into_owned()
                })
                .collect();
            let range = |i: usize| {
                let all = || alone.iter().map(|map| map[i]);
                all().fold(f64::NEG_INFINITY, f64::max) - all().fold(f64::INFINITY, f64::min)
            };
            let want = Tensor::rounded(map.dims(), (0..map.len()).map(range).collect(), precision).unwrap();
            assert!(want.to_f64().iter().any(|v| *v > 0.0));
            assert!(*map == want, "{:?} {}, picture {item}", settings.kernels, settings.precision);
        }
    }
    let wrong = Copies { perturbation: Perturbation::Others(vec![Vec::new(); net.x.len()]), weights: vec![1.0; 5] };
    let job = Job { copies: wrong, ..Job::gradient(Score::Prob) };
    let refused = Engine::new(&Settings::default()).unwrap().explain(&net.graph, &job, &net.x, &net.targets);
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Settings);
}
