//! `--memory` binds the whole process: weights, feature maps, scratch, and what methods, tests and fits keep beside them.
#![cfg(all(feature = "cli", target_os = "linux"))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::collections::HashMap;
use std::path::Path;
use std::process::{Command, Stdio};

use safetensors::{Dtype, tensor::TensorView};
use verilume::model::blueprint;

const MIB: f64 = 1048576.0;

/// A ResNet-18 with weights that keep signals at order one, and a picture.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let mut state = 1u64;
    let mut uniform = move || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    let mut tensors: HashMap<String, (Vec<usize>, Vec<u8>)> = HashMap::new();
    for tensor in blueprint("resnet18").unwrap() {
        let fan: usize = tensor.shape[1..].iter().product();
        let numbers = (0..tensor.shape.iter().product::<usize>()).map(|_| match tensor.shape.len() {
            1 if tensor.name.ends_with("bias") || tensor.name.ends_with("mean") => 0.05 * uniform(),
            1 => {
                if tensor.name.contains("bn2.weight") {
                    0.25
                } else {
                    1.0
                }
            }
            _ => uniform() * (6.0 / fan as f32).sqrt(),
        });
        let bytes = numbers.flat_map(f32::to_le_bytes).collect();
        tensors.insert(tensor.name.clone(), (tensor.shape.clone(), bytes));
    }
    let views = tensors
        .iter()
        .map(|(name, (shape, bytes))| (name.as_str(), TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap()));
    std::fs::write(folder.path().join("net.safetensors"), safetensors::serialize(views, None).unwrap()).unwrap();
    let level = |x: u32, y: u32, c: u32| (x * 7 + y * 13 + c * 85 + (x * y) % 31) as u8;
    let picture = image::RgbImage::from_fn(256, 256, |x, y| image::Rgb([0, 1, 2].map(|c| level(x, y, c))));
    picture.save(folder.path().join("a.png")).unwrap();
    folder
}

/// What a run came to: whether it succeeded, what it said, and the most memory that was resident.
struct Ran {
    success: bool,
    said: String,
    resident: f64,
}

fn run(folder: &Path, arguments: &[&str], memory: Option<f64>) -> Ran {
    let bytes = memory.map(|memory| format!("{}", memory.ceil()));
    let bound: Vec<&str> = bytes.iter().flat_map(|bytes| ["--memory", bytes]).collect();
    let log = folder.join("log");
    let mut child = Command::new(env!("CARGO_BIN_EXE_verilume"))
        .current_dir(folder)
        // What is freed goes back to the system at once: glibc keeps up to 64 MiB for later otherwise.
        .envs([("MALLOC_MMAP_THRESHOLD_", "131072"), ("MALLOC_TRIM_THRESHOLD_", "131072"), ("MALLOC_ARENA_MAX", "1")])
        .args([arguments, &["--model", "net.safetensors", "--threads", "1", "--device", "cpu"], &bound].concat())
        .stdin(Stdio::null())
        .stdout(std::fs::File::create(folder.join("answer")).unwrap())
        .stderr(std::fs::File::create(&log).unwrap())
        .spawn()
        .unwrap();
    let status = format!("/proc/{}/status", child.id());
    let mut resident = 0.0;
    let ended = loop {
        // The peak only grows: the last reading is nearly the last word.
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let peak =
            text.lines().find_map(|l| l.strip_prefix("VmHWM:")?.trim().strip_suffix("kB")?.trim().parse::<f64>().ok());
        resident = peak.map_or(resident, |kib| kib * 1024.0);
        if let Some(ended) = child.try_wait().unwrap() {
            break ended;
        }
        std::thread::sleep(std::time::Duration::from_millis(2));
    };
    let said = std::fs::read_to_string(&log).unwrap() + &std::fs::read_to_string(folder.join("answer")).unwrap();
    assert!(!said.contains("panicked"), "{said}");
    Ran { success: ended.success(), said, resident }
}

/// Bytes that the process takes besides what the bound is for: the program, the weights file, a picture and its map. What a
/// plain gradient takes beyond the least bound that suffices for it.
fn fixed(folder: &Path) -> f64 {
    let arguments = ["explain", "a.png", "-m", "gradient", "--format", "npy", "-o", "plain"];
    let (memory, ran) = enough(folder, &arguments, f64::INFINITY);
    // A reading may miss the last moment of a run.
    let again = (0..3).map(|_| run(folder, &arguments, Some(memory)).resident);
    let resident = again.fold(ran.resident, f64::max);
    // The system counts resident pages in batches of a thread and a processor: less than 1 MiB in all.
    resident - memory + MIB
}

/// The least bound that the program's refusals name as enough, and the run under it.
fn enough(folder: &Path, arguments: &[&str], fixed: f64) -> (f64, Ran) {
    // Enough to prepare a picture, too little for a net.
    let mut memory = 16.0 * MIB;
    for _ in 0..12 {
        let ran = run(folder, arguments, Some(memory));
        let Some((_, rest)) = ran.said.split_once("one copy needs ") else {
            assert!(ran.success, "{arguments:?} under {memory}: {}", ran.said);
            return (memory, ran);
        };
        // Nothing beyond the bound is taken before the refusal. Commands differ by little: a second engine, a report.
        let file = folder.join("net.safetensors").metadata().unwrap().len() as f64;
        let within = fixed + memory + file / 10.0;
        assert!(ran.resident <= within, "{arguments:?}: {} of {} MiB, then refused", ran.resident / MIB, within / MIB);
        let named: f64 = rest.split_once(" MiB").unwrap().0.parse().unwrap();
        assert!(named * MIB > memory, "{}", ran.said);
        memory = named * MIB;
    }
    panic!("{arguments:?}: no bound suffices");
}

/// Whether a run keeps to the bound besides what a plain gradient takes.
fn keeps(folder: &Path, what: &str, arguments: &[&str], fixed: f64) -> bool {
    let (memory, ran) = enough(folder, arguments, fixed);
    let (resident, most) = (ran.resident / MIB, (fixed + memory) / MIB);
    println!("{what}: {resident:.0} MiB of {most:.0} under {:.1}", memory / MIB);
    resident <= most
}

#[test]
fn methods_keep_within_the_bound() {
    let folder = folder();
    let folder = folder.path();
    let fixed = fixed(folder);
    let methods = [
        "haf:iterations=2",
        "full_grad",
        "extremal_perturbation:iterations=2",
        "meaningful_perturbation:iterations=2",
        "relex:iterations=2,copies=2",
        "smooth:n=17,base=gradient",
        "expected_gradients:n=17",
        "grad_cam",
        "rise:n=100",
        "decoy:iterations=2",
    ];
    let within = |method: &&str| {
        keeps(folder, method, &["explain", "a.png", "-m", method, "-o", "kept", "--format", "npy"], fixed)
    };
    let beyond: Vec<&str> = methods.into_iter().filter(|method| !within(method)).collect();
    assert!(beyond.is_empty(), "{beyond:?} took more than allowed");
}

#[test]
fn randomised_nets_of_a_check_are_counted() {
    let folder = folder();
    let folder = folder.path();
    let fixed = fixed(folder);
    let arguments = [
        "check",
        "a.png",
        "-m",
        "gradient",
        "--tests",
        "cascading_randomisation,independent_randomisation",
        "-o",
        "report",
        "--size",
        "64",
    ];
    assert!(keeps(folder, "check", &arguments, fixed));
}

#[test]
fn patterns_are_fitted_within_the_bound() {
    let folder = folder();
    let folder = folder.path();
    let fixed = fixed(folder);
    std::fs::create_dir_all(folder.join("data")).unwrap();
    for i in 0..2 {
        let level = |x: u32, y: u32| (x * (3 + i) + y * 5 + (x * y + i) % 17) as u8;
        let picture = image::RgbImage::from_fn(64, 64, |x, y| image::Rgb([level(x, y), level(y, x), level(x, x)]));
        picture.save(folder.join(format!("data/{i}.png"))).unwrap();
    }
    let arguments = ["patterns", "fit", "--data", "data", "--size", "64", "-o", "patterns.safetensors"];
    assert!(keeps(folder, "patterns", &arguments, fixed));
}
