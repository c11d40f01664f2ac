//! `verilume kernels`, what NVRTC makes of the kernels, and what their products cost in accuracy.
#![cfg(all(feature = "cli", feature = "cuda"))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod nets;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use nets::{Net, SMALL};
use serde_json::Value;
use verilume::device::Products;
use verilume::device::cpu::Convolution;
use verilume::device::cuda::kernels::{self, Compiler};
use verilume::engine::{DeviceChoice, Engine, Settings};
use verilume::program::Score;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn run(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_verilume"));
    let output = command.args(arguments).current_dir(folder).stdin(Stdio::null()).output().unwrap();
    assert!(!text(&output.stderr).contains("panicked"), "{}", text(&output.stderr));
    output
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn lines(output: &Output) -> Vec<Value> {
    text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// All files of kernels in a new folder, one of them changed.
fn edited(file: &str, from: &str, to: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let output = run(folder.path(), &["kernels", "source", "--out", "mine"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let path = folder.path().join("mine").join(file);
    let old = std::fs::read_to_string(&path).unwrap();
    assert!(old.contains(from), "{file} has no '{from}'");
    std::fs::write(&path, old.replacen(from, to, 1)).unwrap();
    folder
}

#[test]
fn every_kernel_is_listed_once() {
    let folder = tempfile::tempdir().unwrap();
    let output = run(folder.path(), &["kernels", "list", "--json"]);
    assert_eq!(output.status.code(), Some(0));
    let listed = lines(&output);
    let names: BTreeSet<&str> = listed.iter().map(|k| k["kernel"].as_str().unwrap()).collect();
    assert_eq!((names.len(), listed.len()), (kernels::list().len(), kernels::list().len()));
    for kernel in &listed {
        assert!(kernel["threads"].as_u64().unwrap().is_multiple_of(32), "{kernel}");
        assert!(root().join("kernels").join(kernel["file"].as_str().unwrap()).is_file(), "{kernel}");
    }
    let table = text(&run(folder.path(), &["kernels", "list"]).stdout);
    assert!(names.iter().all(|name| table.contains(name)), "{table}");
}

#[test]
fn the_source_is_whole_and_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let output = run(folder.path(), &["kernels", "source", "conv_tf32"]);
    let source = text(&output.stdout);
    let parts = ["-DPRODUCTS=1", "==== arguments.cuh", "==== dialect.cuh", "==== mma.cuh", "==== conv.cu"];
    let at: Vec<usize> = parts.iter().map(|part| source.find(part).expect(part)).collect();
    assert!(at.is_sorted(), "{at:?}");
    let unknown = run(folder.path(), &["kernels", "source", "nothing"]);
    assert_eq!(unknown.status.code(), Some(2));
    assert!(text(&unknown.stderr).contains("no kernel or unit is named 'nothing'"));
}

#[test]
fn what_contradicts_itself_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let explain = ["explain", "x.npy", "--device"];
    for (arguments, why) in [
        (&["cpu", "--precision", "tf32"][..], "needs a CUDA device"),
        (&["emulated", "--precision", "f64"], "on the CPU only"),
        (&["cpu", "--kernel-dir", "mine"], "--kernel-dir mine"),
        (&["auto", "--precision", "f64", "--kernel-dir", "mine"], "--kernel-dir mine"),
        (&["emulated:x"], "emulated"),
    ] {
        let output = run(folder.path(), &[&explain[..], arguments].concat());
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(text(&output.stderr).contains(why), "'{why}' is not in: {}", text(&output.stderr));
    }
    let output = run(folder.path(), &["kernels", "test", "--device", "cpu"]);
    assert_eq!(output.status.code(), Some(2));
}

/// The map that `explain` writes for a small net.
fn explained(folder: &Path, out: &str, device: &str, more: &[&str]) -> Vec<u8> {
    let golden = root().join("tests/golden/small");
    let [model, input] = ["weights", "cases"].map(|part| golden.join(format!("resnet_basic.{part}.safetensors")));
    let fixed = ["explain", input.to_str().unwrap(), "--model", model.to_str().unwrap(), "-m", "gradient"];
    let rest = ["--format", "npy", "-o", out, "--device", device];
    let output = run(folder, &[&fixed[..], &rest, more].concat());
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let manifest: Value =
        serde_json::from_slice(&std::fs::read(folder.join(out).join("manifest.json")).unwrap()).unwrap();
    assert_eq!(manifest["device"], "emulated");
    let npy = std::fs::read_dir(folder.join(out)).unwrap().map(|f| f.unwrap().path());
    let npy = npy.into_iter().find(|path| path.extension().is_some_and(|e| e == "npy")).unwrap();
    std::fs::read(npy).unwrap()
}

#[needs::cxx]
#[test]
fn kernels_that_were_written_out_give_the_same_bits() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(run(folder.path(), &["kernels", "source", "--out", "mine"]).status.code(), Some(0));
    // What is there is not written over.
    assert_eq!(run(folder.path(), &["kernels", "source", "--out", "mine"]).status.code(), Some(2));
    let own = explained(folder.path(), "a", "emulated", &[]);
    assert_eq!(own, explained(folder.path(), "b", "emulated", &["--kernel-dir", "mine"]));
    assert_eq!(own, explained(folder.path(), "c", "emulated:5", &[]));
}

#[needs::cxx]
#[test]
fn a_kernel_that_does_not_compile_is_told_with_its_line() {
    let folder = edited("pointwise.cu", "#include \"dialect.cuh\"", "#include \"dialect.cuh\"\nint wrong = nowhere;");
    let arguments = ["kernels", "test", "--filter", "add", "--kernel-dir", "mine", "--seeds", "1"];
    let output = run(folder.path(), &arguments);
    let said = text(&output.stdout) + &text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("pointwise.cu:") && said.contains("nowhere"), "{said}");
}

#[needs::cxx]
#[test]
fn cases_pass_and_a_wrong_constant_is_found() {
    let folder = tempfile::tempdir().unwrap();
    for filter in ["max pool", "conv 3x3", "path"] {
        let output = run(folder.path(), &["kernels", "test", "--device", "emulated", "--filter", filter, "--json"]);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stdout));
        assert!(lines(&output).iter().all(|line| line["ok"] == true) && !output.stdout.is_empty());
    }
    let output = run(folder.path(), &["kernels", "grad", "--seeds", "1"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stdout));
    assert_eq!(run(folder.path(), &["kernels", "test", "--filter", "nothing"]).status.code(), Some(2));

    let folder = edited(WRONG.0, WRONG.1, WRONG.2);
    let arguments = ["kernels", "test", "--filter", "mul", "--kernel-dir", "mine", "--seeds", "1", "--json"];
    let output = run(folder.path(), &arguments);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stdout));
    assert!(lines(&output).iter().any(|line| line["ok"] == false), "{}", text(&output.stdout));
}

#[needs::nvrtc]
#[test]
fn kernels_stay_within_their_budgets() {
    let table = std::fs::read_to_string(root().join("kernels/budget.csv")).unwrap();
    let (first, rows) = table.split_once('\n').unwrap();
    let mut budget = BTreeMap::new();
    for row in rows.lines().skip(1) {
        let [kernel, arch, registers] = row.split(',').collect::<Vec<_>>().try_into().unwrap();
        budget.insert((kernel, arch), registers.parse::<u32>().unwrap());
    }
    assert_eq!(budget.len(), kernels::list().len() * kernels::ARCHITECTURES.len());
    let compiler = Compiler::open(None).unwrap();
    let [major, minor] = compiler.version();
    // Another compiler allots registers in another way, but must not spill either.
    let measured_by_this_one = first.ends_with(&format!("NVRTC {major}.{minor}"));
    println!("{first}; here is {major}.{minor}");
    for arch in kernels::ARCHITECTURES {
        for built in kernels::units().into_iter().flat_map(|unit| compiler.compile(unit, arch).unwrap()) {
            assert_eq!(built.spill_bytes, 0, "{built:?}");
            let most = budget[&(built.kernel, arch)];
            assert!(
                built.registers <= if measured_by_this_one { most } else { 255 },
                "{built:?}, its budget is {most}"
            );
        }
    }
}

#[needs::nvrtc]
#[test]
fn the_compiler_says_what_each_kernel_needs() {
    let folder = edited("pool.cu", "#include \"dialect.cuh\"", "#include \"dialect.cuh\"\nint wrong = nowhere;");
    let compile = ["kernels", "compile", "--arch", "sm_90a", "--json"];
    let output = run(folder.path(), &[&compile[..], &["--kernel", "conv_tf32", "--kernel", "add"]].concat());
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let built = lines(&output);
    assert_eq!(built.len(), 2);
    for line in &built {
        for key in ["registers", "shared_bytes", "spill_bytes", "stack_bytes"] {
            assert!(line[key].is_u64(), "{line}");
        }
        assert!(line["arch"] == "sm_90a" && line["registers"].as_u64() > Some(0), "{line}");
    }
    // Others are compiled when one is not.
    let output =
        run(folder.path(), &[&compile[..], &["--kernel", "pool", "--kernel", "add", "--kernel-dir", "mine"]].concat());
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("pool.cu(") && text(&output.stderr).contains("nowhere"));
    assert!(lines(&output).iter().any(|line| line["kernel"] == "add"), "{}", text(&output.stdout));
}

/// `‖a − b‖ / ‖b‖`.
fn apart(a: &[f64], b: &[f64]) -> f64 {
    let off: f64 = a.iter().zip(b).map(|(p, q)| (p - q).powi(2)).sum();
    (off / b.iter().map(|q| q * q).sum::<f64>()).sqrt()
}

/// Spearman's correlation of magnitudes; ties do not occur among gradients that matter.
fn rank_correlation(a: &[f64], b: &[f64]) -> f64 {
    let ranks = |v: &[f64]| {
        let mut order: Vec<usize> = (0..v.len()).collect();
        order.sort_by(|&i, &j| v[i].abs().total_cmp(&v[j].abs()));
        let mut ranks = vec![0.0; v.len()];
        order.iter().enumerate().for_each(|(rank, &i)| ranks[i] = rank as f64);
        ranks
    };
    let n = a.len() as f64;
    let squares: f64 = ranks(a).iter().zip(ranks(b)).map(|(p, q)| (p - q).powi(2)).sum();
    1.0 - 6.0 * squares / (n * (n * n - 1.0))
}

/// The table of docs/kernels.md is what is measured; `UPDATE_DOCS=1` writes it. (That errors are no larger than products
/// allow is tested under forced decisions, in `emulated.rs`.)
#[needs::cxx]
#[test]
fn products_cost_what_the_docs_say() {
    let rows = [
        ("`f32`", Products::F32, Convolution::Auto),
        ("`f32`, `--conv fast`", Products::F32, Convolution::Fast),
        ("`tf32`", Products::Tf32, Convolution::Fast),
        ("`f16`", Products::F16, Convolution::Fast),
        ("`bf16`", Products::Bf16, Convolution::Fast),
    ];
    let path = root().join("docs/kernels.md");
    let mut docs = std::fs::read_to_string(&path).unwrap();
    for (name, products, convolution) in rows {
        let (mut worst, mut least, mut flipped, mut all) = (0.0f64, 1.0f64, 0, 0);
        let settings = Settings { device: DeviceChoice::Emulated(0), products, convolution, ..Settings::default() };
        let mut emulated = Engine::new(&settings).unwrap();
        let mut twin = Engine::new(&settings.twin()).unwrap();
        for net in SMALL.map(Net::small) {
            let [maps, truth] =
                [&mut emulated, &mut twin].map(|e| net.explain(e, "gradient", Score::Logit, 0).unwrap());
            for (map, truth) in maps.iter().zip(&truth) {
                let (map, truth) = (map.values.to_f64(), truth.values.to_f64());
                worst = worst.max(apart(&map, &truth));
                least = least.min(rank_correlation(&map, &truth));
            }
            let [got, want] = [&mut emulated, &mut twin].map(|e| e.decisions(&net.graph, &net.x).unwrap());
            for (got, want) in got.iter().zip(&want) {
                let (differing, of) = got.flips(want);
                (flipped, all) = (flipped + differing, all + of);
            }
        }
        let row = format!("| {name} | {worst:.1e} | {flipped} of {all} | {least:.5} |");
        let start = format!("| {name} | ");
        let written = docs.lines().find(|line| line.starts_with(&start)).unwrap().to_owned();
        if std::env::var_os("UPDATE_DOCS").is_some() {
            docs = docs.replacen(&written, &row, 1);
        } else {
            assert_eq!(row, written, "{}", path.display());
        }
    }
    std::fs::write(path, docs).unwrap();
}

/// A file, a line of it, and the same with a wrong constant.
const WRONG: (&str, &str, &str) = ("pointwise.cu", "POINTWISE(mul, x * SECOND)", "POINTWISE(mul, x * SECOND * 1.001f)");
