//! The golden vectors once more, from a user's side: `.npy` in, `--format npy` out, both precisions, one printed table.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![cfg(feature = "cli")]

use std::path::{Path, PathBuf};
use std::process::Command;

use safetensors::SafeTensors;

/// Folder of the data that is not part of the repository.
const DATA: Option<&str> = needs::test_data!();

/// Row of the golden file, method, score.
const ROWS: &[(&str, &str, &str)] = &[
    ("gradient", "gradient", "logit"),
    ("gradient_prob", "gradient", "prob"),
    ("gradient_logprob", "gradient", "logprob"),
    ("input_x_gradient", "input_x_gradient", "logit"),
    ("deconvnet", "deconvnet", "logit"),
    ("guided_backprop", "guided_backprop", "logit"),
    ("ig_midpoint_16", "ig:steps=16,rule=midpoint", "logit"),
    ("ig_gausslegendre_16", "ig:steps=16,rule=gausslegendre", "logit"),
    ("ig_midpoint_16_black", "ig:steps=16,rule=midpoint,baseline=value:-2", "logit"),
    ("deep_lift_rescale", "deep_lift", "logit"),
    ("grad_cam", "grad_cam:upsample=none", "logit"),
    ("grad_cam_raw", "grad_cam:upsample=none,relu=no", "logit"),
    ("grad_cam_pp", "grad_cam_pp:upsample=none", "logit"),
    ("hires_cam", "hires_cam:upsample=none", "logit"),
    ("hires_cam_raw", "hires_cam:upsample=none,relu=no", "logit"),
    ("layer_cam", "layer_cam:upsample=none", "logit"),
    ("xgrad_cam", "xgrad_cam:upsample=none", "logit"),
    ("xgrad_cam_raw", "xgrad_cam:upsample=none,relu=no", "logit"),
    ("occlusion_8_4", "occlusion:window=8,stride=4,fill=0", "logit"),
    ("lrp_epsilon", "lrp:preset=epsilon,epsilon=1e-2", "logit"),
    ("lrp_epsilon_plus", "lrp:preset=epsilon_plus", "logit"),
    ("lrp_alpha2_beta1", "lrp:preset=epsilon_alpha2_beta1", "logit"),
    ("lrp_gamma", "lrp:preset=gamma,gamma=0.25", "logit"),
];

/// Rectified maps in which every number is zero: they prove only that ours are zero too.
const ALL_ZERO: &[(&str, &str)] = &[];

struct Golden {
    bytes: Vec<u8>,
}

impl Golden {
    fn open(path: &Path) -> Self {
        Self { bytes: std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display())) }
    }

    fn tensor(&self, name: &str) -> (Vec<usize>, Vec<f64>) {
        let file = SafeTensors::deserialize(&self.bytes).unwrap();
        let t = file.tensor(name).unwrap();
        let values = match t.dtype() {
            safetensors::Dtype::F32 => {
                t.data().as_chunks().0.iter().map(|&b| f64::from(f32::from_le_bytes(b))).collect()
            }
            safetensors::Dtype::I64 => t.data().as_chunks().0.iter().map(|&b| i64::from_le_bytes(b) as f64).collect(),
            other => panic!("{name} is {other:?}"),
        };
        (t.shape().to_vec(), values)
    }

    fn has(&self, name: &str) -> bool {
        SafeTensors::deserialize(&self.bytes).unwrap().tensor(name).is_ok()
    }
}

fn write_npy(path: &Path, dims: &[usize], values: &[f64]) {
    let shape = dims.iter().map(|d| format!("{d}, ")).collect::<String>();
    let mut header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({shape}), }}");
    while (10 + header.len() + 1) % 64 != 0 {
        header.push(' ');
    }
    header.push('\n');
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    values.iter().for_each(|&v| bytes.extend((v as f32).to_le_bytes()));
    std::fs::write(path, bytes).unwrap();
}

fn read_npy(path: &Path) -> Vec<f64> {
    let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let header = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    assert!(String::from_utf8_lossy(&bytes[..header]).contains("'<f4'"), "{} is not f32", path.display());
    bytes[header..].as_chunks().0.iter().map(|&b| f64::from(f32::from_le_bytes(b))).collect()
}

/// `(max|a − b| / max|b|, ‖a − b‖₂ / ‖b‖₂)`.
fn errors(got: &[f64], want: &[f64]) -> (f64, f64) {
    assert_eq!(got.len(), want.len());
    let difference = got.iter().zip(want).map(|(a, b)| a - b);
    let greatest = difference.clone().fold(0.0, |m: f64, d| if d.abs() <= m { m } else { d.abs() });
    let squares: f64 = difference.map(|d| d * d).sum();
    let top = want.iter().fold(0.0, |m: f64, b| m.max(b.abs()));
    let norm = want.iter().map(|b| b * b).sum::<f64>().sqrt();
    if top == 0.0 { (greatest, squares.sqrt()) } else { (greatest / top, squares.sqrt() / norm) }
}

/// Runs every row of one golden file in one precision: `(row, max-norm error, L2 error)`.
fn run(name: &str, golden: &Golden, model: Option<&Path>, precision: &str) -> Vec<(String, f64, f64)> {
    let folder = tempfile::tempdir().unwrap();
    let (dims, input) = golden.tensor("input");
    write_npy(&folder.path().join("x.npy"), &dims, &input);
    let labels: String = golden.tensor("target").1.iter().map(|t| format!("{t}\n")).collect();
    std::fs::write(folder.path().join("labels.csv"), labels).unwrap();
    let mut results = Vec::new();
    for score in ["logit", "prob", "logprob"] {
        let rows: Vec<_> = ROWS.iter().filter(|(row, _, s)| *s == score && golden.has(row)).collect();
        if rows.is_empty() {
            continue;
        }
        let out = folder.path().join(score);
        let mut command = Command::new(env!("CARGO_BIN_EXE_verilume"));
        command.current_dir(folder.path()).args(["explain", "x.npy", "--format", "npy", "--json", "--quiet"]);
        command.args(["--precision", precision, "--score", score, "-t", "file:labels.csv", "-o"]).arg(&out);
        for (_, method, _) in &rows {
            command.args(["-m", method]);
        }
        if let Some(model) = model {
            command.arg("--model").arg(model);
        }
        let done = command.output().unwrap();
        assert!(done.status.success(), "{name}: {}", String::from_utf8_lossy(&done.stderr));
        let records: Vec<serde_json::Value> =
            String::from_utf8(done.stdout).unwrap().lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        let mut times = std::collections::HashMap::new();
        for (row, method, _) in rows {
            let id = match method.split(':').next().unwrap() {
                "ig" => "integrated_gradients",
                id => id,
            };
            let time = times.entry(id).and_modify(|n| *n += 1).or_insert(1);
            let file = if *time == 1 { format!("x.{id}.npy") } else { format!("x.{id}-{time}.npy") };
            let want = golden.tensor(row).1;
            let zero = want.iter().all(|&v| v == 0.0);
            assert_eq!(zero, ALL_ZERO.contains(&(name, row)), "{name} {row}: all zero?");
            let (greatest, l2) = errors(&read_npy(&out.join(file)), &want);
            results.push(((*row).to_string(), greatest, l2));
        }
        if score == "logit" {
            // The records' scores are the targets' logits.
            let (shape, logits) = golden.tensor("logits");
            let targets = golden.tensor("target").1;
            let want: Vec<f64> = targets.iter().enumerate().map(|(i, &t)| logits[i * shape[1] + t as usize]).collect();
            let first: Vec<f64> =
                records.iter().filter(|r| r["method"] == "gradient").map(|r| r["score"].as_f64().unwrap()).collect();
            let (greatest, l2) = errors(&first, &want);
            results.push(("logits (targets)".into(), greatest, l2));
        }
    }
    results
}

fn check(name: &str, cases: &str, model: Option<PathBuf>) {
    let golden = Golden::open(Path::new(cases));
    let double = run(name, &golden, model.as_deref(), "f64");
    let single = run(name, &golden, model.as_deref(), "f32");
    assert!(double.len() >= 2);
    let mut missed = Vec::new();
    for ((row, f64_max, _), (_, f32_max, f32_l2)) in double.iter().zip(&single) {
        println!("| {name} | {row} | {f64_max:.1e} | {f32_l2:.1e} |");
        let single_holds = if row.starts_with("logits") { *f32_max <= 1e-4 } else { *f32_l2 <= 5e-2 };
        if !(*f64_max <= 1e-5) || !single_holds {
            missed.push(row.clone());
        }
    }
    assert!(missed.is_empty(), "{name}: {missed:?}");
}

#[test]
fn small_nets() {
    println!("| net | row | f64 max-norm | f32 L2 |\n|---|---|---|---|");
    for name in ["vgg", "vgg_bn", "resnet_basic", "resnet_bottleneck", "resnext"] {
        let weights = PathBuf::from(format!("tests/golden/small/{name}.weights.safetensors"));
        let model = Some(std::fs::canonicalize(weights).unwrap());
        check(name, &format!("tests/golden/small/{name}.cases.safetensors"), model);
    }
}

#[test]
#[cfg(feature = "embedded-model")]
fn embedded_model() {
    check("efficientnet-lite0", "tests/golden/real/efficientnet-lite0.cases.safetensors", None);
}

#[needs::shared_data]
#[test]
fn cifar_resnet20() {
    let weights = Path::new(DATA.unwrap()).join("cifar10-resnet20.safetensors");
    check("cifar10-resnet20", "tests/golden/real/cifar10-resnet20.cases.safetensors", Some(weights));
}
