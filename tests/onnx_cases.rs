//! Small ONNX files with one trap each: right numbers, or a refusal where `tests/cases/onnx/README.md` allows one.
#![cfg(feature = "onnx")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail anywhere")]

mod drawn;
mod onnx_files;

use drawn::drawn;

use onnx_files::{Array, answer, apart, folder, top};
use serde_json::{Map, Value};

/// Largest difference of a gradient, as a share of its largest number.
const GRADIENT: f64 = 1e-4;

/// What is wrong with the answer for a file; nothing if it is right.
fn fault(name: &str, case: &Value) -> Option<String> {
    let folder = folder("cases/onnx");
    let x = Array::read(&folder.join(case["input"].as_str().unwrap()));
    let by_rows = case.get("or_input").is_some();
    let x = if by_rows { x.channels_first() } else { x };
    let answered = answer(&folder.join(name), &x);
    let words = |key: &str| -> Option<Vec<&str>> { Some(case.get(key)?[1].as_str()?.split('|').collect()) };
    let found = match (answered, words("refuse"), words("or_refuse")) {
        (Ok(found), Some(_), _) => return Some(format!("answered {:?}; to be refused", found.logits)),
        (Err(said), Some(words), _) | (Err(said), None, Some(words)) => {
            let named = !said.starts_with("panicked") && words.iter().any(|word| said.contains(word));
            return (!named).then(|| format!("refused without any of the words {words:?}: {said}"));
        }
        (Err(said), None, None) => return Some(said),
        (Ok(found), None, _) => found,
    };
    let logits: Vec<f64> = case["logits"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
    if found.target != top(&logits) || !(apart(&found.logits, &logits) <= case["tolerance"].as_f64().unwrap()) {
        return Some(format!("logits {:?}, not {logits:?}", found.logits));
    }
    let gradient = Array::read(&folder.join(name.replace(".onnx", ".grad.npy")));
    let gradient = if by_rows { gradient.channels_first() } else { gradient };
    let off = apart(&found.gradient, &gradient.values);
    (!(off <= GRADIENT)).then(|| format!("the gradient differs by {off:.1e}"))
}

#[test]
fn every_trap_is_seen() {
    let text = std::fs::read_to_string(folder("cases/onnx/expected.json")).unwrap();
    let cases: Map<String, Value> = serde_json::from_str(&text).unwrap();
    assert_eq!(cases.len(), 122);
    let faults: Vec<String> =
        cases.iter().filter_map(|(name, case)| Some(format!("{name}: {}", fault(name, case)?))).collect();
    assert!(faults.is_empty(), "{} of {}:\n{}", faults.len(), cases.len(), faults.join("\n"));
}

#[test]
fn channels_are_found_wherever_they_lie() {
    let text = std::fs::read_to_string(folder("cases/onnx-arrangements/expected.json")).unwrap();
    let cases: Map<String, Value> = serde_json::from_str(&text).unwrap();
    assert!(cases.len() > 60, "{}", cases.len());
    let fault = |name: &String, case: &Value| {
        let dims: Vec<usize> = case["input"].as_array().unwrap().iter().map(|v| v.as_u64().unwrap() as usize).collect();
        let values = drawn("input", &dims).into_iter().map(f64::from).collect();
        let x = Array { dims: dims.try_into().unwrap(), values };
        let x = if x.dims[3] == 3 && x.dims[1] != 3 { x.channels_first() } else { x };
        let path = folder("cases/onnx-arrangements").join(format!("{name}.onnx"));
        let found = match answer(&path, &x) {
            Ok(found) => found.logits,
            Err(said) => return Some(format!("{name}: {said}")),
        };
        let logits: Vec<f64> = case["logits"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
        // onnxruntime computes in single precision.
        let off = apart(&found, &logits);
        (!(off <= 1e-5)).then(|| format!("{name}: logits differ by {off:.1e}"))
    };
    let faults: Vec<String> = cases.iter().filter_map(|(name, case)| fault(name, case)).collect();
    assert!(faults.is_empty(), "{} of {}:\n{}", faults.len(), cases.len(), faults.join("\n"));
}
