//! Weights files: every architecture is recognised, every damaged file is refused with a sentence that helps.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail anywhere")]

mod answers;
mod beside;
mod families;
mod files;
mod labels;
mod layouts;
mod tensors;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use layouts::*;
use verilume::graph::{Bytes, Dump, Op};
use verilume::image::{Interpolation, Preprocess};
use verilume::model::{ARCHITECTURES, Labels, Model, Setting, blueprint, known_nets};
use verilume::tensor::{Padding, Shape};
use verilume::{Error, ErrorKind};

/// Folder of the data that is not part of the repository.
const DATA: Option<&str> = needs::test_data!();

/// Names and shapes of a weights file.
type Layout = Vec<(String, Vec<usize>)>;

#[derive(Clone)]
struct Tensor {
    dtype: &'static str,
    shape: Vec<usize>,
    data: Vec<u8>,
}

/// A safetensors file, written by hand so that it can be wrong.
fn file(tensors: &BTreeMap<String, Tensor>) -> Vec<u8> {
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    for (name, t) in tensors {
        let from = data.len();
        data.extend_from_slice(&t.data);
        header.insert(
            name.clone(),
            serde_json::json!({ "dtype": t.dtype, "shape": t.shape, "data_offsets": [from, data.len()] }),
        );
    }
    with_header(&serde_json::Value::Object(header).to_string(), &data)
}

fn with_header(header: &str, data: &[u8]) -> Vec<u8> {
    let mut out = (header.len() as u64).to_le_bytes().to_vec();
    out.extend_from_slice(header.as_bytes());
    out.extend_from_slice(data);
    out
}

/// Weights for a layout: variances of one, all else small multiples of a hash, as f32.
fn filled(layout: &Layout) -> BTreeMap<String, Tensor> {
    let mut tensors = BTreeMap::new();
    for (name, shape) in layout {
        let n: usize = shape.iter().product();
        let value = |i: usize| if name.ends_with("running_var") { 1.0f32 } else { ((i * 37) % 101) as f32 / 512.0 };
        let data = (0..n).flat_map(|i| value(i).to_le_bytes()).collect();
        assert!(
            tensors.insert(name.clone(), Tensor { dtype: "F32", shape: shape.clone(), data }).is_none(),
            "{name} twice"
        );
    }
    tensors
}

fn load(bytes: Vec<u8>) -> Result<Model, Error> {
    let bytes: Bytes = Arc::new(bytes);
    Model::from_bytes("net", bytes, None)
}

fn loaded(layout: &Layout) -> Model {
    load(file(&filled(layout))).unwrap()
}

/// The error of a file that must be refused; it names the file and is the model's fault.
fn refused(bytes: Vec<u8>) -> String {
    let error = load(bytes).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Model, "{error}");
    assert!(error.to_string().starts_with("net: "), "{error}");
    error.to_string()
}

fn says(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "'{part}' is not in: {message}");
    }
}

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/small").join(format!("{name}.weights.safetensors"))
}
