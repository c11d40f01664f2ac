//! What single precision does to a net: the error of logits and gradients and the decisions that flip, for every kernel
//! set of this machine, held against the double-precision twin.
//!
//! `cargo run --release --example precision -- [PICTURES] MODEL...`; a model is a safetensors file, a net of
//! `verilume model list` (random weights) or `embedded`; so many noise pictures (default 2) are explained, each for the
//! class the twin gives the highest logit.

use std::path::Path;

use verilume::device::Decisions;
use verilume::device::cpu::{Convolution, Kernels};
use verilume::engine::{Batch, Engine, Job, Settings};
use verilume::model::Model;
use verilume::program::Score;
use verilume::random;
use verilume::score::top;
use verilume::tensor::{Precision, Tensor};
use verilume::{Error, ErrorKind, Result};

/// Kernels and ways to convolve that are compared.
const SETS: [(Kernels, Convolution); 5] = [
    (Kernels::Avx512, Convolution::Fast),
    (Kernels::Avx512, Convolution::Exact),
    (Kernels::Avx2, Convolution::Fast),
    (Kernels::Avx2, Convolution::Exact),
    (Kernels::Portable, Convolution::Exact),
];

fn main() -> Result<()> {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let pictures = match arguments.first().and_then(|a| a.parse().ok()) {
        Some(0) => return Err(Error::settings("at least one picture is needed")),
        Some(n) => {
            arguments.remove(0);
            n
        }
        None => 2,
    };
    if arguments.is_empty() {
        return Err(Error::settings("usage: precision [PICTURES] MODEL..."));
    }
    println!(
        "{:<20} {:<8} {:<5} {:>9} {:>9} {:>9} {:>9}  flipped",
        "model", "kernels", "conv", "logits", "gradient", "worst", "masked"
    );
    arguments.iter().try_for_each(|name| compare(name, pictures))
}

fn open(name: &str) -> Result<Model> {
    match name {
        "embedded" => Model::embedded(),
        _ if Path::new(name).exists() => Model::open(name.as_ref(), None),
        _ => Model::random(name, 0),
    }
}

fn compare(name: &str, pictures: usize) -> Result<()> {
    let model = open(name)?;
    let graph = model.graph(model.default_input())?;
    let shape = graph.input_shape();
    let noise = |i: usize| {
        let mut numbers = vec![0f32; shape.len()];
        random::fill_normals(0, i as u64, 0, 0, &mut numbers);
        Tensor::rounded(shape.dims(), numbers.into_iter().map(f64::from).collect(), Precision::F32)
    };
    let x = Batch::of((0..pictures).map(noise).collect::<Result<_>>()?)?;

    let mut twin = Engine::new(&Settings { precision: Precision::F64, ..Settings::default() })?;
    let logits = twin.forward(&graph, &x)?;
    let targets: Vec<usize> = logits.to_f64().chunks(graph.classes()).filter_map(top).collect();
    let job = Job::gradient(Score::Logit);
    let truth = twin.explain(&graph, &job, &x, &targets)?.maps;
    let decisions = twin.decisions(&graph, &x)?;
    drop(twin);

    let short = Path::new(name).file_stem().map_or(name.into(), |s| s.to_string_lossy());
    for (kernels, convolution) in SETS {
        let mut engine = match Engine::new(&Settings { kernels, convolution, ..Settings::default() }) {
            Err(e) if e.kind() == ErrorKind::Settings => continue, // the machine lacks them
            other => other?,
        };
        let off_logits = largest(&engine.forward(&graph, &x)?, &logits);
        let maps = engine.explain(&graph, &job, &x, &targets)?.maps;
        let off: Vec<f64> = maps.iter().zip(&truth).map(|(a, b)| distance(a, b)).collect();
        let masked = engine.explain_under(&graph, &job, &x, &targets, &decisions)?.maps;
        let off_masked = masked.iter().zip(&truth).map(|(a, b)| largest(a, b)).fold(0.0, f64::max);
        let (flipped, all) = flips(&engine.decisions(&graph, &x)?, &decisions);
        let mean = off.iter().sum::<f64>() / pictures as f64;
        let worst = off.iter().copied().fold(0.0, f64::max);
        let [kernels, convolution] = [format!("{kernels:?}"), format!("{convolution:?}")].map(|s| s.to_lowercase());
        println!(
            "{short:<20} {kernels:<8} {convolution:<5} {off_logits:>9.1e} {mean:>9.1e} {worst:>9.1e} {off_masked:>9.1e}  \
             {flipped} of {all}"
        );
    }
    Ok(())
}

/// `max |a − b| / max |b|`.
fn largest(a: &Tensor, b: &Tensor) -> f64 {
    let top = b.to_f64().iter().fold(0f64, |m, v| m.max(v.abs()));
    a.to_f64().iter().zip(b.to_f64().iter()).fold(0f64, |m, (a, b)| m.max((a - b).abs())) / top
}

/// `‖a − b‖₂ / ‖b‖₂`.
fn distance(a: &Tensor, b: &Tensor) -> f64 {
    let square = |f: &dyn Fn(usize) -> f64| (0..b.len()).map(|i| f(i).powi(2)).sum::<f64>();
    (square(&|i| a.at(i) - b.at(i)) / square(&|i| b.at(i))).sqrt()
}

fn flips(ours: &[Decisions], twin: &[Decisions]) -> (usize, usize) {
    ours.iter().zip(twin).map(|(a, b)| a.flips(b)).fold((0, 0), |s, f| (s.0 + f.0, s.1 + f.1))
}
