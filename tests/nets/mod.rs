//! The nets of `tests/golden` with their pictures, targets and reference answers, and every engine of this machine.
#![allow(dead_code, reason = "each test binary uses a part")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use safetensors::{Dtype, SafeTensors};
use verilume::device::cpu::{Convolution, Kernels};
use verilume::engine::{Batch, Engine, Settings};
use verilume::graph::Graph;
use verilume::image::Preprocess;
use verilume::map::Map;
use verilume::method::{Context, Entry, Spec};
use verilume::model::Model;
use verilume::program::Score;
use verilume::random;
use verilume::tensor::{Precision, Shape, Tensor};
use verilume::{Error, Result};

/// The nets of `tests/golden/small`.
pub const SMALL: [&str; 5] = ["vgg", "vgg_bn", "resnet_basic", "resnet_bottleneck", "resnext"];

/// A net, pictures, the classes to explain, and reference answers.
pub struct Net {
    pub name: String,
    pub graph: Arc<Graph>,
    pub preprocess: Preprocess,
    pub x: Batch,
    pub targets: Vec<usize>,
    bytes: Vec<u8>,
}

/// A golden file; `VERILUME_TEST_ROOT` names the repository where the tests run elsewhere than they were built.
fn golden(path: &str) -> PathBuf {
    let root = std::env::var_os("VERILUME_TEST_ROOT").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    Path::new(&root).join("tests/golden").join(path)
}

impl Net {
    pub fn small(name: &str) -> Self {
        let model = Model::open(&golden(&format!("small/{name}.weights.safetensors")), None).unwrap();
        Self::new(name, &model, &golden(&format!("small/{name}.cases.safetensors")))
    }

    pub fn real(name: &str, model: &Model) -> Self {
        Self::new(name, model, &golden(&format!("real/{name}.cases.safetensors")))
    }

    /// A published net with random weights on `n` pictures of noise, whose classes it finds.
    pub fn random(name: &str, shape: Shape, n: usize) -> Self {
        let model = Model::random(name, 3).unwrap();
        let graph = model.graph(shape).unwrap();
        let noise = |key: u64| {
            let mut noise = vec![0f32; shape.len()];
            random::fill_normals(7, key, 0, 0, &mut noise);
            Tensor::f32(shape.dims(), noise).unwrap()
        };
        let x = Batch::of((1..=n as u64).map(noise).collect()).unwrap();
        let settings = Settings { precision: Precision::F64, threads: Some(2), ..Settings::default() };
        let logits = Engine::new(&settings).unwrap().forward(&graph, &x).unwrap().to_f64().into_owned();
        let best = |of: &[f64]| (0..of.len()).max_by(|&a, &b| of[a].total_cmp(&of[b])).unwrap();
        let targets = logits.chunks(graph.classes()).map(best).collect();
        Self { name: name.into(), graph, preprocess: model.preprocess().clone(), x, targets, bytes: Vec::new() }
    }

    fn new(name: &str, model: &Model, cases: &Path) -> Self {
        let bytes = std::fs::read(cases).unwrap_or_else(|e| panic!("{}: {e}", cases.display()));
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let input = file.tensor("input").unwrap();
        let &[_, c, h, w] = input.shape() else { panic!("{name}: input of shape {:?}", input.shape()) };
        let x = Tensor::f64(input.shape().to_vec(), numbers(&file, "input")).unwrap();
        let x = Batch::new(&Tensor::rounded(x.dims(), x.to_f64().into_owned(), Precision::F32).unwrap()).unwrap();
        let targets = file.tensor("target").unwrap();
        assert_eq!(targets.dtype(), Dtype::I64);
        let targets: Vec<usize> =
            targets.data().as_chunks().0.iter().map(|b| i64::from_le_bytes(*b) as usize).collect();
        assert_eq!(targets.len(), x.len());
        let graph = model.graph(Shape::new(c, h, w)).unwrap();
        Self { name: name.into(), graph, preprocess: model.preprocess().clone(), x, targets, bytes }
    }

    /// The reference answer of one row, one vector a picture; a row that is missing or holds a NaN fails.
    pub fn reference(&self, row: &str) -> Vec<Vec<f64>> {
        let file = SafeTensors::deserialize(&self.bytes).unwrap();
        let all = numbers(&file, row);
        assert!(all.iter().all(|v| v.is_finite()), "{} {row} is not finite", self.name);
        assert!(
            !all.is_empty() && all.len().is_multiple_of(self.x.len()),
            "{} {row}: {} numbers",
            self.name,
            all.len()
        );
        all.chunks(all.len() / self.x.len()).map(<[f64]>::to_vec).collect()
    }

    /// Maps of a method given as on the command line.
    pub fn explain(&self, engine: &mut Engine, spec: &str, score: Score, seed: u64) -> Result<Vec<Map>> {
        let method = build(spec, score, seed, &self.preprocess)?;
        method.explain(engine, &self.graph, &self.x, &self.targets)
    }
}

/// A method given as on the command line.
pub fn build(
    spec: &str,
    score: Score,
    seed: u64,
    preprocess: &Preprocess,
) -> Result<Box<dyn verilume::method::Method>> {
    let load = |path: &Path| Err(Error::input(format!("{} is not there", path.display())));
    Spec::parse(spec)?.build(&Context { seed, score, preprocess, load: &load })
}

/// A method with its defaults, or by its quickest preset where it has presets.
pub fn brief(entry: &Entry) -> String {
    match entry.parameters.iter().find(|p| p.key == "preset" && p.unit.contains("quick")) {
        Some(_) => format!("{}:preset=quick", entry.id),
        None => entry.id.into(),
    }
}

/// With `UPDATE_DOCS` set, puts a measured table into `docs/methods.md`, in place of the last one of that name.
pub fn publish(name: &str, table: &str) {
    if std::env::var_os("UPDATE_DOCS").is_none() {
        return;
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/methods.md");
    let mut text = std::fs::read_to_string(&path).unwrap();
    let [start, end] = ["", "/"].map(|slash| format!("<!-- {slash}{name} -->\n"));
    let block = format!("{start}{table}{end}");
    match (text.find(&start), text.find(&end)) {
        (Some(a), Some(b)) => text.replace_range(a..b + end.len(), &block),
        _ => {
            if !text.contains("\n## Measured\n") {
                text += "\n## Measured\n";
            }
            text += &format!("\n{block}");
        }
    }
    std::fs::write(path, text).unwrap();
}

fn numbers(file: &SafeTensors, name: &str) -> Vec<f64> {
    let view = file.tensor(name).unwrap_or_else(|e| panic!("{name}: {e}"));
    match view.dtype() {
        Dtype::F32 => view.data().as_chunks().0.iter().map(|b| f64::from(f32::from_le_bytes(*b))).collect(),
        Dtype::F64 => view.data().as_chunks().0.iter().map(|b| f64::from_le_bytes(*b)).collect(),
        other => panic!("{name} is {other:?}"),
    }
}

/// Precisions, kernels and ways to convolve of this machine's instruction sets; `tests/ops` shows those it lacks as
/// ignored.
pub fn machines() -> Vec<Settings> {
    let all = [
        (Precision::F64, Kernels::Portable, Convolution::Fast),
        (Precision::F32, Kernels::Portable, Convolution::Fast),
        (Precision::F32, Kernels::Avx2, Convolution::Fast),
        (Precision::F32, Kernels::Avx2, Convolution::Exact),
        (Precision::F32, Kernels::Avx512, Convolution::Fast),
        (Precision::F32, Kernels::Avx512, Convolution::Exact),
    ];
    let settings = |(precision, kernels, convolution)| Settings {
        precision,
        kernels,
        convolution,
        threads: Some(2),
        ..Settings::default()
    };
    let mut machines: Vec<Settings> = all.into_iter().filter(|all| all.1.run_here()).map(settings).collect();
    // A GPU that is named is one of them.
    #[cfg(feature = "cuda")]
    machines.extend(std::env::var_os("VERILUME_TEST_DEVICE").map(|_| gpu(0)));
    machines
}

/// The GPU whose kernels are tested, with threads in the order that `seed` says where it is emulated:
/// `VERILUME_TEST_DEVICE` (as `--device`) names another device than the emulated one.
#[cfg(feature = "cuda")]
pub fn gpu(seed: u64) -> Settings {
    let device = match std::env::var("VERILUME_TEST_DEVICE") {
        Ok(name) => name.parse().unwrap(),
        Err(_) => verilume::engine::DeviceChoice::Emulated(seed),
    };
    Settings { device, convolution: Convolution::Exact, threads: Some(2), ..Settings::default() }
}

/// Bits of a map's numbers.
pub fn bits(map: &Map) -> Vec<u64> {
    map.values.to_f64().iter().map(|v| v.to_bits()).collect()
}

/// The bytes that the message of a refused limit names as enough, for the largest of a method's programs.
pub fn named_as_enough(settings: &Settings, net: &Net, spec: &str) -> u64 {
    let mut limit = 1;
    loop {
        let mut engine = Engine::new(&Settings { memory: Some(limit), ..settings.clone() }).unwrap();
        let Err(error) = net.explain(&mut engine, spec, Score::Logit, 1) else { return limit };
        assert!(limit > 1 || engine.peak_bytes() == 0, "nothing is held by an engine that refused");
        limit = named_in(&error).max(limit + 1);
    }
}

fn named_in(error: &Error) -> u64 {
    assert_eq!(error.kind(), verilume::ErrorKind::Limit, "{error}");
    let message = error.to_string();
    let (_, rest) = message.split_once("one copy needs ").unwrap_or_else(|| panic!("{message}"));
    let mebibytes: f64 = rest.split_once(" MiB").unwrap().0.parse().unwrap();
    (mebibytes * f64::from(1 << 20)).ceil() as u64
}
