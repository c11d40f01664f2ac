//! Tells the tests what there is: the instruction sets of this machine, a browser, Python, NVIDIA's driver and run-time
//! compiler, and the data that is not part of the repository.

use std::path::{Path, PathBuf};

#[path = "src/device/cuda/search.rs"]
mod search;
#[allow(dead_code)]
#[path = "src/device/cpu/sets.rs"]
mod sets;

/// Names the folder with the tests' data, if it lies elsewhere.
const DATA: &str = "VERILUME_TEST_DATA";

/// Names the browser, if it is not on the path or another one is meant.
const BROWSER: &str = "VERILUME_CHROMIUM";

fn main() {
    println!("cargo::rustc-check-cfg=cfg(shared_data, chromium, cxx, python3, nvrtc, cuda_driver)");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed={DATA}");
    instruction_sets();
    browser();
    languages();
    cuda();
    let Some(root) = std::env::var_os("CARGO_MANIFEST_DIR") else { return };
    let data = std::env::var_os(DATA).map_or_else(|| Path::new(&root).join("../shared/data"), PathBuf::from);
    println!("cargo::rerun-if-changed={}", data.display());
    if let Ok(data) = data.canonicalize()
        && data.is_dir()
    {
        println!("cargo::rustc-cfg=shared_data");
        println!("cargo::rustc-env={DATA}={}", data.display());
    }
}

/// Chromium, for the tests of pages. `scripts/test` touches this file when it has installed one.
fn browser() {
    println!("cargo::rerun-if-env-changed={BROWSER}");
    let on_path = |name: &&str| {
        let path = std::env::var_os("PATH")?;
        std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file())
    };
    let names = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];
    let named = std::env::var_os(BROWSER).map(PathBuf::from);
    if let Some(file) = named.or_else(|| names.iter().find_map(on_path)) {
        println!("cargo::rerun-if-changed={}", file.display());
        println!("cargo::rustc-cfg=chromium");
        println!("cargo::rustc-env={BROWSER}={}", file.display());
    }
}

/// A C++ compiler, for the tests that run CUDA kernels on this machine, and Python, for those of the fuzzer.
fn languages() {
    println!("cargo::rerun-if-env-changed=CXX");
    let on_path = |name: &str| {
        let folders = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&folders).any(|folder| folder.join(name).is_file())
    };
    if on_path("python3") {
        println!("cargo::rustc-cfg=python3");
    }
    let named = std::env::var("CXX").is_ok_and(|name| Path::new(&name).is_file() || on_path(&name));
    if named || ["c++", "g++", "clang++"].into_iter().any(on_path) {
        println!("cargo::rustc-cfg=cxx");
    }
}

/// NVIDIA's driver, which some tests cannot do with, and NVRTC, for those that compile kernels: where the library looks, and
/// among the loader's own folders.
fn cuda() {
    if ["/proc/driver/nvidia/version", "/dev/dxg"].iter().any(|sign| Path::new(sign).exists()) {
        println!("cargo::rustc-cfg=cuda_driver");
    }
    println!("cargo::rerun-if-changed=src/device/cuda/search.rs");
    let variable = |name: &str| {
        println!("cargo::rerun-if-env-changed={name}");
        std::env::var_os(name)
    };
    let found = search::look(&variable, Path::new("/"));
    let loader = variable("LD_LIBRARY_PATH").filter(|_| !found.named);
    let mut folders = loader.iter().flat_map(std::env::split_paths);
    let of_loader = || folders.find_map(|f| search::NAMES.iter().map(|name| f.join(name)).find(|file| file.is_file()));
    if let Some(file) = found.files.first().cloned().or_else(of_loader) {
        println!("cargo::rerun-if-changed={}", file.display());
        println!("cargo::rustc-cfg=nvrtc");
    }
}

fn instruction_sets() {
    println!("cargo::rerun-if-changed=src/device/cpu/sets.rs");
    // Another machine's tests are not run here.
    let own = std::env::var_os("HOST") == std::env::var_os("TARGET");
    for kernels in sets::Kernels::ALL {
        let name = kernels.set().name;
        println!("cargo::rustc-check-cfg=cfg(host_{name})");
        if own && kernels.run_here() {
            println!("cargo::rustc-cfg=host_{name}");
        }
    }
}
