//! The adversarial detector: gradients of its loss, a problem that it must learn, independence of threads, files, the making
//! of examples, and its commands.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod nets;

use std::collections::BTreeMap;
use std::path::Path;

use nets::Net as Golden;
use verilume::ErrorKind;
use verilume::engine::{Batch, Engine, Settings};
use verilume::image::{Interpolation, Preprocess};
use verilume::method::{Context, Spec};
use verilume::program::Score;
use verilume::random;
use verilume::reliability::auc::{ScoredCase, auc};
use verilume::reliability::bootstrap::Bootstrap;
use verilume::reliability::detector::{
    ATTACKED, Detector, DetectorProvenance, DetectorVerdict, Example, Features, Laboratory, Net, Rounding,
    SpecimenAttack, SpecimenKind, SpecimenOrigin, SplitPart, Trained, Training, part, train,
};
use verilume::tensor::{Precision, Shape, Tensor};

fn engine(precision: Precision, threads: usize) -> Engine {
    Engine::new(&Settings { precision, threads: Some(threads), ..Settings::default() }).unwrap()
}

fn noise(key: u64, len: usize) -> Vec<f64> {
    let mut draws = vec![0f32; len];
    random::fill_normals(5, key, 0, 0, &mut draws);
    draws.into_iter().map(f64::from).collect()
}

/// Two maps of noise of 12×12; attacked ones have a bright cross somewhere in the second.
fn toy(n: usize, salt: u64) -> Vec<Example> {
    let one = |i: usize| {
        let attacked = i % 2 == 1;
        let mut values = noise(salt * 1000 + i as u64, 2 * 144);
        if attacked {
            let at = 144 + (1 + i % 10) * 12 + 1 + i * 7 % 10;
            [at, at - 12, at + 12, at - 1, at + 1].into_iter().for_each(|k| values[k] += 4.0);
        }
        // Units that standardisation must take away.
        let maps = values.iter().enumerate().map(|(k, v)| if k < 144 { 1e-3 * v } else { 40.0 + 5.0 * v }).collect();
        Example { maps: Tensor::rounded([2, 12, 12], maps, Precision::F32).unwrap(), attacked }
    };
    (0..n).map(one).collect()
}

fn trained(threads: usize, memory: Option<u64>, seed: u64) -> Trained {
    let settings = Settings { threads: Some(threads), memory, ..Settings::default() };
    let settings_of_training = Training { epochs: 25, batch: 16, lr: 3e-3, patience: 8, seed };
    train(&mut Engine::new(&settings).unwrap(), &toy(240, 1), &toy(80, 2), &settings_of_training).unwrap()
}

fn preprocess() -> Preprocess {
    let (mean, std) = (vec![0.5; 3], vec![0.25; 3]);
    Preprocess { resize: 0, crop: [7, 6], interpolation: Interpolation::Bilinear, mean, std, channels: 3 }
}

fn provenance() -> DetectorProvenance {
    DetectorProvenance {
        version: "0".into(),
        method: Spec::parse("haf:iterations=3").unwrap().to_string(),
        seed: 1,
        model: ["net".into(), "resnet".into()],
        model_sha256: "ab".repeat(32),
        input: [3, 7, 6],
        preprocess: preprocess(),
        attacks: vec!["pgd".into()],
        pictures: [3, 2, 1],
        examples: [[3, 2], [2, 1], [1, 1]],
        training: Training::default(),
        epochs: [9, 4],
        validation_auc: 0.875,
        test: BTreeMap::new(),
        computed_in: ["f32".into(), "portable".into()],
        notes: BTreeMap::from([("data".into(), "photos".into())]),
    }
}

#[test]
fn the_gradient_is_the_difference_of_the_loss() {
    let mut engine = engine(Precision::F64, 2);
    let shape = Shape::new(2, 8, 9);
    let mut net = Net::new(shape, 4).unwrap();
    // Biases that are not zero, so that no decision lies on a kink.
    let shift = noise(8, net.parameters().len());
    net.parameters_mut().iter_mut().zip(&shift).for_each(|(p, s)| *p += 0.05 * s);
    let x: Vec<Tensor> = (0..3).map(|i| Tensor::f64(shape.dims(), noise(20 + i, shape.len())).unwrap()).collect();
    let (classes, weights) = ([1, 0, 1], [0.5, 2.0, 0.25]);
    let (loss, gradient) = net.loss(&mut engine, &x, &classes, &weights).unwrap();
    let logs = net.log_probabilities(&mut engine, &x).unwrap();
    let want: f64 = logs.iter().zip(&classes).zip(&weights).map(|((log, &c), w)| -w * log[c]).sum();
    assert!((loss - want).abs() <= 1e-14 * want, "{loss} {want}");
    let size = gradient.iter().fold(0.0f64, |m, g| m.max(g.abs()));
    for (i, &g) in gradient.iter().enumerate().step_by(7) {
        let mut at = |h: f64| {
            let mut moved = net.clone();
            moved.parameters_mut()[i] += h;
            moved.loss(&mut engine, &x, &classes, &weights).unwrap().0
        };
        let difference = (at(1e-6) - at(-1e-6)) / 2e-6;
        let within = (g - difference).abs() <= 1e-7 * size;
        assert!(within, "parameter {i}: {g} for {difference}");
    }
    assert!(net.loss(&mut engine, &x, &classes[..2], &weights).is_err());
    assert!(Net::new(Shape::new(1, 3, 9), 0).is_err());
}

#[test]
fn a_toy_problem_is_learnt() {
    let found = trained(2, None, 0);
    assert!(found.epochs[found.best].validation_auc > 0.95, "{:?}", found.epochs);
    let (first, best) = (found.epochs[0].loss, found.epochs[found.best].loss);
    assert!(best < first / 2.0, "{first} {best}");
    let detector = Detector::new(found, provenance());
    let fresh = toy(100, 3);
    let stacks: Vec<Tensor> = fresh.iter().map(|e| e.maps.clone()).collect();
    let verdicts = detector.scores(&mut engine(Precision::F32, 1), &stacks).unwrap();
    let right = verdicts.iter().zip(&fresh).filter(|(v, e)| (v.probability > 0.5) == e.attacked).count();
    assert!(right >= 85, "{right} of 100");
    let case = |(group, (v, e)): (usize, (&DetectorVerdict, &Example))| ScoredCase {
        group,
        positive: e.attacked,
        score: v.log_odds,
    };
    let area = auc(&verdicts.iter().zip(&fresh).enumerate().map(case).collect::<Vec<_>>()).unwrap().unwrap();
    assert!(area > 0.95, "{area}");
    for v in &verdicts {
        let odds = (v.probability / (1.0 - v.probability)).ln();
        let within = !odds.is_finite() || (odds - v.log_odds).abs() < 1e-6 * odds.abs().max(1.0);
        assert!(within, "{v:?}");
    }
}

#[test]
fn training_does_not_depend_on_threads_or_memory() {
    let one = trained(1, None, 7);
    for other in [trained(2, None, 7), trained(3, Some(2 << 20), 7)] {
        assert_eq!(one.net, other.net);
        assert_eq!(one.epochs, other.epochs);
        assert_eq!((one.best, &one.scaling), (other.best, &other.scaling));
    }
    assert_ne!(one.net, trained(2, None, 8).net);
}

#[test]
fn the_best_epoch_is_kept_and_patience_ends_it() {
    let mut engine = engine(Precision::F32, 2);
    let settings = Training { epochs: 40, batch: 16, lr: 3e-3, patience: 2, seed: 0 };
    let validation = toy(60, 2);
    let found = train(&mut engine, &toy(120, 1), &validation, &settings).unwrap();
    assert!(found.epochs.len() == 40 || found.epochs.len() == found.best + 3, "{} {}", found.epochs.len(), found.best);
    let better = |a: usize, b: usize| {
        let key = |i: usize| (found.epochs[i].validation_auc, -found.epochs[i].validation_loss);
        key(a) >= key(b)
    };
    assert!((0..found.epochs.len()).all(|i| better(found.best, i)));
    let scaled: Vec<Tensor> = validation.iter().map(|e| found.scaling.apply(&e.maps).unwrap()).collect();
    let logs = found.net.log_probabilities(&mut engine, &scaled).unwrap();
    let loss: f64 = logs.iter().zip(&validation).map(|(log, e)| -log[usize::from(e.attacked) * ATTACKED]).sum();
    let want = found.epochs[found.best].validation_loss;
    assert!((loss / 60.0 - want).abs() < 1e-12, "{} {want}", loss / 60.0);
}

#[test]
fn what_cannot_be_learnt_is_refused() {
    let mut engine = engine(Precision::F32, 1);
    let settings = Training { epochs: 1, ..Training::default() };
    let all = toy(8, 1);
    let clean: Vec<Example> = all.iter().filter(|e| !e.attacked).cloned().collect();
    let kind = |r: verilume::Result<Trained>| r.unwrap_err().kind();
    assert_eq!(kind(train(&mut engine, &clean, &all, &settings)), ErrorKind::Input);
    assert_eq!(kind(train(&mut engine, &all, &clean, &settings)), ErrorKind::Input);
    assert_eq!(kind(train(&mut engine, &[], &all, &settings)), ErrorKind::Input);
    let mut odd = all.clone();
    odd[3].maps = Tensor::f32([2, 12, 11], vec![0.0; 264]).unwrap();
    assert_eq!(kind(train(&mut engine, &all, &odd, &settings)), ErrorKind::Input);
    for wrong in [
        Training { epochs: 0, ..settings },
        Training { batch: 0, ..settings },
        Training { patience: 0, ..settings },
        Training { lr: f64::NAN, ..settings },
    ] {
        assert_eq!(kind(train(&mut engine, &all, &all, &wrong)), ErrorKind::Settings);
    }
    // Maps that never vary are no reason to divide by zero.
    let flat = |e: &Example| Example { maps: e.maps.clone().map(|_| 0.25), ..e.clone() };
    let flat: Vec<Example> = all.iter().map(flat).collect();
    let found = train(&mut engine, &flat, &flat, &settings).unwrap();
    assert_eq!((found.scaling.std, found.epochs[0].validation_auc), (vec![1.0, 1.0], 0.5));
}

#[test]
fn a_file_holds_the_whole_detector() {
    let mut engine = engine(Precision::F32, 2);
    let detector = Detector::new(trained(2, None, 0), provenance());
    let bytes = detector.to_bytes().unwrap();
    let again = Detector::from_bytes(&bytes).unwrap();
    assert_eq!(again, detector);
    assert_eq!(again.maps(), Shape::new(2, 12, 12));
    let stacks: Vec<Tensor> = toy(9, 4).into_iter().map(|e| e.maps).collect();
    assert_eq!(again.scores(&mut engine, &stacks).unwrap(), detector.scores(&mut engine, &stacks).unwrap());
    let other = Tensor::f32([3, 12, 12], vec![0.0; 432]).unwrap();
    assert_eq!(again.scores(&mut engine, &[other]).unwrap_err().kind(), ErrorKind::Input);

    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &bytes).unwrap();
    assert_eq!(Detector::open(file.path()).unwrap(), detector);
    // Every kind of damage is an error.
    for cut in [0, 7, 100, bytes.len() - 1] {
        assert_eq!(Detector::from_bytes(&bytes[..cut]).unwrap_err().kind(), ErrorKind::Model);
    }
    let mut nan = bytes.clone();
    let end = nan.len();
    nan[end - 8..].copy_from_slice(&f64::NAN.to_le_bytes());
    assert!(Detector::from_bytes(&nan).is_err());
    let replaced = |from: &str, to: &str| {
        assert_eq!(from.len(), to.len());
        let at = bytes.windows(from.len()).position(|w| w == from.as_bytes()).unwrap();
        let mut changed = bytes.clone();
        changed[at..at + from.len()].copy_from_slice(to.as_bytes());
        Detector::from_bytes(&changed)
    };
    assert!(replaced("verilume.detector", "verilume.patterns").is_err());
    assert!(replaced("conv2.weight", "conv3.weight").is_err());
    assert!(replaced("[2,12,12]", "[2,12,99]").is_err());
    assert!(Detector::open(Path::new("no such file")).is_err());
}

#[test]
fn another_net_or_preparation_is_refused() {
    let detector = Detector::new(trained(1, None, 0), provenance());
    let own = "ab".repeat(32);
    detector.check(&own, &preprocess()).unwrap();
    let error = detector.check(&"cd".repeat(32), &preprocess()).unwrap_err();
    assert!(error.kind() == ErrorKind::Settings && error.to_string().contains("another net"), "{error}");
    let other = Preprocess { mean: vec![0.4; 3], ..preprocess() };
    assert!(detector.check(&own, &other).unwrap_err().to_string().contains("prepared in another way"));
}

fn features(spec: &str, net: &Golden, side: usize) -> Features {
    let load = |_: &Path| Err(verilume::Error::input("nothing to load"));
    let context = Context { seed: 0, score: Score::Logit, preprocess: &net.preprocess, load: &load };
    Features::new(&Spec::parse(spec).unwrap(), &context, side).unwrap()
}

#[test]
fn features_are_stacks_of_one_size() {
    let net = Golden::small("resnet_basic");
    let mut engine = engine(Precision::F64, 2);
    for (spec, maps) in
        [("haf:iterations=2", net.graph.stages().len()), ("gradient", 1), ("grad_cam", 1), ("smoothgrad:n=2", 1)]
    {
        let found = features(spec, &net, 8).of(&mut engine, &net.graph, &net.x, &net.targets).unwrap();
        assert_eq!(found.len(), net.x.len());
        assert!(found.iter().all(|t| t.dims() == [maps, 8, 8]), "{spec}: {:?}", found[0].dims());
    }
    // A map of the size that is wanted is itself.
    let side = net.x.shape().h;
    if side == net.x.shape().w {
        let found = features("gradient", &net, side).of(&mut engine, &net.graph, &net.x, &net.targets).unwrap();
        let maps = net.explain(&mut engine, "gradient", Score::Logit, 0).unwrap();
        let want = verilume::map::channel_max_abs(&maps[0].values).unwrap();
        assert_eq!(found[0].to_f64(), want.to_f64());
    }
}

#[test]
fn examples_do_not_depend_on_how_pictures_are_grouped() {
    let net = Golden::small("vgg");
    let features = features("gradient", &net, 8);
    let made = |text: &str, held_out| SpecimenKind {
        origin: SpecimenOrigin::Made(SpecimenAttack::parse(text, Rounding::None, 3).unwrap()),
        held_out,
    };
    let kinds = [
        made("pgd:epsilon=2,step=0.5,iterations=8", false),
        SpecimenKind { origin: SpecimenOrigin::Given("given".into()), held_out: false },
        made("fgsm:epsilon=1", true),
    ];
    let laboratory =
        |seed| Laboratory { graph: &net.graph, preprocess: &net.preprocess, features: &features, kinds: &kinds, seed };
    // Pictures whose own prediction stays are given as attacked ones.
    let given = net.x.items().to_vec();
    let all = laboratory(3).specimens(&mut engine(Precision::F64, 2), &net.x, Some(&given)).unwrap();
    let mut flipped = 0;
    for (i, specimen) in all.iter().enumerate() {
        let one = Batch::of(vec![net.x.items()[i].clone()]).unwrap();
        let alone = laboratory(3).specimens(&mut engine(Precision::F64, 1), &one, Some(&given[i..=i])).unwrap();
        assert_eq!((specimen.key, specimen.part), (alone[0].key, alone[0].part));
        assert_eq!(
            (&specimen.clean, &specimen.attacked, &specimen.tried),
            (&alone[0].clean, &alone[0].attacked, &alone[0].tried)
        );
        assert_eq!(specimen.part, part(specimen.key, 3));
        assert_eq!(specimen.tried, [true, true, specimen.part == SplitPart::Test]);
        assert!(specimen.attacked[1].is_none(), "an unchanged picture counts as attacked");
        assert!(specimen.part == SplitPart::Test || specimen.attacked[2].is_none());
        flipped += usize::from(specimen.attacked[0].is_some());
    }
    assert!(flipped > 0, "the attack is too weak for this test");
    let mut engine = engine(Precision::F64, 1);
    let without = laboratory(3).specimens(&mut engine, &net.x, None).unwrap();
    assert!(without.iter().all(|s| !s.tried[1]));
    assert!(laboratory(3).specimens(&mut engine, &net.x, Some(&given[1..])).is_err());
}

#[test]
fn the_test_part_alone_is_measured() {
    let mut engine = engine(Precision::F32, 2);
    let detector = Detector::new(trained(2, None, 0), provenance());
    let specimens = |part: SplitPart, salt: u64| -> Vec<_> {
        let examples = toy(40, salt);
        let pair = |(i, pair): (usize, &[Example])| verilume::reliability::detector::Specimen {
            key: salt * 100 + i as u64,
            part,
            predicted: 0,
            clean: pair[0].maps.clone(),
            attacked: vec![Some(pair[1].maps.clone()), None],
            tried: vec![true, true],
        };
        examples.chunks(2).enumerate().map(pair).collect()
    };
    let bootstrap = Bootstrap { resamples: 200, level: 0.9, seed: 1 };
    let tested = specimens(SplitPart::Test, 7);
    let alone = detector.test(&mut engine, &tested, 0, &bootstrap).unwrap().unwrap();
    assert!(alone.low <= alone.auc && alone.auc <= alone.high && alone.auc > 0.9, "{alone:?}");
    let more = [specimens(SplitPart::Training, 8), tested.clone(), specimens(SplitPart::Validation, 9)].concat();
    assert_eq!(detector.test(&mut engine, &more, 0, &bootstrap).unwrap(), Some(alone));
    assert_eq!(detector.test(&mut engine, &tested, 1, &bootstrap).unwrap(), None);
    assert_eq!(detector.test(&mut engine, &[], 0, &bootstrap).unwrap(), None);
}

#[cfg(all(feature = "cli", feature = "embedded-model", feature = "png"))]
mod commands {
    use std::path::Path;
    use std::process::{Command, Output, Stdio};

    use serde_json::Value;

    fn run(folder: &Path, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_verilume"));
        let output = command.current_dir(folder).args(arguments).stdin(Stdio::null()).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(!stderr.contains("panicked"), "{stderr}");
        output
    }

    fn code(output: &Output) -> i32 {
        output.status.code().unwrap()
    }

    fn said(output: &Output) -> String {
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    fn picture(path: &Path, seed: u32) {
        let level =
            |x: u32, y: u32, c: u32| (x * (7 + seed) + y * (13 + seed / 3) + c * 85 + (x * y + seed) % 31) as u8;
        image::RgbImage::from_fn(32, 32, |x, y| image::Rgb([0, 1, 2].map(|c| level(x, y, c)))).save(path).unwrap();
    }

    #[test]
    fn a_detector_is_trained_and_applied() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        std::fs::create_dir_all(&data).unwrap();
        (0..24).for_each(|i| picture(&data.join(format!("{i:02}.png")), i));
        std::fs::write(data.join("broken.png"), b"no picture").unwrap();
        let train = [
            "detector",
            "train",
            "--data",
            "data",
            "--size",
            "32",
            "-m",
            "gradient",
            "--attack",
            "pgd:epsilon=16/255,step=4/255,iterations=4",
            "--holdout-attack",
            "fgsm:epsilon=16/255",
            "--epochs",
            "2",
            "--json",
            "-q",
        ];
        let output = run(folder.path(), &train);
        // One picture is broken.
        assert_eq!(code(&output), 1, "{}", said(&output));
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        let parts = ["training", "validation", "test"].map(|p| report["pictures"][p].as_u64().unwrap());
        assert_eq!(parts.iter().sum::<u64>(), 24);
        assert_eq!(report["failed"], 1);
        let attacks = report["attacks"].as_array().unwrap();
        assert_eq!((attacks[0]["tried"].as_u64(), attacks[1]["tried"].as_u64()), (Some(24), Some(parts[2])));
        assert!(attacks[0]["flipped"].as_u64().unwrap() > 10, "{report}");
        assert_eq!((attacks[0]["held_out"].as_bool(), attacks[1]["held_out"].as_bool()), (Some(false), Some(true)));
        let first = std::fs::read(folder.path().join("detector.safetensors")).unwrap();
        // Again, with other threads: the same file.
        std::fs::remove_file(data.join("broken.png")).unwrap();
        let again = run(folder.path(), &[&train[..], &["--threads", "1", "-o", "b/again.safetensors"]].concat());
        assert_eq!(code(&again), 0, "{}", said(&again));
        assert_eq!(std::fs::read(folder.path().join("b/again.safetensors")).unwrap(), first);

        let apply = ["detector", "apply", "--detector", "detector.safetensors", "--size", "32"];
        let output = run(folder.path(), &[&apply[..], &["data", "--json"]].concat());
        assert_eq!(code(&output), 0, "{}", said(&output));
        let lines: Vec<Value> = output
            .stdout
            .split(|&b| b == b'\n')
            .filter(|l| !l.is_empty())
            .map(|l| serde_json::from_slice(l).unwrap())
            .collect();
        assert_eq!(lines.len(), 24);
        for line in &lines {
            let p = line["probability"].as_f64().unwrap();
            assert!((0.0..=1.0).contains(&p) && line["error"].is_null(), "{line}");
            assert_eq!(line["attacked"].as_bool(), Some(p >= 0.5));
            assert!(line["prediction_label"].is_string());
        }
        // A bad input is a record among the others.
        std::fs::write(data.join("05b.png"), b"no picture").unwrap();
        let output = run(folder.path(), &[&apply[..], &["data"]].concat());
        assert_eq!(code(&output), 1, "{}", said(&output));
        let text = String::from_utf8_lossy(&output.stdout);
        assert_eq!(text.lines().count(), 26, "{text}");
        assert!(text.lines().nth(7).unwrap().starts_with("failed"), "{text}");
        let output = run(folder.path(), &[&apply[..], &["data/05b.png", "--json"]].concat());
        assert_eq!(code(&output), 2);
        let record: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert!(record["error"].is_string() && record["probability"].is_null());

        // What does not suit is refused.
        for (arguments, why) in [
            (vec!["data", "--size", "48"], "prepared in another way"),
            (vec!["data", "--threshold", "2"], "between 0 and 1"),
            (vec!["data", "--detector", "data/00.png"], "not a file of a detector"),
            (vec!["data", "--detector", "none"], "none"),
        ] {
            let base: &[&str] =
                if arguments.contains(&"--detector") { &["detector", "apply", "--size", "32"] } else { &apply[..4] };
            let size: &[&str] = if arguments.contains(&"--size") || arguments.contains(&"--detector") {
                &[]
            } else {
                &["--size", "32"]
            };
            let output = run(folder.path(), &[base, size, &arguments].concat());
            assert_eq!(code(&output), 2, "{arguments:?}: {}", said(&output));
            assert!(said(&output).contains(why), "{arguments:?}: {}", said(&output));
        }
        let net = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/small/vgg.weights.safetensors");
        let other = ["data", "--model", net.to_str().unwrap()];
        let output =
            run(folder.path(), &[&["detector", "apply", "--detector", "detector.safetensors"][..], &other].concat());
        assert_eq!(code(&output), 2);
        assert!(said(&output).contains("another net"), "{}", said(&output));
    }

    #[test]
    fn wrong_usage_is_said() {
        let folder = tempfile::tempdir().unwrap();
        picture(&folder.path().join("a.png"), 1);
        let train = ["detector", "train", "--data", "a.png", "--size", "32", "-m", "gradient"];
        for (arguments, why) in [
            (vec![], "--attack or --attacked"),
            (vec!["--attack", "fgms"], "did you mean fgsm"),
            (vec!["--attack", "top_k"], "leaves the prediction as it is"),
            (vec!["--attack", "fgsm:epsilon=0"], "above 0"),
            (vec!["--attack", "fgsm", "--lr", "0"], "above 0"),
            (vec!["--attack", "fgsm", "-m", "gradeint"], "gradient"),
            (vec!["--attack", "fgsm:epsilon=16/255"], "learns from both kinds"),
            (vec!["--attacked", "a.png", "--attacked", "b.png"], "more pictures than --data"),
            (vec!["--attack", "fgsm", "--epochs", "0"], "at least 1"),
        ] {
            let method: &[&str] = if arguments.contains(&"-m") { &train[..6] } else { &train };
            let output = run(folder.path(), &[method, &arguments].concat());
            assert_eq!(code(&output), 2, "{arguments:?}: {}", said(&output));
            assert!(said(&output).contains(why), "{arguments:?}: {}", said(&output));
        }
        assert!(!folder.path().join("detector.safetensors").exists());
        let output = run(folder.path(), &["detector", "train", "--data", "none.png", "--attack", "fgsm"]);
        assert_eq!(code(&output), 2);
        assert!(said(&output).contains("no picture that can be used"), "{}", said(&output));
    }
}
