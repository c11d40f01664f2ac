//! The program where CUDA is not there, or not whole: it says what is missing, and goes on where it can.
#![cfg(all(feature = "cli", feature = "cuda", feature = "embedded-model", target_os = "linux"))]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

mod stubs;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// A machine whose loader finds the libraries of one folder first, and whose user has nothing.
struct Machine {
    folder: tempfile::TempDir,
    /// Where NVRTC is looked for; everywhere if none.
    nvrtc: Option<PathBuf>,
}

impl Machine {
    /// Without a driver and without NVRTC.
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["libraries", "home", "empty"] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
        }
        let nvrtc = Some(folder.path().join("empty"));
        Self { folder, nvrtc }
    }

    fn libraries(&self) -> PathBuf {
        self.folder.path().join("libraries")
    }

    /// With a driver that the stub's `defines` describe.
    fn driver(self, defines: &[&str]) -> Self {
        stubs::build(&self.libraries(), "cuda.c", "libcuda.so.1", defines);
        self
    }

    /// With NVRTC in `folder`.
    fn nvrtc(mut self, folder: &str) -> Self {
        let folder = self.folder.path().join(folder);
        std::fs::create_dir_all(&folder).unwrap();
        stubs::build(&folder, "nvrtc.c", "libnvrtc.so.13", &[]);
        self.nvrtc = None;
        self
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_verilume"));
        command.env_clear().env("LD_LIBRARY_PATH", self.libraries()).env("HOME", self.folder.path().join("home"));
        command.envs(self.nvrtc.as_ref().map(|folder| ("VERILUME_NVRTC_DIR", folder)));
        let output = command.args(arguments).current_dir(self.folder.path()).stdin(Stdio::null()).output().unwrap();
        assert!(!text(&output.stderr).contains("panicked"), "{}", text(&output.stderr));
        output
    }

    /// What `doctor` says of driver and NVRTC.
    fn doctor(&self) -> [(bool, String); 2] {
        let output = self.run(&["doctor", "--json"]);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        ["cuda_driver", "nvrtc"].map(|part| {
            let Value::Object(part) = &report[part] else { panic!("{report}") };
            (part["ok"].as_bool().unwrap(), part["detail"].as_str().unwrap().to_owned())
        })
    }

    fn explain(&self, device: &str) -> Output {
        let picture = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/chelsea.png");
        let picture = picture.to_str().unwrap();
        self.run(&["explain", picture, "-m", "gradient", "--size", "32", "--device", device, "-o", "out"])
    }

    /// `--device cuda:i` is refused for `reasons`, and nothing is written.
    fn refuses(&self, index: usize, reasons: &[&str]) {
        let output = self.explain(&format!("cuda:{index}"));
        let message = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{message}");
        for part in reasons.iter().copied().chain([format!("cuda:{index}").as_str()]) {
            assert!(message.contains(part), "'{part}' is not in: {message}");
        }
        assert!(!self.folder.path().join("out").exists());
    }

    /// What `--device auto` says while it computes on the CPU.
    fn goes_on(&self) -> String {
        let output = self.explain("auto");
        let message = text(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{message}");
        assert!(self.folder.path().join("out/manifest.json").is_file());
        message
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

const NO_NVRTC: &str =
    "NVRTC was not found: the folder that VERILUME_NVRTC_DIR names has no libnvrtc.so.13 or libnvrtc.so.12";
const UNUSABLE: &str = "the CUDA driver is there but unusable: ";

#[needs::no_cuda_driver]
#[test]
fn without_a_driver() {
    let machine = Machine::new();
    let why = "the CUDA driver was not found (libcuda.so.1 is not on the loader's path)";
    assert_eq!(machine.doctor(), [(false, why.into()), (false, NO_NVRTC.into())]);
    machine.refuses(0, &[why, NO_NVRTC]);
    // Nobody expects a GPU here.
    let message = machine.goes_on();
    assert!(!message.contains("CUDA") && !message.contains("NVRTC"), "{message}");
}

#[test]
fn with_a_driver_but_without_nvrtc() {
    let machine = Machine::new().driver(&[]);
    let devices = "CUDA 13.0: Pretended GPU 0 (compute capability 9.0), Pretended GPU 1 (compute capability 9.0)";
    assert_eq!(machine.doctor(), [(true, devices.into()), (false, NO_NVRTC.into())]);
    machine.refuses(0, &[NO_NVRTC]);
    machine.refuses(1, &[NO_NVRTC]);
    machine.refuses(2, &["the CUDA driver reports 2 devices, no number 2", NO_NVRTC]);
    machine.goes_on();
}

#[test]
fn with_a_driver_that_is_too_old() {
    let machine = Machine::new().driver(&["VERSION=11040"]);
    let why = "the CUDA driver is too old: it speaks CUDA 11.4, 12.0 or newer is needed";
    assert_eq!(machine.doctor()[0], (false, why.into()));
    machine.refuses(0, &[why]);
    machine.goes_on();
}

#[test]
fn with_a_driver_that_has_no_device() {
    let machine = Machine::new().driver(&["ABSENT_DEVICES"]).nvrtc("libraries");
    assert_eq!(machine.doctor()[0], (true, "CUDA 13.0: no device".into()));
    let why = "the CUDA driver reports no device";
    machine.refuses(0, &[why]);
    machine.goes_on();
}

#[test]
fn with_a_device_that_is_too_old() {
    let machine = Machine::new().driver(&["MAJOR=7", "MINOR=5"]).nvrtc("libraries");
    let why = "Pretended GPU 0 has compute capability 7.5, 8.0 or newer is needed";
    machine.refuses(0, &[why]);
    machine.goes_on();
}

#[test]
fn with_a_driver_that_does_not_start() {
    let machine = Machine::new().driver(&["BROKEN_INIT=802"]);
    let why = format!("{UNUSABLE}cuInit failed: CUDA_ERROR_SYSTEM_NOT_READY (what the driver says)");
    assert_eq!(machine.doctor()[0], (false, why.clone()));
    machine.refuses(0, &[&why]);
    machine.goes_on();
}

#[test]
fn with_a_driver_that_lacks_a_function() {
    let machine = Machine::new().driver(&["LACKING"]);
    let why = format!("{UNUSABLE}the library has no cuMemAlloc_v2");
    assert_eq!(machine.doctor()[0], (false, why.clone()));
    machine.refuses(0, &[&why]);
    machine.goes_on();
}

#[test]
fn with_a_driver_that_is_no_library() {
    let machine = Machine::new();
    std::fs::write(machine.libraries().join("libcuda.so.1"), "no library").unwrap();
    std::fs::write(machine.libraries().join("libcuda.so"), "no library").unwrap();
    let why = "the CUDA driver is there but cannot be loaded: ";
    assert!(machine.doctor()[0].1.starts_with(why), "{:?}", machine.doctor());
    machine.refuses(0, &[why]);
    machine.goes_on();
}

#[test]
fn with_an_nvrtc_that_is_no_library() {
    let machine = Machine::new().driver(&[]);
    let file = machine.folder.path().join("empty/libnvrtc.so.13");
    std::fs::write(&file, "no library").unwrap();
    let why = format!("NVRTC is there but unusable ({}: ", file.display());
    let [driver, nvrtc] = machine.doctor();
    assert!(driver.0 && !nvrtc.0 && nvrtc.1.starts_with(&why), "{nvrtc:?}");
    machine.refuses(0, &[&why]);
    machine.goes_on();
}

#[test]
fn nvrtc_is_found_in_the_users_python_packages() {
    let folder = "home/.local/lib/python3.11/site-packages/nvidia/cu13/lib";
    let machine = Machine::new().driver(&["ABSENT_DEVICES"]).nvrtc(folder);
    let path = machine.folder.path().join(folder).join("libnvrtc.so.13");
    assert_eq!(machine.doctor()[1], (true, format!("13.0 ({})", path.display())));
}

#[test]
fn nvrtc_is_found_on_the_loaders_path() {
    let [_, nvrtc] = Machine::new().nvrtc("libraries").doctor();
    assert!(nvrtc.0, "{nvrtc:?}");
}

#[test]
fn a_device_that_fails_the_self_test_is_told() {
    let machine = Machine::new().driver(&[]).nvrtc("libraries");
    let output = machine.run(&["doctor", "--json"]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&report["device"], &report["self_test"]["ok"]), (&"cuda:0".into(), &true.into()), "{report}");
    let test = &report["device_self_test"];
    assert!(!test["ok"].as_bool().unwrap() && test["detail"].as_str().unwrap().contains("cuda:0"), "{report}");
}

#[test]
fn a_gpu_that_is_not_used_is_told_with_the_reason() {
    let damaged = |machine: Machine| {
        std::fs::write(machine.folder.path().join("empty/libnvrtc.so.13"), "no library").unwrap();
        machine
    };
    let cases = [
        (Machine::new().driver(&[]), NO_NVRTC),
        (damaged(Machine::new().driver(&[])), "NVRTC is there but unusable"),
        (Machine::new().driver(&["VERSION=11040"]), "the CUDA driver is too old"),
        (Machine::new().driver(&["ABSENT_DEVICES"]), "the CUDA driver reports no device"),
        (Machine::new().driver(&["MAJOR=7", "MINOR=5"]), "compute capability 7.5"),
        (Machine::new().driver(&["BROKEN_INIT=802"]), "CUDA_ERROR_SYSTEM_NOT_READY"),
        (Machine::new().driver(&["LACKING"]), "cuMemAlloc_v2"),
    ];
    for (machine, why) in cases {
        let message = machine.goes_on();
        let told = message.lines().find(|line| line.starts_with("computing on the CPU: ")).unwrap_or_default();
        assert!(told.contains(why), "'{why}' is not in: {message}");
        assert_eq!(message.matches(why).count(), 1, "{message}");
    }
}
