//! `verilume eval` as a script meets it, and its metrics under attack on methods whose answers are known.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod nets;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use nets::Net;
use safetensors::tensor::{Dtype, TensorView, serialize};
use serde_json::Value;
use verilume::engine::{Batch, Engine, Settings};
use verilume::graph::Graph;
use verilume::map::{Map, Sign, Space};
use verilume::method::Method;
use verilume::reliability::attack::{Goal, Pgd, PictureLength, StartPoint, pgd};
use verilume::reliability::metric::{Bounds, Case, MetricSpec, Readings, Region};
use verilume::tensor::Tensor;

const SIDE: usize = 24;

fn model() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/small/resnet_basic.weights.safetensors");
    path.to_str().unwrap().to_owned()
}

/// Runs `verilume eval` with a small net on pictures of 24x24 pixels.
fn eval(folder: &Path, arguments: &[&str]) -> Output {
    let model = model();
    let common = ["eval", "--model", &model, "--size", "24:24", "--threads", "1", "-o", "out"];
    let mut command = Command::new(env!("CARGO_BIN_EXE_verilume"));
    command.current_dir(folder).args(common).args(arguments).stdin(Stdio::null()).output().unwrap()
}

fn code(output: &Output) -> i32 {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(!stderr.contains("panicked"), "{stderr}");
    output.status.code().unwrap()
}

fn lines(text: &[u8]) -> Vec<Value> {
    text.split(|&b| b == b'\n').filter(|l| !l.is_empty()).map(|l| serde_json::from_slice(l).unwrap()).collect()
}

fn records(folder: &Path) -> Vec<Value> {
    lines(&std::fs::read(folder.join("out/eval.jsonl")).unwrap())
}

fn summary(folder: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(folder.join("out/summary.json")).unwrap()).unwrap()
}

fn level(picture: usize, c: usize, y: usize, x: usize) -> u8 {
    ((x * (7 + picture) + y * (13 + 3 * picture) + c * 85 + (x * y + picture) % 31) % 256) as u8
}

/// An array of pictures of the classes 0, 1, 2, 3, 0 …
fn array(path: &Path, count: usize, label: impl Fn(usize) -> u8) {
    let at = |i: usize| {
        let (x, y, c) = (i % SIDE, i / SIDE % SIDE, i / (SIDE * SIDE) % 3);
        level(i / (SIDE * SIDE * 3), c, y, x)
    };
    let images: Vec<u8> = (0..count * 3 * SIDE * SIDE).map(at).collect();
    let labels: Vec<u8> = (0..count).map(label).collect();
    let views = [
        ("images", TensorView::new(Dtype::U8, vec![count, 3, SIDE, SIDE], &images).unwrap()),
        ("labels", TensorView::new(Dtype::U8, vec![count], &labels).unwrap()),
    ];
    std::fs::write(path, serialize(views, None).unwrap()).unwrap();
}

fn picture(path: PathBuf, width: u32, height: u32, seed: usize) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let colour = |x: u32, y: u32| image::Rgb([0, 1, 2].map(|c| level(seed, c, y as usize, x as usize)));
    image::RgbImage::from_fn(width, height, colour).save(path).unwrap();
}

#[test]
fn a_journal_that_was_cut_off_gives_the_same_summary() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    array(&at.join("data.safetensors"), 19, |i| (i % 4) as u8);
    let arguments = ["--data", "data.safetensors", "-m", "gradient", "-m", "smoothgrad:n=3", "--metric", "fidelity"];
    let arguments = [&arguments[..], &["--metric", "stability:n=1", "-q"]].concat();
    let output = eval(at, &arguments);
    assert_eq!(code(&output), 0, "{}", String::from_utf8_lossy(&output.stderr));
    let table = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(table.contains("fidelity ↓") && table.contains("stability_spearman ↑"), "{table}");
    let whole = std::fs::read(at.join("out/eval.jsonl")).unwrap();
    let first = std::fs::read(at.join("out/summary.json")).unwrap();
    let read = records(at);
    assert_eq!(read.len(), 19);

    // Means and the paired difference are those of the lines.
    let values = |method: &str, output: &str| -> Vec<f64> {
        read.iter().map(|l| l["methods"][method]["readings"][output].as_f64().unwrap()).collect()
    };
    let mean = |v: &[f64]| v.iter().sum::<f64>() / v.len() as f64;
    let summed = summary(at);
    let score = |method: &str, output: &str| {
        let scores = summed["scores"].as_array().unwrap();
        scores.iter().find(|s| s["method"] == method && s["output"] == output).unwrap().clone()
    };
    let (a, b) = (values("gradient", "fidelity"), values("smoothgrad", "fidelity"));
    assert_eq!(score("gradient", "fidelity")["estimate"]["mean"], mean(&a));
    assert_eq!(score("gradient", "fidelity")["difference"], Value::Null);
    let other = score("smoothgrad", "fidelity");
    let apart: Vec<f64> = b.iter().zip(&a).map(|(b, a)| b - a).collect();
    assert_eq!((&other["difference"]["against"], other["better"].as_str()), (&"gradient".into(), Some("lower")));
    assert_eq!(other["difference"]["estimate"]["mean"], mean(&apart));
    let estimate = &other["estimate"];
    let (low, high) = (estimate["low"].as_f64().unwrap(), estimate["high"].as_f64().unwrap());
    assert!(low < mean(&b) && mean(&b) < high && estimate["n"] == 19, "{estimate}");
    let right = read.iter().filter(|l| l["correct"] == true).count();
    assert_eq!(summed["scores"][0]["estimate"]["mean"], right as f64 / 19.0);

    // Killed in the middle of the eighth line.
    let ends: Vec<usize> = (0..whole.len()).filter(|&i| whole[i] == b'\n').collect();
    let kept = &whole[..=ends[6]];
    std::fs::write(at.join("out/eval.jsonl"), &whole[..ends[6] + 40]).unwrap();
    std::fs::remove_file(at.join("out/summary.json")).unwrap();
    let output = eval(at, &[&arguments[..], &["--resume"]].concat());
    assert_eq!(code(&output), 0, "{}", String::from_utf8_lossy(&output.stderr));
    assert!(std::fs::read(at.join("out/eval.jsonl")).unwrap().starts_with(kept), "lines were made again");
    assert_eq!(records(at).len(), 19);
    assert_eq!(std::fs::read(at.join("out/summary.json")).unwrap(), first);

    // Nothing left to do; then other settings.
    let before = std::fs::read(at.join("out/eval.jsonl")).unwrap();
    eval(at, &[&arguments[..], &["--resume"]].concat());
    assert_eq!(std::fs::read(at.join("out/eval.jsonl")).unwrap(), before);
    let output = eval(at, &[&arguments[..9], &["stability:n=2", "--resume", "--limit", "2"]].concat());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(code(&output) == 0 && said.contains("2 earlier results have other settings"), "{said}");
    assert_eq!((summary(at)["pictures"].as_u64(), records(at).len()), (Some(2), 19));
}

#[test]
fn names_of_folders_and_files_say_classes() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let names = ["tench", "golden retriever", "kite", "ant", "pier", "menu", "knot", "rule", "hyena", "gar"];
    let count = verilume::model::Model::open(Path::new(&model()), None).unwrap().classes();
    let extra = (names.len()..count).map(|i| format!("other {i}"));
    let names: Vec<String> = names.map(str::to_owned).into_iter().chain(extra).take(count).collect();
    std::fs::write(at.join("labels.txt"), names.join("\n")).unwrap();
    for (i, name) in
        ["2/a.png", "golden_retriever/b.png", "n01440764_tench/c.png", "pictures/3_7.png"].iter().enumerate()
    {
        picture(at.join("in").join(name), 30, 28, i);
    }
    picture(at.join("in/n01440764_tensh/d.png"), 30, 28, 8);
    std::fs::write(at.join("in/2/notes.txt"), "no picture").unwrap();
    std::fs::write(at.join("in/2/broken.png"), "no picture").unwrap();
    let arguments = ["--data", "in", "--labels", "labels.txt", "-m", "gradient", "--metric", "fidelity", "--json"];
    let output = eval(at, &arguments);
    assert_eq!(code(&output), 1);
    let found: BTreeMap<String, Value> =
        records(at).into_iter().map(|l| (l["input"].as_str().unwrap().to_owned(), l)).collect();
    let label = |name: &str| found[&format!("in/{name}")]["label"].as_u64();
    assert_eq!(label("2/a.png"), Some(2));
    assert_eq!(label("golden_retriever/b.png"), Some(1));
    assert_eq!(label("n01440764_tench/c.png"), Some(0));
    assert_eq!(label("pictures/3_7.png"), Some(3));
    let unknown = found["in/n01440764_tensh/d.png"]["error"].as_str().unwrap();
    assert!(unknown.contains("tensh/d.png") && unknown.contains("tench"), "{unknown}");
    assert!(found["in/2/broken.png"]["error"].as_str().unwrap().contains("broken.png"));
    assert_eq!(summary(at)["failed"], 2);
    let printed = lines(&output.stdout);
    assert_eq!(printed.len(), 2);
    assert_eq!((&printed[0]["output"], &printed[0]["estimate"]["n"]), (&"accuracy".into(), &4.into()));
    assert_eq!(printed[1]["failed"], 0);

    // A table in place of the names; what it leaves out is an error of that file.
    std::fs::write(at.join("classes.csv"), "file,label\na.png,kite\nb.png,7\nc.png,nothing\n2/broken.png,1\n").unwrap();
    let output = eval(at, &[&arguments[..], &["--labels-csv", "classes.csv"]].concat());
    assert_eq!(code(&output), 1);
    let errors: Vec<Value> = records(at).into_iter().filter(|l| !l["error"].is_null()).collect();
    let why =
        |name: &str| errors.iter().find(|l| l["input"].as_str().unwrap().ends_with(name)).unwrap()["error"].to_string();
    assert_eq!(errors.len(), 4);
    assert!(why("c.png").contains("line 4") && why("3_7.png").contains("lists no class"), "{errors:?}");
    // Without any class.
    let output = eval(at, &["--data", "in/2/a.png", "--unlabelled", "-m", "gradient", "--metric", "fidelity"]);
    assert_eq!((code(&output), records(at)[0]["correct"].is_null()), (0, true));
}

#[test]
fn boxes_follow_their_pictures() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    // Resized to 36x24, cropped to columns 6 to 30: the middle, 18, is the crop's 12.
    picture(at.join("0_1.png"), 72, 48, 1);
    let energy = |boxes: &str| {
        std::fs::write(at.join("boxes.csv"), format!("file,class,left,top,right,bottom\n{boxes}")).unwrap();
        let arguments = ["--data", "0_1.png", "--boxes", "boxes.csv", "--target", "label", "-m", "gradient"];
        let output = eval(at, &[&arguments[..], &["--metric", "energy_in_box", "--metric", "wsol"]].concat());
        assert_eq!(code(&output), 0, "{}", String::from_utf8_lossy(&output.stderr));
        let record = records(at).remove(0);
        (record["methods"]["gradient"]["readings"]["energy_in_box"].as_f64(), record)
    };
    let (all, _) = energy("0_1.png,0,0,0,72,48\n");
    assert!((all.unwrap() - 1.0).abs() < 1e-12);
    let (left, _) = energy("0_1.png,0,0,0,36,48\n");
    let (right, _) = energy("0_1.png,0,36,0,72,48\n");
    assert!((left.unwrap() + right.unwrap() - 1.0).abs() < 1e-12 && left.unwrap() > 0.05, "{left:?} {right:?}");
    let (both, _) = energy("0_1.png,0,0,0,36,48\n0_1.png,0,36,0,72,48\n");
    assert!((both.unwrap() - 1.0).abs() < 1e-12);
    // Of class 1 nothing is asked, and of what the crop cuts away nothing is left.
    let (none, record) = energy("0_1.png,1,0,0,36,48\n0_1.png,0,0,0,12,48\n");
    assert_eq!(none, None);
    assert!(record["notes"][0].as_str().unwrap().contains("class 0"), "{record}");

    std::fs::write(at.join("boxes.csv"), "0_1.png,0,9,9,3,12\n").unwrap();
    let output = eval(at, &["--data", "0_1.png", "--boxes", "boxes.csv"]);
    assert_eq!(code(&output), 2);
    assert!(String::from_utf8_lossy(&output.stderr).contains("line 1"));
    std::fs::write(at.join("boxes.csv"), "0_1.png,999,3,9,9,12\n").unwrap();
    let output = eval(at, &["--data", "0_1.png", "--boxes", "boxes.csv", "--metric", "fidelity"]);
    assert_eq!(code(&output), 2);
    assert!(records(at)[0]["error"].as_str().unwrap().contains("999"));
}

#[test]
fn mosaics_are_the_same_whenever_they_are_drawn() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    array(&at.join("data.safetensors"), 11, |i| (i % 5) as u8);
    let mosaics = |more: &[&str]| {
        let arguments = ["--data", "data.safetensors", "-m", "gradient", "--metric", "grid_pointing"];
        let output = eval(at, &[&arguments[..], more].concat());
        assert_eq!(code(&output), 0, "{}", String::from_utf8_lossy(&output.stderr));
        records(at).into_iter().map(|l| {
            let parts: Vec<String> =
                l["parts"].as_array().unwrap().iter().map(|p| p.as_str().unwrap().to_owned()).collect();
            let number = l["index"].as_u64().unwrap() as usize;
            // Pictures have their number modulo 5 as class.
            let row = |p: &String| p.trim_end_matches(']').rsplit('[').next().unwrap().parse::<u64>().unwrap();
            assert_eq!(l["label"], row(&parts[number % 4]) % 5);
            assert_eq!(l["target"], l["label"]);
            (parts, l["methods"]["gradient"]["readings"]["grid_pointing"].as_f64().unwrap())
        })
    };
    let six: Vec<_> = mosaics(&["--mosaics", "6"]).collect();
    let three: Vec<_> = mosaics(&["--mosaics", "3"]).collect();
    assert_eq!(six[..3], three[..]);
    let double: Vec<_> = mosaics(&["--mosaics", "3", "--mosaic-size", "double"]).collect();
    for ((parts, one), (same, other)) in three.iter().zip(&double) {
        assert_eq!(parts, same);
        assert_ne!(one, other);
    }
    assert_eq!(summary(at)["kind"], "mosaics, double size");
    let reseeded: Vec<_> = mosaics(&["--mosaics", "6", "--seed", "1"]).collect();
    assert_ne!(six.iter().map(|m| &m.0).collect::<Vec<_>>(), reseeded.iter().map(|m| &m.0).collect::<Vec<_>>());
}

#[test]
fn what_makes_no_sense_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    array(&at.join("data.safetensors"), 3, |i| (i % 3) as u8);
    array(&at.join("odd.safetensors"), 2, |i| if i == 0 { 250 } else { 1 });
    let cases: [(&[&str], &str); 7] = [
        (&["--data", "data.safetensors", "--metric", "wsol"], "--boxes"),
        (&["--data", "data.safetensors", "--metric", "grid_pointing"], "--mosaics"),
        (&["--data", "data.safetensors", "--metric", "fidelty"], "fidelity"),
        (&["--data", "data.safetensors", "--metric", "retrieval:iterations=0"], "at least 1"),
        (&["--data", "data.safetensors", "--mosaics", "2"], "4 different classes"),
        (&["--data", "data.safetensors", "--target", "label", "--unlabelled"], "--unlabelled"),
        (&["--data", "data.safetensors", "-m", "grad_cam:layer=nowhere"], "nowhere"),
    ];
    for (arguments, hint) in cases {
        let output = eval(at, arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(code(&output) == 2 && said.contains(hint), "{arguments:?}: {said}");
    }
    // A class that the net has not fails its picture alone; a metric that fails leaves the others.
    let arguments =
        ["--data", "odd.safetensors", "-m", "gradient", "-m", "grad_cam:upsample=none", "--metric", "fidelity"];
    let output = eval(at, &arguments);
    assert_eq!(code(&output), 1);
    let read = records(at);
    assert!(read[0]["error"].as_str().unwrap().contains("class 250"), "{}", read[0]);
    assert!(read[1]["methods"]["gradient"]["readings"]["fidelity"].is_number());
    assert!(read[1]["methods"]["grad_cam"]["errors"]["fidelity"].is_string(), "{}", read[1]);
}

/// A method whose map of a class is the same on every picture.
struct Known<F: Fn(usize, usize, usize) -> f64>(F);

impl<F: Fn(usize, usize, usize) -> f64 + Send + Sync> Method for Known<F> {
    fn explain(&self, _: &mut Engine, _: &Graph, x: &Batch, targets: &[usize]) -> verilume::Result<Vec<Map>> {
        let shape = x.shape();
        let map = |&target: &usize| {
            let values = (0..shape.plane()).map(|i| (self.0)(target, i / shape.w, i % shape.w)).collect();
            Map::new(Tensor::f64([shape.h, shape.w], values).unwrap(), Sign::Signed, Space::Input, target, "known")
        };
        Ok(targets.iter().map(map).collect())
    }
}

fn measure(net: &Net, method: &dyn Method, targets: &[usize], regions: &[Vec<Region>], spec: &str) -> Vec<Readings> {
    let mut engine = Engine::new(&Settings { threads: Some(1), ..Settings::default() }).unwrap();
    let maps = method.explain(&mut engine, &net.graph, &net.x, targets).unwrap();
    let case = Case {
        graph: &net.graph,
        preprocess: &net.preprocess,
        x: &net.x,
        targets,
        labels: None,
        regions: Some(regions),
        method,
        maps: &maps,
        seed: 4,
    };
    MetricSpec::parse(spec).unwrap().build().unwrap().measure(&mut engine, &case).unwrap()
}

#[test]
fn dwsol_asks_for_what_is_there_and_what_is_not() {
    let net = Net::small("resnet_basic");
    let [h, w] = [net.x.shape().h, net.x.shape().w];
    let upper = Bounds { top: 0, left: 0, height: h / 2, width: w / 2 };
    let lower = Bounds { top: h / 2, left: w / 2, height: h - h / 2, width: w - w / 2 };
    let regions = vec![vec![Region { class: 0, bounds: upper }, Region { class: 1, bounds: lower }]; net.x.len()];
    let strong = "epsilon=0.5,step=0.1,iterations=20";
    let weak = "epsilon=1e-6,step=1e-6,iterations=1";
    // Whatever is asked for, the map shows the upper left quarter, with this energy for classes that are not there.
    let ask = |target: usize, energy: f64, attack: &str| {
        let drawn = |class: usize, y: usize, x: usize| match (upper.contains(y, x), class < 2) {
            (true, true) => 1.0,
            (true, false) => energy,
            _ => 0.0,
        };
        measure(&net, &Known(drawn), &vec![target; net.x.len()], &regions, &format!("dwsol:{attack}"))
    };
    let all = |readings: Vec<Readings>, want: [Option<f64>; 4]| {
        assert!(!readings.is_empty() && readings.iter().all(|r| r == &want), "{readings:?} for {want:?}");
    };
    let [yes, half, no] = [Some(1.0), Some(0.5), Some(0.0)];
    all(ask(0, 0.0, strong), [yes; 4]);
    all(ask(0, 0.5, strong), [yes; 4]);
    all(ask(0, 0.51, strong), [half, yes, no, half]);
    // Class 1 lies in the other corner; of a class that is not there the first region's is asked for in its place.
    all(ask(1, 0.5, strong), [half, no, yes, half]);
    all(ask(2, 0.5, strong), [yes; 4]);
    // Where nothing flips nothing is said of it.
    all(ask(0, 0.5, weak), [yes, yes, yes, None]);
    // A box over the whole picture overlaps a quarter by a quarter.
    let whole = Known(|_, y, x| if (y + x) % 2 == 0 { 1.0 } else { 0.9 });
    all(measure(&net, &whole, &vec![0; net.x.len()], &regions, &format!("dwsol:{weak}")), [no, no, no, None]);
}

#[test]
fn retrieval_of_an_open_mask_is_agreement() {
    let net = Net::small("resnet_basic");
    let (h, w) = (net.x.shape().h, net.x.shape().w);
    let mut engine = Engine::new(&Settings { threads: Some(1), ..Settings::default() }).unwrap();
    let tops = |engine: &mut Engine, x: &Batch| -> Vec<usize> {
        let logits = engine.forward(&net.graph, x).unwrap().to_f64().into_owned();
        let best = |row: &[f64]| (0..row.len()).max_by(|&a, &b| row[a].total_cmp(&row[b])).unwrap();
        logits.chunks(net.graph.classes()).map(best).collect()
    };
    let clean = tops(&mut engine, &net.x);
    let settings = Pgd {
        epsilon: PictureLength::Normalised(0.3),
        step: PictureLength::Normalised(0.05),
        iterations: 10,
        start: StartPoint::Random,
        seed: 4,
        ..Pgd::default()
    };
    let found = pgd(&mut engine, &net.graph, &net.preprocess, &net.x, Goal::Untargeted(&clean), &settings).unwrap();
    let moved = Batch::of(found.iter().map(|a| a.picture.clone()).collect()).unwrap();
    let after = tops(&mut engine, &moved);
    assert!(clean.iter().zip(&after).any(|(a, b)| a != b), "the attack failed");
    // Open everywhere but at one pixel, so that the map has a range to be scaled by; the pixel depends on the class.
    let hole = |class: usize| (class % h, 2 * class % w);
    let open = Known(move |class, y, x| if (y, x) == hole(class) { 0.0 } else { 7.0 });
    let masked = |x: &Batch, classes: &[usize]| {
        let items = x.items().iter().zip(classes).map(|(t, &class)| {
            let (y, column) = hole(class);
            let shut = |i: usize| i % (h * w) == y * w + column;
            let values = t.to_f32().iter().enumerate().map(|(i, &v)| if shut(i) { 0.0 } else { v }).collect();
            Tensor::f32(t.dims(), values).unwrap()
        });
        Batch::of(items.collect()).unwrap()
    };
    let none: Vec<Vec<Region>> = vec![Vec::new(); clean.len()];
    let readings = measure(&net, &open, &net.targets, &none, "retrieval:epsilon=0.3,step=0.05,iterations=10");
    for (first, classes) in [(0, &clean), (4, &after)] {
        let of = |engine: &mut Engine, x: &Batch| tops(engine, &masked(x, classes));
        let (x, xa) = (of(&mut engine, &net.x), of(&mut engine, &moved));
        for (i, readings) in readings.iter().enumerate() {
            let want = [&x, &xa, &xa, &x].map(|top| Some(f64::from(u8::from(top[i] == clean[i]))));
            assert_eq!(readings[first..first + 4], want, "picture {i}");
        }
    }
}
