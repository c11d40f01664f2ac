//! Every golden row of PyTorch, Captum and Zennit that the methods cover, through the same door as the command line.
//!
//! Double precision must agree to 1e-5. In single precision a rounding flips a few ReLUs and pool winners, and a flip
//! changes a gradient by several per cent; so logits must agree to 1e-4, maps to 5e-2 in the L2 norm, flips are counted, and
//! gradients must agree to 1e-4 when the backward pass runs under the decisions of the double-precision run.
//!
//! `UPDATE_DOCS=1 cargo test --release --test golden` writes the errors in double precision into `docs/methods.md`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod nets;

use std::collections::BTreeMap;
use std::fmt::Write;

use nets::{Net, SMALL, machines, publish};
use verilume::device::Decisions;
use verilume::device::cpu::Kernels;
use verilume::engine::{Engine, Job};
#[cfg(feature = "embedded-model")]
use verilume::model::Model;
use verilume::program::Score;
use verilume::tensor::Precision;

/// Folder of the data that is not part of the repository.
const DATA: Option<&str> = needs::test_data!();

/// Golden name, method, score.
const ROWS: &[(&str, &str, Score)] = &[
    ("gradient", "gradient", Score::Logit),
    ("gradient_prob", "gradient", Score::Prob),
    ("gradient_logprob", "gradient", Score::LogProb),
    ("input_x_gradient", "input_x_gradient", Score::Logit),
    ("deconvnet", "deconvnet", Score::Logit),
    ("guided_backprop", "guided_backprop", Score::Logit),
    ("ig_midpoint_16", "ig:steps=16,rule=midpoint", Score::Logit),
    ("ig_gausslegendre_16", "ig:steps=16,rule=gausslegendre", Score::Logit),
    ("ig_midpoint_16_black", "ig:steps=16,rule=midpoint,baseline=value:-2", Score::Logit),
    ("grad_cam", "grad_cam:upsample=none", Score::Logit),
    ("grad_cam_raw", "grad_cam:upsample=none,relu=no", Score::Logit),
    ("grad_cam_pp", "grad_cam_pp:upsample=none", Score::Logit),
    ("hires_cam", "hires_cam:upsample=none", Score::Logit),
    ("hires_cam_raw", "hires_cam:upsample=none,relu=no", Score::Logit),
    ("layer_cam", "layer_cam:upsample=none", Score::Logit),
    ("xgrad_cam", "xgrad_cam:upsample=none", Score::Logit),
    ("xgrad_cam_raw", "xgrad_cam:upsample=none,relu=no", Score::Logit),
    ("occlusion_8_4", "occlusion:window=8,stride=4,fill=0", Score::Logit),
    ("lrp_epsilon", "lrp:preset=epsilon,epsilon=1e-2", Score::Logit),
    ("lrp_epsilon_plus", "lrp:preset=epsilon_plus", Score::Logit),
    ("lrp_alpha2_beta1", "lrp:preset=epsilon_alpha2_beta1", Score::Logit),
    ("lrp_gamma", "lrp:preset=gamma,gamma=0.25", Score::Logit),
];

/// Rows of residual nets only: on nets whose pools Captum does not cover it is not complete.
const RESIDUAL_ROWS: [(&str, &str, Score); 1] = [("deep_lift_rescale", "deep_lift", Score::Logit)];

/// Rectified maps that are zero everywhere, by net, row and picture: they prove nothing, so they are named.
const ALL_ZERO: &[(&str, &str, usize)] = &[
    ("resnet_basic", "grad_cam", 1),
    ("resnet_basic", "hires_cam", 1),
    ("resnet_basic", "xgrad_cam", 1),
    ("resnext", "grad_cam", 1),
    ("resnext", "hires_cam", 1),
    ("resnext", "xgrad_cam", 1),
];

/// Largest difference of any picture, as a share of the picture's largest reference.
fn max_error(what: &str, got: &[Vec<f64>], want: &[Vec<f64>]) -> f64 {
    error(what, got, want, |v| v.fold(0.0, |m, x| if x.is_nan() { x } else { f64::max(m, x.abs()) }))
}

/// Largest relative L2 difference of any picture.
fn l2_error(what: &str, got: &[Vec<f64>], want: &[Vec<f64>]) -> f64 {
    error(what, got, want, |v| v.map(|x| x * x).sum::<f64>().sqrt())
}

fn error(what: &str, got: &[Vec<f64>], want: &[Vec<f64>], norm: impl Fn(&mut dyn Iterator<Item = f64>) -> f64) -> f64 {
    assert_eq!(got.len(), want.len(), "{what}: pictures");
    let mut worst = 0.0f64;
    for (got, want) in got.iter().zip(want) {
        assert_eq!(got.len(), want.len(), "{what}: numbers");
        let scale = norm(&mut want.iter().copied());
        let difference = norm(&mut got.iter().zip(want).map(|(g, w)| g - w));
        let relative = if scale == 0.0 && difference == 0.0 { 0.0 } else { difference / scale };
        // `f64::max` would drop a NaN.
        worst = if relative.is_nan() { relative } else { worst.max(relative) };
    }
    worst
}

/// Reference answers; those of every picture must say something unless named in [`ALL_ZERO`].
fn reference(net: &Net, row: &str) -> Vec<Vec<f64>> {
    let want = net.reference(row);
    for (i, picture) in want.iter().enumerate() {
        let zero = picture.iter().all(|&v| v == 0.0);
        let named = ALL_ZERO.contains(&(net.name.as_str(), row, i));
        assert_eq!(zero, named, "{} {row}, picture {i}: all zero is {zero}, named as such is {named}", net.name);
    }
    want
}

fn logits(net: &Net, engine: &mut Engine) -> Vec<Vec<f64>> {
    let logits = engine.forward(&net.graph, &net.x).unwrap();
    logits.to_f64().chunks(net.graph.classes()).map(<[f64]>::to_vec).collect()
}

fn maps(net: &Net, engine: &mut Engine, spec: &str, score: Score) -> Vec<Vec<f64>> {
    let maps = net.explain(engine, spec, score, 0).unwrap();
    maps.iter().map(|m| m.values.to_f64().into_owned()).collect()
}

/// `(differing, all)` over the pictures.
fn flips(ours: &[Decisions], twin: &[Decisions]) -> (usize, usize) {
    ours.iter().zip(twin).map(|(a, b)| a.flips(b)).fold((0, 0), |s, f| (s.0 + f.0, s.1 + f.1))
}

/// Adds to `failures` unless `error` is within `tolerance`; a NaN is not.
fn require(failures: &mut Vec<String>, what: String, error: f64, tolerance: f64) {
    let within = error <= tolerance;
    if !within {
        failures.push(format!("{what}: {error:.2e} for {tolerance:.0e}"));
    }
}

/// Rows of ten steps of an optimiser: an error of single precision grows with each, so they are compared in double only.
const DOUBLE_ROWS: [(&str, &str, Score); 2] = [
    ("relex_det_10", "relex:copies=1,noise=0,iterations=10,init=0.005,l1=1e-4", Score::Logit),
    ("haf_det_10", "haf:iterations=10,lambda=0.5,upsample=nearest,keep=last", Score::Logit),
];

/// Errors in double precision by row.
type Errors = BTreeMap<String, f64>;

fn check_double(net: &Net) -> Errors {
    let mut errors = Errors::new();
    let mut failures = Vec::new();
    let settings = machines().into_iter().find(|s| s.precision == Precision::F64).unwrap();
    let mut engine = Engine::new(&settings).unwrap();
    for (row, spec, score) in DOUBLE_ROWS {
        let e = max_error(row, &maps(net, &mut engine, spec, score), &reference(net, row));
        println!("{:<22}{row:<22}{e:>8.1e}", net.name);
        errors.insert(row.into(), e);
        require(&mut failures, format!("{} {row} f64", net.name), e, 1e-5);
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    errors
}

fn check(net: &Net, rows: &[(&str, &str, Score)]) -> Errors {
    let mut errors = Errors::new();
    let mut failures = Vec::new();
    let mut table: Vec<(String, String)> = Vec::new();
    let references: Vec<_> = rows.iter().map(|&(row, ..)| reference(net, row)).collect();
    let want_logits = reference(net, "logits");

    let settings = machines();
    let (twin_settings, rest) = settings.split_first().unwrap();
    assert_eq!(twin_settings.precision, Precision::F64);
    let mut twin = Engine::new(twin_settings).unwrap();
    let e = max_error("logits", &logits(net, &mut twin), &want_logits);
    require(&mut failures, format!("{} logits f64", net.name), e, 1e-5);
    table.push(("logits".into(), format!("{e:>8.1e}")));
    errors.insert("logits".into(), e);
    for (&(row, spec, score), want) in rows.iter().zip(&references) {
        let e = max_error(row, &maps(net, &mut twin, spec, score), want);
        require(&mut failures, format!("{} {row} f64", net.name), e, 1e-5);
        table.push((row.into(), format!("{e:>8.1e}")));
        errors.insert(row.into(), e);
    }
    let decisions = twin.decisions(&net.graph, &net.x).unwrap();
    drop(twin);

    let mut heading = format!("{:>8}", "f64");
    let mut notes = Vec::new();
    for settings in rest {
        let kernels = settings.kernels;
        let mut engine = Engine::new(settings).unwrap();
        let e = max_error("logits", &logits(net, &mut engine), &want_logits);
        require(&mut failures, format!("{} logits {kernels}", net.name), e, 1e-4);
        table[0].1 += &format!(" | {e:>8.1e} {:>8}", "");
        for ((&(row, spec, score), want), line) in rows.iter().zip(&references).zip(&mut table[1..]) {
            let e = l2_error(row, &maps(net, &mut engine, spec, score), want);
            require(&mut failures, format!("{} {row} {kernels}", net.name), e, 5e-2);
            let mut masked = String::new();
            if spec == "gradient" {
                let job = Job::gradient(score);
                let answer = engine.explain_under(&net.graph, &job, &net.x, &net.targets, &decisions).unwrap();
                let got: Vec<_> = answer.maps.iter().map(|m| m.to_f64().into_owned()).collect();
                let e = max_error(row, &got, want);
                require(&mut failures, format!("{} {row} {kernels} under the twin's decisions", net.name), e, 1e-4);
                masked = format!("{e:.1e}");
            }
            line.1 += &format!(" | {e:>8.1e} {masked:>8}");
        }
        let (differing, all) = flips(&engine.decisions(&net.graph, &net.x).unwrap(), &decisions);
        assert!(all > 0, "{}: no decisions", net.name);
        heading += &format!(" | {:>8} {:>8}", kernels, "masked");
        notes.push(format!("{kernels} {differing}"));
        // A net whose decisions differ in more than one of a thousand is not the same function.
        require(&mut failures, format!("{} flips {kernels}", net.name), differing as f64 / all as f64, 1e-3);
        if kernels == Kernels::Portable {
            notes[0] += &format!(" of {all}");
        }
    }
    let lines: Vec<String> = table.iter().map(|(row, errors)| format!("{row:<22}{errors}")).collect();
    println!("{:<22}{heading}\n{}\nflips: {}\n", net.name, lines.join("\n"), notes.join(", "));
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    errors
}

#[test]
fn small_nets() {
    let mut columns = Vec::new();
    for name in SMALL {
        let net = Net::small(name);
        let rows = if name.starts_with("res") { [ROWS, &RESIDUAL_ROWS].concat() } else { ROWS.to_vec() };
        let mut errors = check(&net, &rows);
        errors.append(&mut check_double(&net));
        columns.push((name, errors));
    }
    let mut table = String::from(
        "Largest difference from PyTorch, Captum and Zennit in double precision, as a share of the map's largest number, over\n\
         the pictures of each small net; 1e-5 is allowed. A dash: there is no such reference.\n\n| row |",
    );
    columns.iter().for_each(|(name, _)| write!(table, " {name} |").unwrap());
    write!(table, "\n|---|{}\n", "---|".repeat(columns.len())).unwrap();
    let rows = ["logits"].into_iter().chain(ROWS.iter().chain(&RESIDUAL_ROWS).chain(&DOUBLE_ROWS).map(|r| r.0));
    for row in rows {
        write!(table, "| `{row}` |").unwrap();
        for (_, errors) in &columns {
            match errors.get(row) {
                // Which rounding fell where is not worth a change of the table.
                Some(&e) if e < 1e-9 => table += " < 1e-9 |",
                Some(e) => write!(table, " {e:.0e} |").unwrap(),
                None => table += " – |",
            }
        }
        table.push('\n');
    }
    publish("golden", &table);
}

#[test]
#[cfg(feature = "embedded-model")]
fn efficientnet_lite0() {
    check(&Net::real("efficientnet-lite0", &Model::embedded().unwrap()), &ROWS[..1]);
}

#[needs::shared_data]
#[test]
fn cifar10_resnet20() {
    let path = std::path::Path::new(DATA.unwrap()).join("cifar10-resnet20.safetensors");
    let model = verilume::model::Model::open(&path, None).unwrap();
    check(&Net::real("cifar10-resnet20", &model), &ROWS[..1]);
}
