//! ONNX files beside what other programs answer for them.
#![allow(dead_code, reason = "each test binary uses a part")]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use npyz::NpyFile;
use verilume::Result;
use verilume::engine::{Batch, Engine, Job, Settings};
use verilume::model::Model;
use verilume::program::Score;
use verilume::tensor::{Precision, Shape, Tensor};

/// A folder of the tests.
pub fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(name)
}

/// An array of four axes, the first of them of length 1.
#[derive(Debug, Clone, PartialEq)]
pub struct Array {
    pub dims: [usize; 4],
    pub values: Vec<f64>,
}

impl Array {
    /// The numbers of a `.npy` file of single or double precision.
    pub fn read(path: &Path) -> Self {
        let open = || NpyFile::new(std::fs::File::open(path).unwrap()).unwrap();
        let values = match open().dtype().descr().as_str() {
            "'<f4'" => open().into_vec::<f32>().unwrap().into_iter().map(f64::from).collect(),
            _ => open().into_vec::<f64>().unwrap(),
        };
        let dims: Vec<usize> = open().shape().iter().map(|&n| n as usize).collect();
        Self { dims: dims.try_into().unwrap(), values }
    }

    /// `[1, h, w, c]` as `[1, c, h, w]`.
    pub fn channels_first(&self) -> Self {
        let [n, h, w, c] = self.dims;
        let at = |i: usize| self.values[i % (h * w) * c + i / (h * w)];
        Self { dims: [n, c, h, w], values: (0..h * w * c).map(at).collect() }
    }

    /// As the engine takes it.
    fn batch(&self) -> Result<(Shape, Batch)> {
        let [n, c, h, w] = self.dims;
        let tensor = Tensor::f32([n, c, h, w], self.values.iter().map(|&v| v as f32).collect())?;
        Ok((Shape::new(c, h, w), Batch::new(&tensor)?))
    }
}

/// What a net answers in double precision.
#[derive(Debug, Clone)]
pub struct Answer {
    pub logits: Vec<f64>,
    /// The class of the largest logit.
    pub target: usize,
    /// The gradient of the largest logit, channels first.
    pub gradient: Vec<f64>,
}

/// Reads the file, runs the net on `x`, channels first; a panic is an error with `panicked` in front of its message.
pub fn answer(path: &Path, x: &Array) -> Result<Answer, String> {
    let asked = catch_unwind(AssertUnwindSafe(|| run(path, x).map_err(|e| e.to_string())));
    asked.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        Err(format!("panicked: {}", text.or(panic.downcast_ref::<&str>().copied()).unwrap_or_default()))
    })
}

fn run(path: &Path, x: &Array) -> Result<Answer> {
    let model = Model::open(path, None)?;
    let (shape, x) = x.batch()?;
    let graph = model.graph(shape)?;
    let settings = Settings { precision: Precision::F64, threads: Some(1), ..Settings::default() };
    let mut engine = Engine::new(&settings)?;
    let logits = engine.forward(&graph, &x)?.to_f64().into_owned();
    let target = verilume::score::top(&logits).unwrap_or_default();
    let mut maps = engine.explain(&graph, &Job::gradient(Score::Logit), &x, &[target])?.maps;
    Ok(Answer { logits, target, gradient: maps.remove(0).to_f64().into_owned() })
}

/// The largest difference over the largest number; infinite where the lengths differ or a number is not finite.
pub fn apart(found: &[f64], wanted: &[f64]) -> f64 {
    let largest = wanted.iter().fold(0.0f64, |m, v| m.max(v.abs()));
    let differences = || found.iter().zip(wanted).map(|(a, b)| (a - b).abs());
    if found.len() != wanted.len() || !differences().all(f64::is_finite) {
        return f64::INFINITY;
    }
    differences().fold(0.0, f64::max) / largest
}

/// The class of the largest number.
pub fn top(values: &[f64]) -> usize {
    (0..values.len()).rev().max_by(|&a, &b| values[a].total_cmp(&values[b])).unwrap()
}
