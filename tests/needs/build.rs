//! Looks for what some tests need: instruction sets, a browser, a C++ compiler, Python, NVIDIA's driver and run-time
//! compiler, and the data that is not part of the repository. The library itself has no build script: a program that uses it
//! looks for none of this.

use std::path::{Path, PathBuf};

#[path = "../../src/device/cuda/search.rs"]
mod search;
#[allow(dead_code)]
#[path = "../../src/device/cpu/sets.rs"]
mod sets;

/// Names the folder with the tests' data, if it lies elsewhere.
const DATA: &str = "VERILUME_TEST_DATA";

/// Names the browser, if it is not on the path or another one is meant.
const BROWSER: &str = "VERILUME_CHROMIUM";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let mut found = instruction_sets();
    found.extend(data());
    found.extend(browser());
    found.extend(languages());
    found.extend(cuda());
    println!("cargo::rustc-env=NEEDS_FOUND={}", found.join(","));
}

/// The value of an environment variable; another value makes cargo look again.
fn variable(name: &str) -> Option<std::ffi::OsString> {
    println!("cargo::rerun-if-env-changed={name}");
    std::env::var_os(name)
}

/// Watches what was found. A path that does not exist must not be watched: cargo would look again at every build.
fn watch(path: &Path) {
    println!("cargo::rerun-if-changed={}", path.display());
}

fn on_path(name: &str) -> Option<PathBuf> {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&folders).map(|folder| folder.join(name)).find(|file| file.is_file())
}

fn data() -> Option<String> {
    let root = std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(PathBuf::new, PathBuf::from);
    let data = variable(DATA).map_or_else(|| root.join("../../../shared/data"), PathBuf::from);
    let data = data.canonicalize().ok().filter(|data| data.is_dir())?;
    watch(&data);
    println!("cargo::rustc-env={DATA}={}", data.display());
    Some("shared_data".into())
}

/// Chromium, for the tests of pages. `scripts/test` touches this file when it has installed one.
fn browser() -> Option<String> {
    let names = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];
    let named = variable(BROWSER).map(PathBuf::from);
    let file = named.or_else(|| names.into_iter().find_map(on_path)).filter(|file| file.is_file())?;
    watch(&file);
    println!("cargo::rustc-env={BROWSER}={}", file.display());
    Some("chromium".into())
}

/// A C++ compiler, for the tests that run CUDA kernels on this machine, and Python, for those of the fuzzer.
fn languages() -> Vec<String> {
    let named = variable("CXX").and_then(|name| name.into_string().ok());
    let named = named.is_some_and(|name| Path::new(&name).is_file() || on_path(&name).is_some());
    let cxx = named || ["c++", "g++", "clang++"].into_iter().any(|name| on_path(name).is_some());
    let python = on_path("python3").is_some();
    [(cxx, "cxx"), (python, "python3")].into_iter().filter(|(there, _)| *there).map(|(_, name)| name.into()).collect()
}

/// The lack of NVIDIA's driver, which some tests cannot do with, and NVRTC, for those that compile kernels: where the library
/// looks, and among the loader's own folders.
fn cuda() -> Vec<String> {
    let mut there = Vec::new();
    if !["/proc/driver/nvidia/version", "/dev/dxg"].iter().any(|sign| Path::new(sign).exists()) {
        there.push("no_cuda_driver".to_owned());
    }
    watch(Path::new("../../src/device/cuda/search.rs"));
    let found = search::look(&variable, Path::new("/"));
    let loader = variable("LD_LIBRARY_PATH").filter(|_| !found.named);
    let mut folders = loader.iter().flat_map(std::env::split_paths);
    let of_loader = || folders.find_map(|f| search::NAMES.iter().map(|name| f.join(name)).find(|file| file.is_file()));
    if let Some(file) = found.files.first().cloned().or_else(of_loader) {
        watch(&file);
        there.push("nvrtc".to_owned());
    }
    there
}

fn instruction_sets() -> Vec<String> {
    watch(Path::new("../../src/device/cpu/sets.rs"));
    // A helper of the compiler is built for the machine that compiles; tests of another machine are not run here.
    let there = sets::Kernels::ALL.into_iter().filter(|kernels| kernels.run_here());
    there.map(|kernels| kernels.set().name.to_owned()).collect()
}
