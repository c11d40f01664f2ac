//! The engine on the kernels of a GPU, run on the CPU: every method on every small net beside the CPU device, the same
//! random bits, and maps that depend on nothing but what was asked.
#![cfg(feature = "cuda")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod nets;

use nets::{Net, SMALL, build, gpu, machines};
use verilume::engine::{Batch, DeviceChoice, Engine, Settings};
use verilume::graph::Op;
use verilume::method::{Entry, registry};
use verilume::program::Score;
use verilume::tensor::{Precision, Tensor};

/// A method with few copies and steps.
fn brief(entry: &Entry) -> String {
    let few = entry.parameters.iter().filter_map(|p| match p.key {
        "preset" if p.unit.contains("quick") => Some("preset=quick".to_string()),
        "n" if p.default.parse::<usize>().is_ok() => Some("n=3".into()),
        "steps" => Some("steps=3".into()),
        "copies" | "iterations" => Some(format!("{}=2", p.key)),
        "window" | "stride" if entry.id == "occlusion" => Some(format!("{}=12", p.key)),
        _ => None,
    });
    let few: Vec<String> = few.collect();
    if few.is_empty() { entry.id.into() } else { format!("{}:{}", entry.id, few.join(",")) }
}

/// `‖a − b‖ / ‖b‖`; NaN where `b` is zero.
fn apart(a: &Tensor, b: &Tensor) -> f64 {
    let (a, b) = (a.to_f64(), b.to_f64());
    let norm = |x: f64, (p, q): (&f64, &f64)| x + (p - q).powi(2);
    let size: f64 = b.iter().map(|v| v * v).sum();
    (a.iter().zip(b.iter()).fold(0.0, norm) / size).sqrt()
}

/// How far single precision is from double on the CPU, by any of its kernels: sums in other orders, Winograd's transforms.
fn spread(net: &Net, spec: &str, truth: &[Tensor]) -> f64 {
    let single = machines().into_iter().filter(|s| s.precision == Precision::F32 && s.device == DeviceChoice::Auto);
    let maps = |s| net.explain(&mut Engine::new(&s).unwrap(), spec, Score::Logit, 1).unwrap();
    single
        .flat_map(|s| maps(s).into_iter().zip(truth).map(|(m, t)| apart(&m.values, t)).collect::<Vec<_>>())
        .fold(0.0, f64::max)
}

/// How far double precision is carried by changes of the picture as large as the error that one layer may make, the
/// rounding of its longest sum: far, where that is enough to change what an activation decides.
fn shaken(net: &Net, double: &mut Engine, spec: &str, truth: &[Tensor]) -> f64 {
    let terms = net.graph.nodes().iter().filter_map(|n| match &n.op {
        Op::Conv(c) => Some(c.weight.row_len()),
        Op::Linear(l) => Some(l.weight.row_len()),
        _ => None,
    });
    let error = (terms.max().unwrap() + 2) as f64 * 2f64.powi(-24);
    let mut worst = 0.0f64;
    for salt in 1..9u64 {
        let moved = net.x.items().iter().map(|x| {
            let shake = |(i, v): (usize, &f64)| {
                let draw = (i as u64 + 1).wrapping_mul(salt.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1) >> 33;
                v * (1.0 + (draw as f64 / f64::from(1u32 << 30) - 1.0) * error)
            };
            Tensor::f64(x.dims(), x.to_f64().iter().enumerate().map(shake).collect()).unwrap()
        });
        let moved = Batch::of(moved.collect()).unwrap().drawn_as(&net.x).unwrap();
        let method = build(spec, Score::Logit, 1, &net.preprocess).unwrap();
        let maps = method.explain(double, &net.graph, &moved, &net.targets).unwrap();
        maps.iter().zip(truth).for_each(|(m, t)| worst = worst.max(apart(&m.values, t)));
    }
    worst
}

#[test]
#[cfg_attr(not(cxx), ignore = "no C++ compiler")]
fn every_method_agrees_with_the_cpu() {
    let mut failures = Vec::new();
    let (mut cases, mut flips) = (0, 0);
    for name in SMALL {
        let net = Net::small(name);
        let mut emulated = Engine::new(&gpu(0)).unwrap();
        let mut double =
            Engine::new(&Settings { precision: Precision::F64, device: DeviceChoice::Cpu, ..Settings::default() })
                .unwrap();
        for entry in registry().iter().filter(|e| e.required().is_none()) {
            let spec = brief(entry);
            let truth = match net.explain(&mut double, &spec, Score::Logit, 1) {
                Ok(maps) => maps.into_iter().map(|m| m.values).collect::<Vec<_>>(),
                Err(e) => {
                    let same = net.explain(&mut emulated, &spec, Score::Logit, 1).unwrap_err();
                    assert_eq!(same.to_string(), e.to_string(), "{name} {spec}");
                    continue;
                }
            };
            let maps = net.explain(&mut emulated, &spec, Score::Logit, 1).unwrap();
            let limit = spread(&net, &spec, &truth).max(1e-7);
            let worst = maps.iter().zip(&truth).map(|(m, t)| apart(&m.values, t)).fold(0.0f64, f64::max);
            cases += 1;
            // Four times: another order of sums is another draw from what rounding can do.
            if worst <= 4.0 * limit {
                continue;
            }
            let limit = shaken(&net, &mut double, &spec, &truth);
            println!("{name} {spec}: {worst:.1e}, a shaken picture's {limit:.1e}");
            flips += 1;
            if !(worst <= 4.0 * limit) {
                failures.push(format!("{name} {spec}: {worst:e} of {limit:e}"));
            }
        }
    }
    println!("{cases} cases, {flips} of them with other decisions");
    // Two of a hundred may have met a tie; more would be no accident.
    assert!(50 * flips <= cases, "{flips} of {cases}");
    assert!(failures.is_empty(), "{failures:#?}");
}
