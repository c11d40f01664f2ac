//! Tells the tests whether the data that is not part of the repository lies beside it.

use std::path::Path;

fn main() {
    println!("cargo::rustc-check-cfg=cfg(shared_data)");
    println!("cargo::rerun-if-changed=build.rs");
    let Some(root) = std::env::var_os("CARGO_MANIFEST_DIR") else { return };
    let data = Path::new(&root).join("../shared/data");
    println!("cargo::rerun-if-changed={}", data.display());
    if data.is_dir() {
        println!("cargo::rustc-cfg=shared_data");
    }
}
