//! Runs from a program without the command line: what they leave is what the program leaves, also when they were cancelled
//! halfway and resumed.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::cell::Cell;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use safetensors::tensor::{Dtype, TensorView, serialize};
use serde_json::Value;
use verilume::data::{Room, load};
use verilume::engine::{DeviceChoice, Settings};
use verilume::model::{Model, Setting};
use verilume::run::{
    AttackFormat, AttackOptions, AttackRun, Earlier, EvalOptions, Evaluation, Explain, ExplainOptions, Format,
    Listener, Totals, UnitKind, choose, drive, methods,
};
use verilume::session::{Options, Session};
use verilume::tensor::Tensor;
use verilume::{Cancel, ErrorKind, Result};

const SIDE: usize = 24;

fn net() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/small/resnet_basic.weights.safetensors")
}

fn level(seed: usize, x: usize, y: usize, c: usize) -> u8 {
    ((x * (7 + seed) + y * (13 + 3 * seed) + c * 85 + (x * y + seed) % 31) % 256) as u8
}

/// A folder with pictures, one of them broken, an array of more rows than go together, and labelled pictures.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    std::fs::create_dir(&data).unwrap();
    for seed in 0..5 {
        let colour = |x: u32, y: u32| image::Rgb([0, 1, 2].map(|c| level(seed, x as usize, y as usize, c)));
        let side = SIDE as u32;
        image::RgbImage::from_fn(side, side, colour).save(data.join(format!("{seed}.png"))).unwrap();
    }
    std::fs::write(data.join("2b.png"), b"broken").unwrap();
    let rows = 20;
    let values: Vec<u8> = (0..rows * 3 * SIDE * SIDE).flat_map(|i| ((i as f32 * 0.37).sin()).to_le_bytes()).collect();
    let view = TensorView::new(Dtype::F32, vec![rows, 3, SIDE, SIDE], &values).unwrap();
    std::fs::write(data.join("rows.safetensors"), serialize([("input", view)], None).unwrap()).unwrap();
    let count = 20;
    let plane = SIDE * SIDE;
    let images: Vec<u8> =
        (0..count * 3 * plane).map(|i| level(i / (3 * plane), i % SIDE, i / SIDE % SIDE, i / plane % 3)).collect();
    let labels: Vec<u8> = (0..count).map(|i| i as u8 % 4).collect();
    let images = TensorView::new(Dtype::U8, vec![count, 3, SIDE, SIDE], &images).unwrap();
    let labels = TensorView::new(Dtype::U8, vec![count], &labels).unwrap();
    let both = serialize([("images", images), ("labels", labels)], None).unwrap();
    std::fs::write(folder.path().join("labelled.safetensors"), both).unwrap();
    folder
}

fn settings() -> Settings {
    Settings { device: DeviceChoice::Cpu, threads: Some(1), ..Settings::default() }
}

fn session() -> Session {
    let model = Model::open(&net(), None).unwrap();
    let mut preparation = model.preprocess().clone();
    (preparation.resize, preparation.crop) = (SIDE, [SIDE; 2]);
    let options = Options { engine: settings(), preparation: Some(preparation), ..Options::default() };
    let session = Session::open(model, &options).unwrap();
    session.reading_with(Arc::new(|path, preparation| load(path, preparation, Room::default())))
}

fn program(folder: &Path, arguments: &[&str]) {
    let net = net();
    let common = ["--model", net.to_str().unwrap(), "--size", "24:24", "--threads", "1", "--device", "cpu", "--quiet"];
    let output = Command::new(env!("CARGO_BIN_EXE_verilume"))
        .current_dir(folder)
        .args(arguments)
        .args(common)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.code().is_some_and(|code| code < 2), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Cancels after so many inputs.
struct Impatient {
    left: Cell<usize>,
    cancel: Cancel,
}

impl Impatient {
    fn after(inputs: usize) -> Self {
        Self { left: Cell::new(inputs), cancel: Cancel::default() }
    }

    fn count(&self) {
        match self.left.get() {
            0 => self.cancel.cancel(),
            n => self.left.set(n - 1),
        }
    }
}

impl Listener for Impatient {
    fn step(&self, _: &str) {
        self.count();
    }

    fn pass(&self, _: &str) {
        self.count();
    }

    fn cancel(&self) -> Cancel {
        self.cancel.clone()
    }
}

fn explain(folder: &Path, earlier: Earlier, listener: &dyn Listener) -> Result<Totals> {
    let mut session = session();
    let options = ExplainOptions {
        inputs: vec![folder.join("data").into()],
        methods: methods(&["gradient".into(), "grad_cam".into()])?,
        target: "top:2".into(),
        formats: vec![Format::Npy, Format::Overlay],
        winsorise: None,
        out: folder.join("explained"),
        earlier,
        shard: None,
        settings: settings(),
        given: vec![Setting::Size],
        read: vec![net()],
    };
    let mut work = Explain::open(&mut session, options, |_| Box::new(|_| Ok(())), listener)?;
    let ended = drive(work.stream(), &mut work, listener);
    work.close(ended, listener)
}

fn attack(folder: &Path, listener: &dyn Listener) -> Result<Totals> {
    let mut session = session();
    let options = AttackOptions {
        inputs: vec![folder.join("data").into()],
        attacks: vec!["fgsm".into()],
        methods: Vec::new(),
        target: "top1".into(),
        formats: vec![AttackFormat::Npy, AttackFormat::Png],
        out: folder.join("attacked"),
        settings: settings(),
        given: vec![Setting::Size],
        read: vec![net()],
    };
    let mut work = AttackRun::open(&mut session, options, |_, _| Box::new(|_| Ok(())), listener)?;
    let ended = drive(work.stream(), &mut work, listener);
    work.close(ended, listener)
}

fn eval(folder: &Path, earlier: Earlier, listener: &dyn Listener) -> Result<usize> {
    let mut session = session();
    let options = EvalOptions {
        data: vec![OsString::from(folder.join("labelled.safetensors"))],
        labels_csv: None,
        boxes: None,
        unlabelled: false,
        shuffle: false,
        limit: None,
        kind: UnitKind::Pictures,
        methods: methods(&["gradient".into()])?,
        metrics: choose(&["sparseness".into(), "deletion".into()], UnitKind::Pictures, false)?,
        explain_label: false,
        out: folder.join("measured"),
        earlier,
        settings: settings(),
        given: vec![Setting::Size],
    };
    let mut work = Evaluation::open(&mut session, options, listener)?;
    let ended = drive(work.stream(), &mut work, listener);
    work.close(ended, listener).map(|(summary, _)| summary.pictures)
}

/// All files below `folder` by their names, those of JSON without what differs from run to run.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_owned();
        let bytes = std::fs::read(&path).unwrap();
        let is_json = path.extension().is_some_and(|e| e == "json" || e == "jsonl");
        files.insert(name.into(), if is_json { comparable(&path, &bytes) } else { bytes });
    }
    files
}

/// Lines in order of their text, since a resumed run writes what it makes after what it keeps.
fn comparable(path: &Path, bytes: &[u8]) -> Vec<u8> {
    fn bare(value: &mut Value) {
        match value {
            Value::Object(object) => {
                object.retain(|key, _| !["seconds", "peak_bytes"].contains(&key.as_str()));
                object.values_mut().for_each(bare);
            }
            Value::Array(array) => array.iter_mut().for_each(bare),
            _ => {}
        }
    }
    let parse = |text: &[u8]| {
        let mut value: Value = serde_json::from_slice(text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        bare(&mut value);
        value.to_string()
    };
    if path.extension().is_some_and(|e| e == "json") {
        return parse(bytes).into_bytes();
    }
    let lines = bytes.split(|&b| b == b'\n').filter(|line| !line.is_empty());
    // An interrupted run notes what it makes again.
    let lines = lines.filter(|line| {
        let again = line.starts_with(br#"{"left":"#);
        let noted: Value = serde_json::from_slice(line).unwrap();
        let files = noted["left"]["files"].as_array().into_iter().flatten();
        files.for_each(|file| assert!(Path::new(file.as_str().unwrap()).is_file(), "{file}"));
        !again
    });
    let mut lines: Vec<String> = lines.map(parse).collect();
    lines.sort();
    lines.join("\n").into_bytes()
}

#[test]
fn a_cancelled_and_resumed_run_leaves_what_the_program_leaves() {
    let folder = folder();
    let (folder, data) = (folder.path(), folder.path().join("data"));
    let inputs = data.to_str().unwrap();
    let out = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    let compare = |name: &str| {
        let theirs = files(&folder.join(name));
        std::fs::remove_dir_all(folder.join(name)).unwrap();
        theirs
    };
    let same = |ours: &BTreeMap<PathBuf, Vec<u8>>, theirs: &BTreeMap<PathBuf, Vec<u8>>| {
        assert_eq!(ours.keys().collect::<Vec<_>>(), theirs.keys().collect::<Vec<_>>());
        for (name, bytes) in ours {
            let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
            assert!(*bytes == theirs[name], "{}\n{}\n{}", name.display(), text(bytes), text(&theirs[name]));
        }
    };

    let both = ["-m", "gradient", "-m", "grad_cam", "-t", "top:2", "--format", "npy,overlay", "-o"];
    program(folder, &[&["explain", inputs], &both[..], &[&out("explained")]].concat());
    let theirs = compare("explained");
    assert!(theirs.len() > 40);
    for inputs in [0, 2, 5] {
        let stopped = explain(folder, Earlier::Forget, &Impatient::after(inputs)).unwrap_err();
        assert_eq!(stopped.kind(), ErrorKind::Cancelled, "{stopped}");
        assert!(!folder.join("explained/manifest.json").exists());
    }
    let totals = explain(folder, Earlier::Resume, &()).unwrap();
    assert!(totals.made > 0 && totals.skipped > 0 && totals.failed == 1, "{totals:?}");
    let mut ours = files(&folder.join("explained"));
    // A resumed run says what it skipped.
    let manifest = Path::new("manifest.json");
    let done =
        |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap().replace("\"skipped\"", "\"done\"").into_bytes();
    ours.insert(manifest.into(), done(&ours[manifest]));
    same(&ours, &theirs);

    program(folder, &["attack", inputs, "-a", "fgsm", "--format", "npy,png", "-o", &out("attacked")]);
    let theirs = compare("attacked");
    assert_eq!(attack(folder, &Impatient::after(2)).unwrap_err().kind(), ErrorKind::Cancelled);
    assert_eq!(attack(folder, &()).unwrap().failed, 1);
    same(&files(&folder.join("attacked")), &theirs);

    let labelled = out("labelled.safetensors");
    let metrics = ["--metric", "sparseness", "--metric", "deletion", "-m", "gradient", "-o"];
    program(folder, &[&["eval", "--data", &labelled], &metrics[..], &[&out("measured")]].concat());
    let theirs = compare("measured");
    assert_eq!(eval(folder, Earlier::Forget, &Impatient::after(9)).unwrap_err().kind(), ErrorKind::Cancelled);
    assert!(!folder.join("measured/summary.json").exists());
    assert_eq!(eval(folder, Earlier::Resume, &()).unwrap(), 20);
    same(&files(&folder.join("measured")), &theirs);
}

#[test]
fn a_call_ends_when_another_thread_asks_for_it() {
    for method in ["smoothgrad:n=1000000", "rise:n=1000000", "haf:iterations=1000000", "decoy:iterations=1000000"] {
        let mut session = session();
        let cancel = Cancel::default();
        session.cancel_with(&cancel);
        let method = session.method(method).unwrap();
        let input =
            Tensor::f32([3, SIDE, SIDE], (0..3 * SIDE * SIDE).map(|i| (i as f32 * 0.37).sin()).collect()).unwrap();
        let other = cancel.clone();
        let waits = std::thread::spawn(move || {
            std::thread::sleep(std::time::Duration::from_millis(50));
            other.cancel();
        });
        let maps = session.explain(method.as_ref(), &[&input, &input], &[0, 1]);
        waits.join().unwrap();
        assert!(maps.iter().all(|map| map.as_ref().is_err_and(|e| e.kind() == ErrorKind::Cancelled)));
        // The flag stays set, and another one lets it run again.
        assert!(session.score(&[&input]).remove(0).is_err());
        session.cancel_with(&Cancel::default());
        assert!(session.score(&[&input]).remove(0).is_ok());
    }
}

#[test]
fn a_bad_input_is_its_own_error() {
    let mut session = session();
    let of =
        |side: usize, f: fn(usize) -> f32| Tensor::f32([3, side, side], (0..3 * side * side).map(f).collect()).unwrap();
    let good = of(SIDE, |i| (i as f32 * 0.37).sin());
    let bad = of(SIDE, |i| if i == 7 { f32::NAN } else { 0.5 });
    let other = of(32, |i| (i as f32 * 0.11).cos());
    let vector = Tensor::f32([5], vec![0.0; 5]).unwrap();
    let inputs = [&good, &bad, &good, &other, &vector, &good];
    let scored = session.score(&inputs);
    let fine: Vec<bool> = scored.iter().map(Result::is_ok).collect();
    assert_eq!(fine, [true, false, true, true, false, true]);
    assert_eq!(scored[0].as_ref().unwrap(), scored[5].as_ref().unwrap());
    let alone = session.score(&[&other]).remove(0).unwrap();
    assert_eq!(scored[3].as_ref().unwrap(), &alone);
    let method = session.method("gradient").unwrap();
    let maps = session.explain(method.as_ref(), &inputs, &[0; 6]);
    assert_eq!(maps.iter().map(Result::is_ok).collect::<Vec<_>>(), fine);
    assert_eq!(maps[0].as_ref().unwrap().values, maps[2].as_ref().unwrap().values);
    // A class that the net has not is an error of its input, too.
    let maps = session.explain(method.as_ref(), &[&good, &good], &[0, 999_999]);
    assert!(maps[0].is_ok() && maps[1].is_err());
}
