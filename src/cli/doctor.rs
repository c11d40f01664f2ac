//! `verilume doctor`: what this machine and this build offer, and whether the engine tells the truth.

use anyhow::{Context as _, Result, ensure};
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::cli::args::DoctorArgs;
use crate::cli::exit::ExitCode;
use crate::cli::tables::plain;
use crate::cli::talk::StandardOutput;
use crate::device::cpu::Kernels;
use crate::device::cpu::peaks::{self, Peaks};
use crate::engine::{Batch, DeviceChoice, Engine, Settings};
use crate::image::Picture;
use crate::method::{Context, Spec};
use crate::program::Score;
use crate::tensor::{Precision, Shape, Tensor};

/// The embedded weights as they were released.
const EMBEDDED_SHA256: &str = "c0ba56cd3310cbc6a37282697076bd257a1ad684b95dabc3cf7f3780b3afbbf4";
/// Side of the picture that the self-test explains: small, since it runs in double precision too.
const SIDE: usize = 64;

/// A thing that was looked at.
#[derive(Debug, Serialize)]
struct Check {
    ok: bool,
    detail: String,
}

impl Check {
    fn of(result: Result<String>) -> Self {
        match result {
            Ok(detail) => Self { ok: true, detail },
            Err(e) => Self { ok: false, detail: e.to_string() },
        }
    }
}

#[derive(Debug, Serialize)]
struct DoctorReport {
    version: &'static str,
    os: String,
    cpu: CpuReport,
    memory: MemoryReport,
    features: Vec<&'static str>,
    embedded_model: Check,
    /// Of the CPU.
    self_test: Check,
    cuda_driver: Check,
    nvrtc: Check,
    /// What `--device auto` computes on.
    device: String,
    /// Its kernels, and why it is no GPU.
    device_detail: String,
    /// Of the device, if it is not the CPU.
    #[serde(skip_serializing_if = "Option::is_none")]
    device_self_test: Option<Check>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    peaks: Vec<Peaks>,
}

#[derive(Debug, Serialize)]
struct CpuReport {
    model: Option<String>,
    architecture: &'static str,
    features: Vec<&'static str>,
    cores: Option<usize>,
    kernels: String,
}

#[derive(Debug, Serialize)]
struct MemoryReport {
    total_bytes: Option<u64>,
    available_bytes: Option<u64>,
    limit_bytes: Option<u64>,
}

/// Runs the command.
pub fn run(args: &DoctorArgs) -> Result<ExitCode> {
    let (cuda_driver, nvrtc) = cuda();
    let (device, device_detail) = automatic();
    let features = [
        ("cli", true),
        ("cuda", cfg!(feature = "cuda")),
        ("embedded-model", cfg!(feature = "embedded-model")),
        ("jpeg", cfg!(feature = "jpeg")),
        ("png", cfg!(feature = "png")),
    ];
    let report = DoctorReport {
        version: env!("CARGO_PKG_VERSION"),
        os: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
        cpu: cpu(),
        memory: memory(),
        features: features.iter().filter(|(_, on)| *on).map(|(name, _)| *name).collect(),
        embedded_model: Check::of(embedded()),
        self_test: Check::of(self_test(DeviceChoice::Cpu)),
        cuda_driver,
        nvrtc,
        device_self_test: (device != "cpu").then(|| Check::of(self_test(DeviceChoice::Auto))),
        device,
        device_detail,
        peaks: if args.peaks { peaks()? } else { Vec::new() },
    };
    let text = if args.json { serde_json::to_string_pretty(&report)? } else { described(&report) };
    StandardOutput::default().line(&text)?;
    // A build without an embedded net is a choice, a damaged net is not.
    let whole = report.embedded_model.ok || !cfg!(feature = "embedded-model");
    let tested = report.self_test.ok && report.device_self_test.as_ref().is_none_or(|test| test.ok);
    Ok(if whole && tested { ExitCode::SUCCESS } else { ExitCode::from(crate::cli::exit::SOME_FAILED) })
}

/// What `--device auto` gives and why.
fn automatic() -> (String, String) {
    match Engine::new(&Settings::default()) {
        Err(e) => ("none".into(), e.to_string()),
        Ok(engine) => {
            let on = engine.describe();
            let why = match (engine.fallback(), on.device == "cpu") {
                (Some(why), _) => format!("; no GPU is used: {why}"),
                (None, true) if cfg!(feature = "cuda") => "; there is no NVIDIA driver".into(),
                (None, true) => "; this build has no CUDA".into(),
                (None, false) => String::new(),
            };
            (on.device, format!("{} kernels{why}", on.kernels))
        }
    }
}

/// Of one thread and of all.
fn peaks() -> Result<Vec<Peaks>> {
    let all = std::thread::available_parallelism().map_or(1, usize::from);
    let counts = if all > 1 { vec![1, all] } else { vec![1] };
    Ok(counts
        .into_iter()
        .map(|threads| peaks::measure(Precision::F32, Kernels::Auto, threads))
        .collect::<crate::Result<_>>()?)
}

fn embedded() -> Result<String> {
    let model = crate::cli::plan::embedded()?;
    ensure!(model.sha256() == EMBEDDED_SHA256, "damaged: its SHA-256 is {}, not {EMBEDDED_SHA256}", model.sha256());
    Ok(format!("{}, {} bytes, sha256 as released ({})", model.name(), model.file_bytes(), &EMBEDDED_SHA256[..12]))
}

/// Explains a drawn picture in both precisions, and compares the gradient with a finite difference of the score.
fn self_test(device: DeviceChoice) -> Result<String> {
    let model = crate::cli::plan::embedded()?;
    let dots: Vec<u8> = Sha256::digest(b"self-test").iter().copied().cycle().take(SIDE * SIDE * 3).collect();
    let small = crate::image::Preprocess { resize: 0, crop: [SIDE; 2], ..model.preprocess().clone() };
    let x = small.apply(&Picture::new(SIDE, SIDE, dots)?)?.tensor;
    let graph = model.graph(Shape::new(3, SIDE, SIDE))?;

    let mut single = Engine::new(&Settings { device, ..Settings::default() })?;
    let mut double = Engine::new(&Settings::default().twin())?;
    let f32_logits = single.forward(&graph, &Batch::of(vec![x.clone()])?)?;
    let f64_logits = double.forward(&graph, &Batch::of(vec![x.clone()])?)?;
    let largest = f64_logits.to_f64().iter().fold(0.0f64, |m, v| m.max(v.abs()));
    let pairs = || f32_logits.to_f64().into_owned().into_iter().zip(f64_logits.to_f64().into_owned());
    let apart = pairs().map(|(a, b)| (a - b).abs()).fold(0.0, f64::max) / largest;
    ensure!(apart <= 1e-4, "f32 and f64 logits are {apart:.1e} apart");

    let target = crate::score::top(&f64_logits.to_f64()).unwrap_or_default();
    let no_files = |_: &std::path::Path| Err(crate::Error::settings("the self-test reads no files"));
    let context = Context { seed: 0, score: Score::Logit, preprocess: &small, load: &no_files };
    let method = Spec::parse("gradient")?.build(&context)?;
    let maps = method.explain(&mut double, &graph, &Batch::of(vec![x.clone()])?, &[target])?;
    let gradient = maps.first().context("the gradient gave no map")?.values.to_f64().into_owned();
    let norm = gradient.iter().map(|g| g * g).sum::<f64>().sqrt();
    ensure!(norm > 0.0 && norm.is_finite(), "the gradient is {norm}");
    // So short a step crosses next to no ReLU's kink.
    let step = 1e-6;
    let mut moved = |sign: f64| -> Result<f64> {
        let values = x.to_f64().iter().zip(&gradient).map(|(v, g)| v + sign * step * g / norm).collect();
        let logits = double.forward(&graph, &Batch::of(vec![Tensor::f64(x.dims(), values)?])?)?;
        Ok(logits.at(target))
    };
    let slope = (moved(1.0)? - moved(-1.0)?) / (2.0 * step);
    let off = (slope - norm).abs() / norm;
    ensure!(off <= 1e-3, "the gradient's length {norm:.6} is not the slope {slope:.6} of the score");
    Ok(format!("f32 and f64 logits {apart:.1e} apart, gradient and finite difference {off:.1e}"))
}

#[cfg(feature = "cuda")]
fn cuda() -> (Check, Check) {
    let report = crate::device::cuda::probe();
    let driver = report.driver.map_err(anyhow::Error::msg).map(|d| {
        let device =
            |(name, [major, minor]): (&String, &[i32; 2])| format!("{name} (compute capability {major}.{minor})");
        let devices: Vec<String> = d.devices.iter().zip(&d.capabilities).map(device).collect();
        let devices = if devices.is_empty() { "no device".into() } else { devices.join(", ") };
        format!("CUDA {}.{}: {devices}", d.version[0], d.version[1])
    });
    let nvrtc = report.nvrtc.map_err(anyhow::Error::msg);
    let nvrtc = nvrtc.map(|n| format!("{}.{} ({})", n.version[0], n.version[1], n.path.display()));
    (Check::of(driver), Check::of(nvrtc))
}

#[cfg(not(feature = "cuda"))]
fn cuda() -> (Check, Check) {
    let none = || Check { ok: false, detail: "this build has no CUDA (feature `cuda` is off)".into() };
    (none(), none())
}

#[cfg(target_arch = "x86_64")]
macro_rules! detected {
    ($($name:tt),+) => {
        [$(($name, std::arch::is_x86_feature_detected!($name))),+]
    };
}

/// Those that kernels need, and some that tell what the processor is.
fn cpu_features() -> Vec<&'static str> {
    #[cfg(target_arch = "x86_64")]
    let others = detected!("sse4.2", "avx", "avx512vnni", "avx512bf16", "avx512fp16");
    #[cfg(not(target_arch = "x86_64"))]
    let others = [];
    let needed = Kernels::ALL.iter().rev().flat_map(|kernels| kernels.set().features);
    let mut present = Vec::new();
    for (name, here) in needed.map(|(name, here)| (*name, here())).chain(others) {
        if here && !present.contains(&name) {
            present.push(name);
        }
    }
    present
}

fn cpu() -> CpuReport {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find(|l| l.starts_with("model name")).and_then(|l| l.split_once(':'));
    CpuReport {
        model: model.map(|(_, name)| name.trim().to_owned()),
        architecture: std::env::consts::ARCH,
        features: cpu_features(),
        cores: std::thread::available_parallelism().ok().map(usize::from),
        kernels: Engine::new(&Settings { device: DeviceChoice::Cpu, ..Settings::default() })
            .map_or_else(|e| e.to_string(), |engine| engine.describe().kernels),
    }
}

fn memory() -> MemoryReport {
    let now = crate::memory::Memory::now();
    MemoryReport { total_bytes: now.total, available_bytes: now.available, limit_bytes: now.limit }
}

fn described(r: &DoctorReport) -> String {
    let gib = |bytes: Option<u64>| {
        bytes.map_or_else(|| "unknown".into(), |b| format!("{:.1} GiB", b as f64 / (1u64 << 30) as f64))
    };
    let check = |c: &Check| format!("{}  {}", if c.ok { "ok" } else { "--" }, c.detail);
    let limit = r.memory.limit_bytes.map_or_else(String::new, |l| format!(", limited to {}", gib(Some(l))));
    let rows = [
        ("verilume", format!("{} ({})", r.version, r.features.join(", "))),
        ("system", r.os.clone()),
        ("CPU", r.cpu.model.clone().unwrap_or_else(|| r.cpu.architecture.into())),
        ("CPU features", r.cpu.features.join(" ")),
        ("kernels", r.cpu.kernels.clone()),
        ("cores", r.cpu.cores.map_or_else(|| "unknown".into(), |n| n.to_string())),
        ("memory", format!("{}, {} available{limit}", gib(r.memory.total_bytes), gib(r.memory.available_bytes))),
        ("embedded net", check(&r.embedded_model)),
        ("self-test", check(&r.self_test)),
        ("CUDA driver", check(&r.cuda_driver)),
        ("NVRTC", check(&r.nvrtc)),
        ("device (auto)", format!("{}, {}", r.device, r.device_detail)),
    ];
    let mut table = plain();
    for (name, value) in rows {
        table.add_row([name.to_string(), value]);
    }
    if let Some(test) = &r.device_self_test {
        table.add_row(["self-test on it".into(), check(test)]);
    }
    for p in &r.peaks {
        let threads = if p.threads == 1 { "1 thread".into() } else { format!("{} threads", p.threads) };
        let Peaks { fma_gflop_s, read_gb_s, triad_gb_s, kernels, .. } = p;
        let value =
            format!("{fma_gflop_s:.0} GFLOP/s ({kernels}), read {read_gb_s:.1} GB/s, triad {triad_gb_s:.1} GB/s");
        table.add_row([format!("peak, {threads}"), value]);
    }
    table.trim_fmt()
}
