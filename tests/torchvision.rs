//! Published nets beside torchvision's: number of parameters, logits and gradients with drawn weights.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail anywhere")]

mod nets;

use std::path::Path;
use std::sync::Arc;

use nets::publish;
use safetensors::SafeTensors;
use verilume::engine::{Batch, Engine, Job, Settings};
use verilume::model::{Model, blueprint};
use verilume::program::Score;
use verilume::tensor::{Precision, Shape, Tensor};

/// As `uniform` in `tests/golden/torchvision_nets.py`.
fn uniform(name: &str, n: usize) -> impl Iterator<Item = f64> {
    let mut state = 0xcbf2_9ce4_8422_2325u64;
    for byte in name.bytes() {
        state = (state ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
    }
    (0..n).map(move |_| {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        (z >> 40) as f64 / f64::from(1 << 23) - 1.0
    })
}

/// As `drawn` in `tests/golden/torchvision_nets.py`.
fn drawn(name: &str, shape: &[usize]) -> Vec<f32> {
    let fan: usize = shape[1..].iter().product();
    let value = |u: f64| match name {
        "input" => 1.5 * u,
        _ if name.ends_with("layer_scale") => 0.5 + 0.25 * u,
        _ if shape.len() > 1 => (6.0 / fan as f64).sqrt() * u,
        _ if name.ends_with("running_mean") || name.ends_with("bias") => 0.1 * u,
        _ => 1.0 + 0.5 * u,
    };
    uniform(name, shape.iter().product()).map(|u| value(u) as f32).collect()
}

/// The net with drawn weights, read from a file by names and shapes alone.
fn drawn_net(net: &str) -> Model {
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    for tensor in blueprint(net).unwrap() {
        let from = data.len();
        data.extend(drawn(&tensor.name, &tensor.shape).iter().flat_map(|v| v.to_le_bytes()));
        let entry = serde_json::json!({ "dtype": "F32", "shape": tensor.shape, "data_offsets": [from, data.len()] });
        assert!(header.insert(tensor.name, entry).is_none());
    }
    let header = serde_json::Value::Object(header).to_string();
    let bytes = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat();
    Model::from_bytes(net, Arc::new(bytes), None).unwrap()
}

/// What torchvision says of a net.
struct Golden<'a>(&'a SafeTensors<'a>, &'a str);

impl Golden<'_> {
    fn read<T>(&self, key: &str, number: fn([u8; 8]) -> T) -> Vec<T> {
        let tensor = self.0.tensor(&format!("{}.{key}", self.1)).unwrap_or_else(|e| panic!("{} {key}: {e}", self.1));
        tensor.data().as_chunks().0.iter().map(|b| number(*b)).collect()
    }

    fn counts(&self, key: &str) -> Vec<usize> {
        self.read(key, |b| i64::from_le_bytes(b) as usize)
    }

    fn numbers(&self, key: &str) -> Vec<f64> {
        let numbers = self.read(key, f64::from_le_bytes);
        assert!(numbers.iter().all(|v| v.is_finite()) && numbers.iter().any(|v| *v != 0.0), "{} {key}", self.1);
        numbers
    }
}

fn norm(values: &[f64]) -> f64 {
    values.iter().map(|v| v * v).sum::<f64>().sqrt()
}

/// The largest difference over the largest number.
fn apart(found: &[f64], wanted: &[f64]) -> f64 {
    assert_eq!(found.len(), wanted.len());
    let largest = wanted.iter().fold(0.0f64, |m, v| m.max(v.abs()));
    found.iter().zip(wanted).fold(0.0f64, |m, (a, b)| m.max((a - b).abs())) / largest
}

/// Of gradients in single precision where logits are large: those of RegNet Y are near 86 with these weights.
const LARGE_LOGITS: f64 = 5e-5;
/// Of gradients in single precision where slopes jump: those of hard swishes do at ±3, which no recorded decision holds.
const CORNERS: f64 = 2e-4;

/// Rows of the table: the largest differences of `net` in both precisions.
fn beside_torchvision(file: &SafeTensors, net: &str) -> String {
    let golden = Golden(file, net);
    let model = drawn_net(net);
    let parameters = model.unfolded().parameters();
    assert_eq!(parameters, golden.counts("parameters")[0], "{net}");
    let size = golden.counts("input_size");
    let shape = Shape::new(3, size[0], size[1]);
    let graph = model.graph(shape).unwrap();
    let picture = drawn("input", &[2, 3, size[0], size[1]]);
    let x = Batch::new(&Tensor::f32([2, 3, size[0], size[1]], picture).unwrap()).unwrap();
    let (classes, k) = (golden.counts("classes"), graph.classes());
    let (wanted, wanted_norms) = (golden.numbers("gradients"), golden.numbers("gradient_norms"));
    let mut row = format!("| `{net}` | {parameters} | {}×{} |", size[0], size[1]);
    let mut decisions: Option<Vec<_>> = None;
    for (precision, tolerance) in [(Precision::F64, 1e-10), (Precision::F32, 1e-5)] {
        let settings = Settings { precision, threads: Some(2), ..Settings::default() };
        let mut engine = Engine::new(&settings).unwrap();
        let logits = engine.node_outputs(&graph, &x, &[graph.output()]).unwrap()[0].to_f64().into_owned();
        let [mut of_logits, mut of_gradients] = [0.0f64; 2];
        for (i, logits) in logits.chunks(k).enumerate() {
            let wanted = &golden.numbers("logits")[128 * i..128 * (i + 1)];
            of_logits = of_logits.max(apart(&logits[..128], wanted));
            of_logits = of_logits.max(apart(&[norm(logits)], &[golden.numbers("logits_norm")[i]]));
        }
        for c in 0..2 {
            let (job, targets) = (Job::gradient(Score::Logit), [classes[c], classes[2 + c]]);
            // In single precision under the decisions of the other run: a flipped one changes a gradient by per cents.
            let answer = match &decisions {
                None => engine.explain(&graph, &job, &x, &targets),
                Some(decisions) => engine.explain_under(&graph, &job, &x, &targets, decisions),
            };
            for (i, gradient) in answer.unwrap().maps.iter().enumerate() {
                let (row, gradient) = (2 * i + c, gradient.to_f64());
                let sampled: Vec<f64> = (0..256).map(|j| gradient[j * 7919 % shape.len()]).collect();
                of_gradients = of_gradients.max(apart(&sampled, &wanted[256 * row..256 * (row + 1)]));
                of_gradients = of_gradients.max(apart(&[norm(&gradient)], &[wanted_norms[row]]));
            }
        }
        decisions.get_or_insert_with(|| engine.decisions(&graph, &x).unwrap());
        println!("{net} {precision}: logits {of_logits:.1e}, gradients {of_gradients:.1e}");
        let most = match (precision, net) {
            (Precision::F32, "regnet_y_400mf") => LARGE_LOGITS,
            (Precision::F32, "mobilenet_v3_large") => CORNERS,
            _ => tolerance,
        };
        let within = of_logits <= tolerance && of_gradients <= most;
        assert!(within, "{net} {precision}: logits differ by {of_logits:e}, gradients by {of_gradients:e}");
        for share in [of_logits, of_gradients] {
            // Which rounding fell where is not worth a change of the table.
            row += if share < 1e-11 { " < 1e-11 |".into() } else { format!(" {share:.0e} |") }.as_str();
        }
    }
    row
}

#[test]
fn published_nets_answer_as_torchvision() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/torchvision_nets.safetensors");
    let bytes = std::fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let mut nets: Vec<&str> = file.names().into_iter().filter_map(|name| name.strip_suffix(".input_size")).collect();
    nets.sort_unstable();
    let mut table = String::from(
        "Largest difference from torchvision, as a share of the largest number, over two pictures of noise and the\n\
         gradients of their two highest logits; weights and norms are drawn. Gradients in single precision run under\n\
         the decisions of the double-precision run.\n\n\
         | net | parameters | pictures | logits, f64 | gradients, f64 | logits, f32 | gradients, f32 |\n\
         |---|---|---|---|---|---|---|\n",
    );
    for net in nets {
        table += &beside_torchvision(&file, net);
        table.push('\n');
    }
    println!("{table}");
    publish("torchvision", &table);
}
