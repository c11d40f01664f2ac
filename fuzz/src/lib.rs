//! What a fuzzer calls: the library's readers on arbitrary bytes. A target returns, whatever it is given; it panics where a
//! promise is broken, such as that what was read can be written and read again.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a promise that is broken ends the run")]

use std::io::Write;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use verilume::Error;
use verilume::engine::DeviceChoice;
use verilume::image::{DecodeLimits, Interpolation, Picture, Preprocess};
use verilume::method::patterns::Patterns;
use verilume::method::{self, Context};
use verilume::model::{ARCHITECTURES, Labels, Model, Reading};
use verilume::program::Score;
use verilume::reliability::detector::{Detector, DetectorProvenance, Net, Scaling, Trained, Training};
use verilume::reliability::{attack, metric};
use verilume::report::check::CheckReport;
use verilume::report::eval::Evaluated;
use verilume::report::{Journal, Line, Record};
use verilume::tensor::Shape;

/// Every target by its name.
pub const TARGETS: &[(&str, fn(&[u8]))] = &[
    ("weights", weights),
    ("graph", graph),
    ("picture", picture),
    ("labels", labels),
    ("specs", specs),
    ("records", records),
    ("patterns", patterns),
    ("detector", detector),
];

/// Longest input that says something new.
pub const MOST_BYTES: usize = 1 << 18;

/// An error says something, and not without end.
fn told<T>(answer: Result<T, Error>) -> Option<T> {
    answer.inspect_err(|e| assert!(!e.to_string().is_empty())).ok()
}

/// A file of these bytes, one for the whole process.
fn file(bytes: &[u8]) -> PathBuf {
    let path = std::env::temp_dir().join(format!("verilume-fuzz-{}", std::process::id()));
    std::fs::File::create(&path)
        .and_then(|mut file| file.write_all(bytes))
        .expect("the folder for temporary files can be written");
    path
}

fn preprocess() -> Preprocess {
    let (mean, std) = (vec![0.5; 3], vec![0.25; 3]);
    Preprocess { resize: 8, crop: [8; 2], interpolation: Interpolation::Bilinear, mean, std, channels: 3 }
}

/// A weights file as every architecture, and its net at other sizes.
pub fn weights(bytes: &[u8]) {
    let shared: Arc<Vec<u8>> = Arc::new(bytes.to_vec());
    let names = ARCHITECTURES.iter().map(|a| Some(a.name));
    for arch in std::iter::once(None).chain(names) {
        let Some(model) = told(Model::from_bytes("fuzz", shared.clone(), arch)) else { continue };
        let input = model.default_input();
        assert_eq!(model.labels().len(), model.classes());
        assert!(model.classes() > 0 && !input.is_empty());
        told(model.graph(input)).expect("the size that a net was made for");
        for (h, w) in [(1, 1), (33, 17), (7, 224), (1 << 20, 1)] {
            told(model.graph(Shape::new(input.c, h, w)));
        }
        if let Some(info) = told(model.info(input)) {
            serde_json::to_string(&info).expect("a net's description can be written as JSON");
        }
        told(model.preprocess().check()).expect("a net's own preparation");
    }
}

/// An ONNX graph, and its net at other sizes.
pub fn graph(bytes: &[u8]) {
    let shared: Arc<Vec<u8>> = Arc::new(bytes.to_vec());
    for output in [None, Some("y")] {
        let reading = Reading { output, ..Reading::default() };
        let Some(model) = told(Model::from_graph("fuzz", shared.clone(), &reading)) else { continue };
        let input = model.default_input();
        assert!(model.classes() > 0 && !input.is_empty());
        assert_eq!(model.labels().len(), model.classes());
        told(model.graph(input)).expect("the size that a net was made for");
        for (h, w) in [(1, 1), (33, 17), (7, 224)] {
            told(model.graph(Shape::new(input.c, h, w)));
        }
        if let Some(info) = told(model.info(input)) {
            serde_json::to_string(&info).expect("a net's description can be written as JSON");
        }
    }
}

/// A picture file of any format, resized by every filter.
pub fn picture(bytes: &[u8]) {
    let limits =
        DecodeLimits { width: 2048, height: 2048, pixels: 1 << 20, decoded_bytes: 16 << 20, file_bytes: 1 << 20 };
    let Some(picture) = told(Picture::decode(bytes, &limits)) else { return };
    let (w, h) = (picture.width(), picture.height());
    assert_eq!(picture.rgb().len(), 3 * w * h);
    assert!(w * h <= 1 << 20 && w > 0 && h > 0);
    for filter in [Interpolation::Nearest, Interpolation::Bilinear, Interpolation::Bicubic, Interpolation::Lanczos] {
        let small = told(picture.resized(7, 5, filter)).expect("a picture can be made small");
        assert_eq!((small.width(), small.height()), (7, 5));
    }
}

/// A file of labels for nets of few and many classes, and the search for each of its names.
pub fn labels(bytes: &[u8]) {
    let path = file(bytes);
    for classes in [1, 2, 5, 1000] {
        let Some(labels) = told(Labels::from_file(&path, classes)) else { continue };
        assert_eq!(labels.len(), classes);
        for name in labels.iter().take(50) {
            told(labels.find(name));
        }
    }
    if let Ok(name) = std::str::from_utf8(bytes) {
        told(Labels::for_pictures(1000).find(name));
    }
}

/// Methods, metrics, attacks and values of options, one a line. What was read is written and read again as the same.
pub fn specs(bytes: &[u8]) {
    fn again<T: FromStr<Err = Error> + std::fmt::Display>(text: &str) -> Option<T> {
        let spec = told(text.parse::<T>())?;
        let written = spec.to_string();
        let read = written.parse::<T>().unwrap_or_else(|e| panic!("{written}: {e}"));
        assert_eq!(read.to_string(), written);
        Some(spec)
    }
    let preprocess = preprocess();
    let load = |path: &std::path::Path| Err(Error::settings(format!("{}: nothing is read here", path.display())));
    for text in String::from_utf8_lossy(bytes).lines().take(8) {
        if let Some(spec) = again::<method::Spec>(text) {
            let context = Context { seed: 0, score: Score::Logit, preprocess: &preprocess, load: &load };
            told(spec.build(&context));
            spec.promises();
            spec.draws();
        }
        if let Some(spec) = again::<metric::MetricSpec>(text) {
            told(spec.build());
        }
        if let Some(spec) = again::<attack::AttackSpec>(text) {
            told(spec.build(&attack::AttackContext { seed: 0, load: &load, load_map: &load }));
        }
        told(text.parse::<DeviceChoice>());
    }
}

/// Records, evaluations and reports of checks, as `--resume` and readers meet them.
pub fn records(bytes: &[u8]) {
    let path = file(bytes);
    if let Some(lines) = told(Journal::read::<Line>(&path)) {
        for line in lines {
            let text = serde_json::to_string(&line).expect("a record is JSON");
            assert_eq!(serde_json::from_str::<Line>(&text).expect("and reads again"), line);
        }
    }
    if let Some(lines) = told(Journal::read::<Evaluated>(&path)) {
        for line in lines {
            line.failures();
            let text = serde_json::to_string(&line).expect("an evaluation is JSON");
            assert_eq!(serde_json::from_str::<Evaluated>(&text).expect("and reads again"), line);
        }
    }
    let _ = serde_json::from_slice::<Record>(bytes);
    if let Ok(report) = serde_json::from_slice::<CheckReport>(bytes) {
        serde_json::to_string(&report).expect("a report is JSON");
    }
}

/// Patterns for `pattern_net`.
pub fn patterns(bytes: &[u8]) {
    if let Some(patterns) = told(Patterns::from_bytes(bytes)) {
        let written = told(patterns.to_bytes()).expect("patterns that were read can be written");
        told(Patterns::from_bytes(&written)).expect("and read again");
    }
}

/// A detector of attacked pictures.
pub fn detector(bytes: &[u8]) {
    if let Some(detector) = told(Detector::from_bytes(bytes)) {
        let written = told(detector.to_bytes()).expect("a detector that was read can be written");
        assert_eq!(told(Detector::from_bytes(&written)).expect("and read again"), detector);
    }
}

/// Inputs to start from that are not easily written by hand.
pub fn seeds(target: &str) -> Vec<Vec<u8>> {
    if target != "detector" {
        return Vec::new();
    }
    let net = Net::new(Shape::new(2, 8, 8), 3).expect("a small net");
    let scaling = Scaling { mean: vec![0.0; 2], std: vec![1.0; 2] };
    let provenance = DetectorProvenance {
        version: "0".into(),
        method: "gradient".into(),
        seed: 0,
        model: ["net".into(), "mlp".into()],
        model_sha256: "0".repeat(64),
        input: [3, 8, 8],
        preprocess: preprocess(),
        attacks: vec!["fgsm".into()],
        pictures: [1; 3],
        examples: [[1; 2]; 3],
        training: Training::default(),
        epochs: [1; 2],
        validation_auc: 0.5,
        test: Default::default(),
        computed_in: ["f32".into(), "portable".into()],
        notes: Default::default(),
    };
    let trained = Trained { net, scaling, epochs: Vec::new(), best: 0 };
    vec![Detector::new(trained, provenance).to_bytes().expect("a detector can be written")]
}
