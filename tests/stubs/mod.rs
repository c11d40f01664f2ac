//! Libraries that pretend to be NVIDIA's, built with the system's C compiler.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Builds `source` of this folder into `folder` under the name `library`.
pub fn build(folder: &Path, source: &str, library: &str, defines: &[&str]) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stubs").join(source);
    let file = folder.join(library);
    let mut compiler = Command::new(std::env::var_os("CC").unwrap_or_else(|| "cc".into()));
    compiler.args(["-shared", "-fPIC", "-O1", "-std=c11", "-o"]).arg(&file).arg(source);
    let output = compiler.args(defines.iter().map(|define| format!("-D{define}"))).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    file
}
