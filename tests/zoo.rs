//! A small net of every kind, as its exporter writes it, beside PyTorch's and TensorFlow's answers in double precision.
//!
//! An exporter merges batch norms in single precision, so its file is not quite the net that answered. `moved` says how far
//! roundings of the weights move the answers: the farthest of four draws in which every weight is off, up or down, by 2⁻²³ of
//! itself. Merging rounds a weight three times, each time by 2⁻²⁴ at most. Twelve times `moved` is allowed, which leaves room for
//! rare draws, and never more than 1e-5.
#![cfg(feature = "onnx")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail anywhere")]

mod drawn;
mod onnx_files;

use drawn::drawn;
use onnx_files::{Array, answer, apart, folder};
use serde_json::{Map, Value};

/// The largest difference that is ever allowed, and the smallest: rounding in double precision.
const MOST: f64 = 1e-5;
const LEAST: f64 = 1e-12;

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
}

/// As `picture` in `tests/zoo/common.py`, channels first.
fn picture(net: &Value) -> Array {
    let dims: Vec<usize> = numbers(&net["input"]).into_iter().map(|n| n as usize).collect();
    let mut values: Vec<f64> = drawn("input", &dims).into_iter().map(f64::from).collect();
    if net["levels"] == true {
        values.iter_mut().for_each(|v| *v = ((*v / 1.5 + 1.0) * 128.0).floor());
    }
    let x = Array { dims: [1, dims[0], dims[1], dims[2]], values };
    if net["rows"] == true { x.channels_first() } else { x }
}

/// What is wrong with the answers for a file; otherwise the differences of logits and gradient.
fn compare(name: &str, file: &str, net: &Value) -> Result<[f64; 2], String> {
    let found = match (answer(&folder("zoo").join(file), &picture(net)), net["or_refuse"].as_str()) {
        (Err(said), Some(word)) if said.contains(word) && !said.starts_with("panicked") => {
            println!("{said}");
            return Ok([0.0; 2]);
        }
        (found, _) => found?,
    };
    let mut logits = numbers(&net["logits"]);
    let mut gradient = Array::read(&folder("zoo").join(format!("{name}.npy")));
    if net["rows"] == true {
        gradient = gradient.channels_first();
    }
    if let [logit] = logits[..] {
        // A net with one output has two classes; class 0 has the logit with the sign changed.
        logits.insert(0, -logit);
        let sign = if found.target == 0 { -1.0 } else { 1.0 };
        gradient.values.iter_mut().for_each(|v| *v *= sign);
    }
    let off = [apart(&found.logits, &logits), apart(&found.gradient, &gradient.values)];
    let allowed: Vec<f64> = numbers(&net["moved"]).into_iter().map(|moved| (12.0 * moved).clamp(LEAST, MOST)).collect();
    if off[0] <= allowed[0] && off[1] <= allowed[1] {
        return Ok(off);
    }
    Err(format!(
        "logits differ by {:.1e} of {:.1e}, gradients by {:.1e} of {:.1e}",
        off[0], allowed[0], off[1], allowed[1]
    ))
}

#[test]
fn every_kind_of_net_answers_as_where_it_comes_from() {
    let text = std::fs::read_to_string(folder("zoo/expected.json")).unwrap();
    let nets: Map<String, Value> = serde_json::from_str(&text).unwrap();
    let (mut files, mut faults, mut farthest) = (0, Vec::new(), [0.0f64; 2]);
    for (name, net) in &nets {
        for file in net["files"].as_array().unwrap().iter().map(|file| file.as_str().unwrap()) {
            files += 1;
            match compare(name, file, net) {
                Ok(off) => (0..2).for_each(|i| farthest[i] = farthest[i].max(off[i])),
                Err(why) => faults.push(format!("{file}: {why}")),
            }
        }
    }
    println!("{files} files of {} nets: logits {:.1e}, gradients {:.1e}", nets.len(), farthest[0], farthest[1]);
    assert!(faults.is_empty(), "{} of {files}:\n{}", faults.len(), faults.join("\n"));
}

/// Every file of the folder belongs to a net, and they are small.
#[test]
fn the_files_are_small_and_all_read() {
    let text = std::fs::read_to_string(folder("zoo/expected.json")).unwrap();
    let nets: Map<String, Value> = serde_json::from_str(&text).unwrap();
    let (mut all, mut unread) = (0, Vec::new());
    for entry in std::fs::read_dir(folder("zoo")).unwrap() {
        let (name, bytes) = entry.map(|e| (e.file_name().into_string().unwrap(), e.metadata().unwrap().len())).unwrap();
        all += bytes;
        assert!(bytes < 150_000, "{name}: {bytes} bytes");
        let listed = |net: &Value| net["files"].as_array().unwrap().iter().any(|file| file.as_str() == Some(&name));
        if name.ends_with(".onnx") && !nets.values().any(listed) {
            unread.push(name);
        }
    }
    assert!(unread.is_empty(), "{unread:?}");
    assert!(all <= 3_000_000, "{all} bytes");
}
