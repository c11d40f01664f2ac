//! ONNX graphs that are written here, byte by byte: heads, sizes, levels, and files that mean harm.
#![cfg(all(feature = "cli", feature = "onnx"))]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail anywhere")]

use std::path::Path;
use std::sync::Arc;

use verilume::graph::Link;
use verilume::model::{Model, Reading};
use verilume::program::Score;
use verilume::session::{Options, Session};
use verilume::tensor::{Shape, Tensor};

/// A message of protocol buffers.
#[derive(Default, Clone)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut n: u64) {
        while n >= 0x80 {
            self.0.push(n as u8 | 0x80);
            n >>= 7;
        }
        self.0.push(n as u8);
    }

    fn number(mut self, field: u64, n: i64) -> Self {
        self.varint(field << 3);
        self.varint(n as u64);
        self
    }

    fn bytes(mut self, field: u64, bytes: impl AsRef<[u8]>) -> Self {
        self.varint(field << 3 | 2);
        self.varint(bytes.as_ref().len() as u64);
        self.0.extend_from_slice(bytes.as_ref());
        self
    }

    fn with(self, field: u64, message: &Message) -> Self {
        self.bytes(field, &message.0)
    }
}

fn tensor(name: &str, dims: &[i64], numbers: &[f32]) -> Message {
    let raw: Vec<u8> = numbers.iter().flat_map(|v| v.to_le_bytes()).collect();
    dims.iter().fold(Message::default(), |m, &d| m.number(1, d)).number(2, 1).bytes(8, name).bytes(9, raw)
}

fn whole(name: &str, numbers: &[i64]) -> Message {
    let raw: Vec<u8> = numbers.iter().flat_map(|v| v.to_le_bytes()).collect();
    Message::default().number(1, numbers.len() as i64).number(2, 7).bytes(8, name).bytes(9, raw)
}

fn node(op: &str, inputs: &[&str], outputs: &[&str]) -> Message {
    let message = inputs.iter().fold(Message::default(), |m, name| m.bytes(1, name));
    outputs.iter().fold(message, |m, name| m.bytes(2, name)).bytes(3, format!("a {op}")).bytes(4, op)
}

/// A port; −1 leaves a size open.
fn port(name: &str, element: i64, dims: &[i64]) -> Message {
    let size = |d: i64| if d < 0 { Message::default().bytes(2, "any") } else { Message::default().number(1, d) };
    let shape = dims.iter().fold(Message::default(), |m, &d| m.with(1, &size(d)));
    let kind = Message::default().with(1, &Message::default().number(1, element).with(2, &shape));
    Message::default().bytes(1, name).with(2, &kind)
}

struct Written {
    nodes: Vec<Message>,
    numbers: Vec<Message>,
    input: Message,
    outputs: Vec<Message>,
}

impl Written {
    /// A 1×1 convolution from three channels to `classes`, then the mean over positions: `y`.
    fn small(element: i64, dims: &[i64], classes: i64) -> Self {
        let weights: Vec<f32> = (0..3 * classes).map(|i| (i as f32 * 0.7).sin()).collect();
        Self {
            nodes: vec![
                node("Conv", &["x", "w"], &["c"]),
                node("GlobalAveragePool", &["c"], &["p"]),
                node("Flatten", &["p"], &["y"]),
            ],
            numbers: vec![tensor("w", &[classes, 3, 1, 1], &weights)],
            input: port("x", element, dims),
            outputs: vec![port("y", 1, &[1, classes])],
        }
    }

    fn then(mut self, op: &str) -> Self {
        self.nodes.push(node(op, &["y"], &["z"]));
        self.outputs = vec![port("z", 1, &[])];
        self
    }

    fn bytes(&self) -> Vec<u8> {
        let graph = self.nodes.iter().fold(Message::default(), |m, n| m.with(1, n));
        let graph = self.numbers.iter().fold(graph, |m, t| m.with(5, t)).with(11, &self.input);
        let graph = self.outputs.iter().fold(graph, |m, o| m.with(12, o));
        let opset = Message::default().number(2, 13);
        Message::default().number(1, 8).with(7, &graph).with(8, &opset).0
    }

    fn open(&self, reading: &Reading) -> verilume::Result<Model> {
        Model::from_graph("net", Arc::new(self.bytes()), reading)
    }

    fn refusal(&self) -> String {
        self.open(&Reading::default()).map(|m| m.classes()).unwrap_err().to_string()
    }
}

fn picture(shape: Shape) -> Tensor {
    let values = (0..shape.len()).map(|i| (i as f32 * 0.37).cos()).collect();
    Tensor::f32(shape.dims(), values).unwrap()
}

const FIXED: [i64; 4] = [1, 3, 6, 5];

#[test]
fn a_function_at_the_end_is_taken_off_and_says_how_scores_are_made() {
    let plain = Written::small(1, &FIXED, 4);
    let x = picture(Shape::new(3, 6, 5));
    let scored = |model: Model, score| {
        let mut session = Session::open(model, &Options { score, ..Options::default() }).unwrap();
        session.score(&[&x]).remove(0).unwrap()
    };
    let logits = scored(plain.open(&Reading::default()).unwrap(), Score::Logit).logits;
    for (op, link) in [("Softmax", Link::Softmax), ("LogSoftmax", Link::Softmax), ("Sigmoid", Link::Sigmoid)] {
        let model = plain_then(op).open(&Reading::default()).unwrap();
        assert_eq!(model.link(), link, "{op}");
        assert!(model.read_beside().iter().any(|line| line.contains(op)), "{:?}", model.read_beside());
        let found = scored(model, Score::Prob);
        assert_eq!(found.logits, logits, "{op}");
        let total: f64 = logits.iter().map(|z| z.exp()).sum();
        for (p, z) in found.scores.iter().zip(&logits) {
            let want = if link == Link::Sigmoid { 1.0 / (1.0 + (-z).exp()) } else { z.exp() / total };
            assert!((p - want).abs() < 1e-12, "{op}: {p} for {want}");
        }
    }
    // The caller knows better.
    let head = Some(Link::Softmax);
    assert_eq!(plain_then("Sigmoid").open(&Reading { head, ..Reading::default() }).unwrap().link(), Link::Softmax);
    // One output has two classes, which exclude each other; several labels do not.
    assert!(!plain_then("Sigmoid").open(&Reading::default()).unwrap().unfolded().is_paired());
    let one = Written::small(1, &FIXED, 1).then("Sigmoid").open(&Reading::default()).unwrap();
    assert!(one.unfolded().is_paired() && one.classes() == 2 && one.link() == Link::Sigmoid);
}

fn plain_then(op: &str) -> Written {
    Written::small(1, &FIXED, 4).then(op)
}

#[test]
fn sizes_are_fixed_where_the_file_fixes_them() {
    let fixed = Written::small(1, &FIXED, 4).open(&Reading::default()).unwrap();
    assert_eq!(fixed.default_input(), Shape::new(3, 6, 5));
    let why = fixed.graph(Shape::new(3, 7, 5)).unwrap_err().to_string();
    assert!(why.contains("fixes its input to x [1, 3, 6, 5]"), "{why}");
    let open = Written::small(1, &[-1, 3, -1, -1], 4).open(&Reading::default()).unwrap();
    assert_eq!(open.default_input(), Shape::new(3, 224, 224));
    assert!(open.assumed(&[]).iter().any(|a| a.starts_with("size of pictures")), "{:?}", open.assumed(&[]));
    assert_eq!(open.graph(Shape::new(3, 7, 5)).unwrap().input_shape(), Shape::new(3, 7, 5));
}

#[test]
fn levels_are_those_that_the_graph_scales() {
    let prepared = |written: &Written| {
        let model = written.open(&Reading::default()).unwrap();
        (model.preprocess().mean[0], model.preprocess().std[0])
    };
    // Before the convolution: (x − shift) · factor.
    let scaled = |element, shift: f32, factor: f32| {
        let mut net = Written::small(element, &FIXED, 4);
        net.nodes[0] = node("Conv", &["b", "w"], &["c"]);
        net.nodes.insert(0, node("Sub", &["x", "m"], &["a"]));
        net.nodes.insert(1, node("Mul", &["a", "s"], &["b"]));
        net.numbers.extend([tensor("m", &[], &[shift]), tensor("s", &[], &[factor])]);
        net
    };
    let (bytes, unit, imagenet) = ((0.0, 1.0 / 255.0), (0.0, 1.0), (0.485, 0.229));
    assert_eq!(prepared(&Written::small(1, &FIXED, 4)), imagenet);
    // Whole numbers are cast before anything is computed with them.
    let mut uint8 = Written::small(2, &FIXED, 4);
    assert!(uint8.refusal().contains("whole numbers"), "{}", uint8.refusal());
    uint8.nodes[0] = node("Conv", &["real", "w"], &["c"]);
    let to = Message::default().bytes(1, "to").number(3, 1).number(20, 2);
    uint8.nodes.insert(0, node("Cast", &["x"], &["real"]).with(5, &to));
    assert_eq!(prepared(&uint8), bytes, "uint8");
    assert_eq!(prepared(&scaled(1, 0.0, 1.0 / 255.0)), bytes);
    assert_eq!(prepared(&scaled(1, 127.5, 1.0 / 127.5)), bytes);
    assert_eq!(prepared(&scaled(1, 116.0, 1.0)), bytes);
    assert_eq!(prepared(&scaled(1, 0.45, 1.0 / 0.225)), unit);
    assert_eq!(prepared(&scaled(1, 0.5, 2.0)), unit);
    // transform_input of torchvision: for pictures that are normalised already.
    assert_eq!(prepared(&scaled(1, 0.065, 0.458)), imagenet);
}

#[test]
fn outputs_are_chosen_by_name_where_several_hold_scores() {
    let mut net = Written::small(1, &FIXED, 4);
    net.nodes.push(node("Neg", &["y"], &["other"]));
    net.outputs.push(port("other", 1, &[1, 4]));
    let why = net.refusal();
    assert!(why.contains("'y'") && why.contains("'other'") && why.contains("--output"), "{why}");
    for output in ["y", "other"] {
        assert!(net.open(&Reading { output: Some(output), ..Reading::default() }).is_ok());
    }
    let why = net.open(&Reading { output: Some("nothing"), ..Reading::default() }).unwrap_err().to_string();
    assert!(why.contains("'nothing'") && why.contains("y, other"), "{why}");
}

#[test]
fn graphs_that_mean_harm_are_errors() {
    let said = |net: &Written, words: &[&str]| {
        let why = net.refusal();
        assert!(words.iter().all(|word| why.contains(word)), "{words:?}: {why}");
    };
    let mut cycle = Written::small(1, &FIXED, 4);
    cycle.nodes[0] = node("Conv", &["p", "w"], &["c"]);
    said(&cycle, &["cycle"]);
    let mut twice = Written::small(1, &FIXED, 4);
    twice.nodes.push(node("Relu", &["p"], &["c"]));
    said(&twice, &["'c'", "already"]);
    let mut same = Written::small(1, &FIXED, 4);
    same.numbers.push(tensor("w", &[1], &[0.0]));
    said(&same, &["two initializers", "'w'"]);
    let mut claims = Written::small(1, &FIXED, 4);
    claims.numbers[0] = Message::default().number(1, 1 << 40).number(1, 3).number(2, 1).bytes(8, "w");
    said(&claims, &["'w'"]);
    // Sizes that no memory holds, from a few bytes.
    for (op, inputs) in [("ConstantOfShape", vec!["n"]), ("Expand", vec!["w", "n"])] {
        let mut bomb = Written::small(1, &FIXED, 4);
        bomb.nodes.insert(0, node(op, &inputs, &["big"]));
        bomb.nodes.insert(1, node("ReduceMean", &["big"], &["mean"]));
        bomb.nodes.push(node("Mul", &["y", "mean"], &["z"]));
        bomb.outputs = vec![port("z", 1, &[1, 4])];
        bomb.numbers.push(whole("n", &[1 << 20, 3 << 10, 1 << 10, 1 << 10]));
        said(&bomb, &[op]);
    }
    // Doubled again and again.
    let mut doubled = Written::small(1, &FIXED, 4);
    let mut last = "w".to_owned();
    for i in 0..60 {
        doubled.nodes.push(node("Concat", &[&last, &last], &[&format!("d{i}")]));
        last = format!("d{i}");
    }
    doubled.nodes.push(node("ReduceMean", &[&last], &["mean"]));
    doubled.nodes.push(node("Mul", &["y", "mean"], &["z"]));
    doubled.outputs = vec![port("z", 1, &[1, 4])];
    said(&doubled, &["Concat", "more constants"]);
    // Of the picture's channels too.
    let mut wide = Written::small(1, &FIXED, 4);
    let mut last = "c".to_owned();
    for i in 0..60 {
        wide.nodes.push(node("Concat", &[&last, &last], &[&format!("d{i}")]));
        last = format!("d{i}");
    }
    wide.nodes[1] = node("GlobalAveragePool", &[&last], &["p"]);
    wide.refusal();
    let mut external = Written::small(1, &FIXED, 4);
    let entry = Message::default().bytes(1, "location").bytes(2, "/etc/hostname");
    external.numbers[0] = external.numbers[0].clone().with(13, &entry).number(14, 1);
    said(&external, &["'w'", "external"]);
    assert!(Model::from_graph("net", Arc::new(vec![8, 8]), &Reading::default()).is_err());
    assert!(Model::from_graph("net", Arc::new(Vec::new()), &Reading::default()).is_err());
}

#[cfg(unix)]
#[test]
fn external_numbers_stay_in_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    let (inside, outside) = (folder.path().join("net"), folder.path().join("numbers"));
    std::fs::create_dir(&inside).unwrap();
    let numbers: Vec<u8> = (0..12).flat_map(|i| (i as f32 * 0.1).to_le_bytes()).collect();
    std::fs::write(&outside, &numbers).unwrap();
    std::os::unix::fs::symlink(&outside, inside.join("link")).unwrap();
    std::fs::write(inside.join("own"), &numbers).unwrap();
    std::fs::write(inside.join("short"), &numbers[..40]).unwrap();
    let open = |location: &str| {
        let mut net = Written::small(1, &FIXED, 4);
        let entry = Message::default().bytes(1, "location").bytes(2, location);
        let w = [4, 3, 1, 1].iter().fold(Message::default(), |m, &d| m.number(1, d));
        net.numbers[0] = w.number(2, 1).bytes(8, "w").with(13, &entry).number(14, 1);
        let path = inside.join("net.onnx");
        std::fs::write(&path, net.bytes()).unwrap();
        Model::open(Path::new(&path), None).map(|m| m.sha256().to_owned()).map_err(|e| e.to_string())
    };
    let sum = open("own").unwrap();
    std::fs::write(inside.join("own"), vec![0u8; 48]).unwrap();
    assert_ne!(open("own").unwrap(), sum, "the checksum counts numbers in other files");
    // A name without a folder is one in the working folder; only a process of its own can have another.
    std::fs::write(inside.join("own"), &numbers).unwrap();
    open("own").unwrap();
    let program = env!("CARGO_BIN_EXE_verilume");
    let mut info = std::process::Command::new(program);
    info.current_dir(&inside).args(["model", "info", "--model", "net.onnx"]);
    assert!(info.output().unwrap().status.success());
    for (location, word) in [("link", "link"), ("../numbers", "outside"), ("short", "48 bytes"), ("none", "read")] {
        let why = open(location).unwrap_err();
        assert!(why.contains("'w'") && why.contains(word), "{location}: {why}");
    }
}
