//! Which files are inputs, which classes their names say, and what their results are called.
#![cfg(all(feature = "cli", unix))]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// Crop of the pictures: small, so that the embedded net takes milliseconds.
const SIZE: [&str; 2] = ["--size", "32"];

fn run(folder: &Path, arguments: &[&str], input: &[u8]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_verilume"))
        .current_dir(folder)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A program that refuses its arguments reads nothing.
    let _ = child.stdin.take().unwrap().write_all(input);
    let output = child.wait_with_output().unwrap();
    assert!(!said(&output).contains("panicked"), "{}", said(&output));
    output
}

/// `explain`, with a list on standard input.
fn explain_list(folder: &Path, arguments: &[&str], list: &[u8]) -> Output {
    run(folder, &[&["explain", "--json", "-m", "gradient"], &SIZE[..], arguments].concat(), list)
}

fn explain(folder: &Path, arguments: &[&str]) -> Output {
    explain_list(folder, arguments, b"")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn lines(text: &[u8]) -> Vec<Value> {
    text.split(|&b| b == b'\n').filter(|l| !l.is_empty()).map(|l| serde_json::from_slice(l).unwrap()).collect()
}

/// The inputs of a run in order, those that failed with `!` before them.
fn inputs(output: &Output) -> Vec<String> {
    let name = |r: &Value| format!("{}{}", if r["error"].is_null() { "" } else { "!" }, r["input"].as_str().unwrap());
    lines(&output.stdout).iter().map(name).collect()
}

fn files(output: &Output) -> Vec<String> {
    let files = lines(&output.stdout).into_iter().flat_map(|r| r["files"].as_array().unwrap().clone());
    files.map(|file| file.as_str().unwrap().to_owned()).collect()
}

/// A picture unlike any other.
fn picture(folder: &Path, name: &str) {
    let path = folder.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let seed = name.bytes().map(u32::from).sum::<u32>();
    let level = |x: u32, y: u32, c: u32| (x * (7 + seed % 13) + y * 13 + c * 85 + (x * y + seed) % 31) as u8;
    let picture = image::RgbImage::from_fn(40, 40, |x, y| image::Rgb([0, 1, 2].map(|c| level(x, y, c))));
    let format = image::ImageFormat::from_path(&path).unwrap();
    let mut bytes = std::io::Cursor::new(Vec::new());
    picture.write_to(&mut bytes, format).unwrap();
    std::fs::write(path, bytes.into_inner()).unwrap();
}

/// A folder with pictures.
fn pictures(names: &[&str]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    names.iter().for_each(|name| picture(folder.path(), name));
    folder
}

fn utf16(text: &str, unit: fn(u16) -> [u8; 2]) -> Vec<u8> {
    text.encode_utf16().flat_map(unit).collect()
}

/// `text` in each encoding that is read.
fn encodings(text: &str) -> [Vec<u8>; 6] {
    let marked = format!("\u{feff}{text}");
    let [little, big] = [u16::to_le_bytes, u16::to_be_bytes];
    [
        text.into(),
        marked.clone().into(),
        utf16(text, little),
        utf16(text, big),
        utf16(&marked, little),
        utf16(&marked, big),
    ]
}

#[test]
fn lists_are_read_in_every_encoding() {
    let folder = pictures(&["x.png", "third.png", "private/é 漢.png"]);
    for text in ["x.png\r\n", "x.png", "x.png\nprivate/é 漢.png\r\n"] {
        let want: Vec<&str> = text.lines().collect();
        for list in encodings(text) {
            let output = explain_list(folder.path(), &["-"], &list);
            assert_eq!((output.status.code(), inputs(&output)), (Some(0), want.iter().map(|&w| w.into()).collect()));
        }
    }
    for list in [&b"./x.png\0third.png\0"[..], b"x.png\0./third.png"] {
        assert_eq!(inputs(&explain_list(folder.path(), &["-"], list)).len(), 2);
    }
    // Paths of one letter that exist are paths.
    for name in ["1", "2"] {
        picture(folder.path(), &format!("{name}/x.png"));
    }
    assert_eq!(inputs(&explain_list(folder.path(), &["-"], b"1\x002\0")), ["1/x.png", "2/x.png"]);
}

#[test]
fn a_list_is_never_split_into_letters() {
    let folder = pictures(&["x.png", "third.png"]);
    let utf32: Vec<u8> = "x.png\n".chars().flat_map(|c| u32::from(c).to_le_bytes()).collect();
    let cut = &utf16("\u{feff}x.png\r\n", u16::to_le_bytes)[..9];
    let mixed = [b"third.png\n".as_slice(), &utf16("x.png\n", u16::to_le_bytes), b"!"].concat();
    for list in [&utf32, cut, &mixed, &std::fs::read(folder.path().join("x.png")).unwrap()] {
        let output = explain_list(folder.path(), &["-"], list);
        assert_eq!((output.status.code(), inputs(&output)), (Some(2), vec!["!-".to_string()]), "{list:?}");
        let why = lines(&output.stdout)[0]["error"].as_str().unwrap().to_owned();
        assert!(why.starts_with("standard input: "), "{why}");
    }
}

#[test]
fn all_text_files_are_read_in_every_encoding() {
    let folder = pictures(&["é.png"]);
    let write = |bytes: &[u8]| std::fs::write(folder.path().join("text"), bytes).unwrap();
    let labels = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("weights/imagenet-labels.txt"));
    let labels = labels.unwrap().replace("tiger cat", "Tigerkätzchen");
    for text in encodings(&labels) {
        write(&text);
        let output = explain(folder.path(), &["é.png", "--labels", "text", "-t", "Tigerkätzchen"]);
        assert_eq!(lines(&output.stdout)[0]["target"], 282, "{}", said(&output));
    }
    for text in encodings("file,class\né.png,282\n") {
        write(&text);
        let output = explain(folder.path(), &["é.png", "-t", "file:text"]);
        assert_eq!(lines(&output.stdout)[0]["target"], 282, "{}", said(&output));
        let output = eval(folder.path(), &["é.png", "--labels-csv", "text"]);
        assert_eq!(output.values().collect::<Vec<_>>(), [&Value::from(282)]);
    }
    for text in encodings("é.png,282,0,0,40,40\r\n") {
        write(&text);
        let arguments = ["--data", "é.png", "--boxes", "text", "--unlabelled", "--target", "predicted"];
        let output = run(folder.path(), &[&EVAL[..], &SIZE[..], &arguments[..]].concat(), b"");
        assert!(!said(&output).contains("not among the data"), "{}", said(&output));
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    }
    for (arguments, name) in [(["--labels", "text"], "labels"), (["-t", "file:text"], "table")] {
        write(b"a\nb\0c\n");
        let output = explain(folder.path(), &[&["é.png"], &arguments[..]].concat());
        assert!(output.status.code() == Some(2) && said(&output).contains("text: line 2"), "{name}: {}", said(&output));
    }
}

const EVAL: [&str; 5] = ["eval", "--metric", "sparseness", "-m", "gradient"];

/// The class that `eval` takes each picture for; an error where it has none.
fn eval(folder: &Path, data: &[&str]) -> BTreeMap<String, Value> {
    let output = run(folder, &[&EVAL[..], &SIZE[..], &["--data"], data].concat(), b"");
    let path = folder.join("verilume-eval/eval.jsonl");
    let records = lines(&std::fs::read(&path).unwrap_or_else(|_| panic!("{}", said(&output))));
    std::fs::remove_dir_all(path.parent().unwrap()).unwrap();
    let class = |r: &Value| if r["label"].is_null() { r["error"].clone() } else { r["label"].clone() };
    records.iter().map(|r| (r["input"].as_str().unwrap().to_owned(), class(r))).collect()
}

#[test]
fn shards_are_dealt_however_files_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let names: Vec<String> = (1..=12).map(|i| format!("in/p{i}/img.png")).collect();
    names.iter().for_each(|name| picture(folder.path(), name));
    let inside = folder.path().join("in");
    let list = |before: &str, end: &str| -> String {
        names.iter().map(|name| format!("{before}{}{end}", name.strip_prefix("in/").unwrap())).collect()
    };
    let whole = inside.display().to_string();
    let one_by_one: Vec<String> = list("", "\n").lines().map(str::to_owned).collect();
    let ways: [(&Path, Vec<&str>, String); 6] = [
        (&inside, vec!["."], String::new()),
        (&inside, vec!["-"], list("./", "\0")),
        (&inside, one_by_one.iter().map(String::as_str).collect(), String::new()),
        (&inside, vec!["p*/*.png"], String::new()),
        (folder.path(), vec![&whole], String::new()),
        (folder.path(), vec!["-"], list("in/", "\n")),
    ];
    let mut dealt = BTreeSet::new();
    for (i, (place, names, list)) in ways.iter().enumerate() {
        let mut parts = Vec::new();
        for part in 1..=4 {
            let (shard, out) = (format!("{part}/4"), format!("{}/out{i}{part}", folder.path().display()));
            let arguments = [&names[..], &["--shard", &shard, "-o", &out]].concat();
            let output = explain_list(place, &arguments, list.as_bytes());
            let end = |name: String| name.trim_start_matches("./").rsplit('/').take(2).last().unwrap().to_owned();
            parts.push(inputs(&output).into_iter().map(end).collect::<BTreeSet<_>>());
            // The folder tells the results apart.
            for file in files(&output) {
                let name = file.strip_prefix(&format!("{out}/p")).unwrap().to_owned();
                assert!(name.ends_with("/img.gradient.png"), "{file}");
            }
        }
        assert_eq!(parts.iter().map(BTreeSet::len).sum::<usize>(), 12, "{names:?}");
        assert!(parts.iter().all(|part| part.len() < 9), "{parts:?}");
        dealt.insert(parts);
    }
    assert_eq!(dealt.len(), 1, "{dealt:?}");
    // A file alone belongs to the same part.
    let [first, ..] = dealt.first().unwrap().as_slice() else { panic!("no shards") };
    let file = format!("{}/img.png", first.first().unwrap());
    assert_eq!(inputs(&explain(&inside, &[&file, "--shard", "1/4"])), [file]);
}

#[test]
fn results_are_no_inputs_of_later_runs() {
    let folder = pictures(&["a.png"]);
    for (out, method) in [("verilume-out", "grad_cam"), ("second", "eigen_cam"), ("third", "layer_cam")] {
        let output = run(folder.path(), &["explain", ".", "--json", "-m", method, "--size", "32", "-o", out], b"");
        assert_eq!(inputs(&output), ["./a.png"]);
    }
    let output = explain(folder.path(), &[".", "-o", "fourth"]);
    assert!(said(&output).contains("3 folders with results of this program are left out"), "{}", said(&output));
    // However the files are named, unless a result is named itself.
    let all = "a.png\nsecond/a.eigen_cam.png\n./third/a.layer_cam.png\n";
    let output = explain_list(folder.path(), &["-"], all.as_bytes());
    assert_eq!(inputs(&output), ["a.png"]);
    assert!(said(&output).contains("2 results of earlier runs are left out"), "{}", said(&output));
    assert_eq!(inputs(&explain(folder.path(), &["**/*.png", "-o", "fourth"])), ["a.png"]);
    assert_eq!(inputs(&explain(folder.path(), &["*/*.png", "-o", "fourth"])), ["!*/*.png"]);
    let output = explain(folder.path(), &["second/a.eigen_cam.png", "-o", "fourth"]);
    assert_eq!(inputs(&output), ["second/a.eigen_cam.png"]);
    assert!(said(&output).contains("1 of the inputs is a result"), "{}", said(&output));
    let output = explain(folder.path(), &["second", "-o", "fourth"]);
    assert_eq!(inputs(&output), ["!second"]);
    assert!(lines(&output.stdout)[0]["error"].as_str().unwrap().contains("1 result of earlier runs"));

    // In every command.
    assert_eq!(eval(folder.path(), &[".", "--unlabelled"]).len(), 1);
    let output =
        run(folder.path(), &[&["check", ".", "-m", "gradient", "--tests", "wrong_class"], &SIZE[..]].concat(), b"");
    assert!(said(&output).contains("left out") && said(&output).contains("[1/1]"), "{}", said(&output));
    let output = run(folder.path(), &[&["attack", ".", "--json", "-a", "fgsm", "-o", "adv"], &SIZE[..]].concat(), b"");
    assert_eq!(inputs(&output), ["./a.png"]);
    assert_eq!(inputs(&explain(folder.path(), &[".", "-o", "fourth"])), ["./a.png"]);
    // Attacked pictures are there to be explained.
    assert_eq!(inputs(&explain(folder.path(), &["adv", "-o", "fourth"])), ["adv/a.fgsm.png"]);
}

#[test]
fn one_folder_can_hold_inputs_and_results() {
    let folder = pictures(&["a.png", "sub/b.png"]);
    let all = ["./a.png", "./sub/b.png"];
    for method in ["grad_cam", "eigen_cam", "layer_cam", "grad_cam"] {
        for format in ["overlay", "heatmap,grid,overlay"] {
            let arguments = ["explain", ".", "--json", "-m", method, "--size", "32", "-o", ".", "--format", format];
            assert_eq!(inputs(&run(folder.path(), &arguments, b"")), all);
        }
    }
    // What a killed run left, before there were records of it, and records of another working folder.
    std::fs::write(folder.path().join("records.jsonl"), "").unwrap();
    std::fs::remove_file(folder.path().join("manifest.json")).unwrap();
    assert_eq!(inputs(&explain(folder.path(), &[".", "-o", "elsewhere"])), all);
    let name = folder.path().file_name().unwrap().to_str().unwrap();
    assert_eq!(inputs(&explain(folder.path().parent().unwrap(), &[name, "-o", &format!("{name}/more")])).len(), 2);
    std::fs::remove_file(folder.path().join(".results.jsonl")).unwrap();
    assert!(inputs(&explain(folder.path(), &[".", "-o", "elsewhere"])).len() > 2);
    // An input with the name of a result stays one.
    let folder = pictures(&["x.png", "x.gradient.png"]);
    for _ in 0..3 {
        let both = inputs(&explain(folder.path(), &[".", "-o", "."]));
        let names: Vec<&str> = both.iter().map(|name| name.trim_start_matches('!')).collect();
        assert_eq!(names, ["./x.gradient.png", "./x.png"]);
    }
}

#[test]
fn a_manifest_of_somebody_else_says_nothing() {
    let folder = pictures(&["page/a.png", "page/b.png"]);
    for (name, text) in [
        ("manifest.json", r#"{"name": "page", "version": "1.0", "icons": ["a.png"]}"#),
        ("records.jsonl", "{\"input\": \"a.png\", \"files\": [\"page/a.png\"]}\n"),
        ("summary.json", "not even JSON"),
    ] {
        std::fs::write(folder.path().join("page").join(name), text).unwrap();
    }
    let output = explain(folder.path(), &["."]);
    assert_eq!(inputs(&output), ["./page/a.png", "./page/b.png"]);
    assert!(said(&output).contains("3 files that are neither pictures nor arrays are left out: ./page/manifest.json"));
}

#[test]
fn fitted_files_are_no_arrays_of_inputs() {
    let folder = pictures(&["a.png", "b.png"]);
    let fit = ["patterns", "fit", "--data", ".", "--size", "32", "--out", "patterns.safetensors"];
    let output = run(folder.path(), &fit, b"");
    assert!(folder.path().join("patterns.safetensors").is_file(), "{}", said(&output));
    let output = explain(folder.path(), &["."]);
    assert_eq!(inputs(&output), ["./a.png", "./b.png"]);
    assert!(said(&output).contains("1 result of earlier runs is left out"), "{}", said(&output));
}

#[test]
fn each_link_is_an_input() {
    let folder = pictures(&["pool/c1.png", "pool/c2.png", "data/285/copy_b.png"]);
    let inside = |name: &str| folder.path().join(name);
    for class in ["281", "282"] {
        std::fs::create_dir(inside("data").join(class)).unwrap();
        symlink("../../pool/c1.png", inside("data").join(class).join("c1.png")).unwrap();
    }
    symlink("../../pool/c2.png", inside("data/282/c2.png")).unwrap();
    symlink("copy_b.png", inside("data/285/copy_a.png")).unwrap();
    let want = ["281/c1", "282/c1", "282/c2", "285/copy_a", "285/copy_b"].map(|name| format!("data/{name}.png"));
    let output = explain(folder.path(), &["data"]);
    assert_eq!((inputs(&output), files(&output).iter().collect::<BTreeSet<_>>().len()), (want.to_vec(), 5));
    let classes: Vec<Value> = eval(folder.path(), &["data"]).into_values().collect();
    assert_eq!(classes, [281, 282, 282, 285, 285].map(Value::from));

    // A folder that is linked twice has its pictures twice, and a path that is named twice one.
    symlink("../pool", inside("data/1")).unwrap();
    symlink("../pool", inside("data/2")).unwrap();
    let twice = format!("{}/data/1/c1.png", folder.path().display());
    let output = explain(folder.path(), &["data", "./data/1/c2.png", &twice]);
    assert_eq!(inputs(&output).len(), 9);
    assert!(said(&output).contains("2 paths that were named before are taken once"), "{}", said(&output));

    symlink("..", inside("data/285/back")).unwrap();
    symlink("nowhere.png", inside("data/285/lost.png")).unwrap();
    symlink("user@host", inside("data/285/.#lock.png")).unwrap();
    let output = explain(folder.path(), &["data"]);
    assert_eq!((output.status.code(), inputs(&output).len()), (Some(1), 10));
    assert!(said(&output).contains("1 link back to a folder above is left out: data/285/back"), "{}", said(&output));
    let lost = lines(&output.stdout).into_iter().find(|r| r["input"] == "data/285/lost.png").unwrap();
    assert!(lost["error"].as_str().unwrap().contains("leads nowhere (to nowhere.png)"), "{lost}");
    for name in ["data/285/lost.png", "data/285/l*.png"] {
        let output = explain(folder.path(), &[name]);
        assert!(lines(&output.stdout)[0]["error"].as_str().unwrap().contains("leads nowhere"), "{name}");
    }
}

#[test]
fn synsets_decide_the_class() {
    let folder = pictures(&[
        "n02012849_crane.png",
        "n03126707_crane.png",
        "n03710637_maillot_3.png",
        "n03710721_maillot.png",
        "ILSVRC2012_val_00000293_n01440764.png",
        "train/n02123045/n02123045_17.png",
        "train/n02123159_tiger_cat/7.png",
        "train/n00000001/tabby_1.png",
        "n00000002_tabby.png",
    ]);
    let labels = eval(folder.path(), &["."]);
    for (name, class) in [
        ("n02012849_crane", 134),
        ("n03126707_crane", 517),
        ("n03710637_maillot_3", 638),
        ("n03710721_maillot", 639),
        ("ILSVRC2012_val_00000293_n01440764", 0),
        ("train/n02123045/n02123045_17", 281),
        ("train/n02123159_tiger_cat/7", 282),
    ] {
        assert_eq!(labels[&format!("./{name}.png")], class, "{name}");
    }
    for (name, synset) in [("train/n00000001/tabby_1", "n00000001"), ("n00000002_tabby", "n00000002")] {
        let why = labels[&format!("./{name}.png")].as_str().unwrap();
        assert!(why.contains(&format!("the synset {synset} is not one of ImageNet's 1000")), "{why}");
    }
    let output = explain(folder.path(), &["n02012849_crane.png", "-t", "n03710721"]);
    assert_eq!(lines(&output.stdout)[0]["target"], 639);
    // Labels of one's own say themselves what they mean.
    let own: String = (0..1000).map(|i| if i == 7 { "n02012849\n".into() } else { format!("name {i}\n") }).collect();
    std::fs::write(folder.path().join("own.txt"), own).unwrap();
    let labels = eval(folder.path(), &["n02012849_crane.png", "--labels", "own.txt"]);
    assert!(labels["n02012849_crane.png"].is_string(), "{labels:?}");
    std::fs::rename(folder.path().join("n02012849_crane.png"), folder.path().join("n02012849.png")).unwrap();
    let labels = eval(folder.path(), &["n02012849.png", "--labels", "own.txt"]);
    assert_eq!(labels["n02012849.png"], 7);
}

#[test]
fn tables_name_files_as_people_do() {
    let folder = pictures(&["lab/a.png", "lab/e\u{301}.png", "lab/sub/c.png"]);
    let table = |text: &str| std::fs::write(folder.path().join("t.csv"), text).unwrap();
    let whole = folder.path().join("lab/sub/c.png").display().to_string();
    table(&format!("file,label\nlab/a.png,281\nlab\\\u{e9}.png,3\n{whole},tench\n"));
    let list = "./lab/a.png\nlab/e\u{301}.png\nlab/./sub/c.png\n";
    let output = explain_list(folder.path(), &["-", "-t", "file:t.csv"], list.as_bytes());
    let targets: Vec<Value> = lines(&output.stdout).iter().map(|r| r["target"].clone()).collect();
    assert_eq!(targets, [281, 3, 0].map(Value::from), "{}", said(&output));
    let labels = eval(folder.path(), &["./lab", "--labels-csv", "t.csv"]);
    assert_eq!(labels.values().collect::<Vec<_>>(), [&Value::from(281), &3.into(), &0.into()]);

    table("a.png,281\n\nsub/c.png,5\n./a.png,282\n");
    let output = explain(folder.path(), &["lab", "-t", "file:t.csv"]);
    assert_eq!(output.status.code(), Some(2));
    let why = "./a.png has class 281 in line 1 and class 282 in line 4";
    assert!(said(&output).contains(why), "{}", said(&output));
    let labels = eval(folder.path(), &["lab", "--labels-csv", "t.csv"]);
    assert!(labels["lab/a.png"].as_str().unwrap().contains(why), "{labels:?}");
    assert_eq!(labels["lab/sub/c.png"], 5);
    table("a.png,281\na.png,tabby\n");
    assert_eq!(lines(&explain(folder.path(), &["lab/a.png", "-t", "file:t.csv"]).stdout)[0]["target"], 281);

    table("./lab/a.png,281,0,0,40,40\nlab/\u{e9}.png,3,0,0,40,40\nlab/other.png,3,0,0,40,40\n");
    let arguments = ["--data", "lab", "--boxes", "t.csv", "--unlabelled", "--target", "predicted"];
    let output = run(folder.path(), &[&EVAL[..], &SIZE[..], &arguments[..]].concat(), b"");
    assert!(said(&output).contains("1 file not among the data"), "{}", said(&output));
}

#[test]
fn long_names_have_results() {
    let folder = tempfile::tempdir().unwrap();
    let names =
        [format!("{}.png", "a".repeat(251)), format!("{}b.png", "a".repeat(250)), format!("{}.png", "漢".repeat(83))];
    names.iter().for_each(|name| picture(folder.path(), name));
    let formats =
        ["--format", "overlay,heatmap,npy,safetensors,grid", "-t", "top:2", "-m", "integrated_gradients:steps=2"];
    let output = explain(folder.path(), &[&["."], &formats[..]].concat());
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let all = files(&output);
    let different: BTreeSet<&String> = all.iter().collect();
    // Two maps of two methods in four formats, and a sheet, of three pictures.
    assert_eq!(different.len(), 3 * (2 * 2 * 4 + 1));
    assert!(different.iter().all(|file| folder.path().join(file).is_file()));
    let again = explain(folder.path(), &[&[".", "--resume"], &formats[..]].concat());
    assert_eq!((again.status.code(), inputs(&again).len()), (Some(0), 0));
    let output = explain(folder.path(), &[".", "-o", "."]);
    assert_eq!(inputs(&output).len(), 3, "{}", said(&output));
    assert_eq!(inputs(&explain(folder.path(), &[".", "-o", "."])).len(), 3);
    let output = run(folder.path(), &[&["attack", ".", "--json", "-a", "fgsm", "-o", "adv"], &SIZE[..]].concat(), b"");
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
}

#[test]
fn pictures_are_known_by_every_extension() {
    let folder = pictures(&["a.png", "b.jpg", "d.tif", "e.bmp"]);
    for (from, to) in [("b.jpg", "b.jfif"), ("a.png", "c.apng"), ("d.tif", "d.TIFF"), ("e.bmp", "e.dib")] {
        std::fs::copy(folder.path().join(from), folder.path().join(to)).unwrap();
    }
    std::fs::write(folder.path().join("._a.png"), b"\0\x05\x16\x07").unwrap();
    std::fs::write(folder.path().join(".DS_Store"), b"\0").unwrap();
    let names = ["a.png", "b.jfif", "b.jpg", "c.apng", "d.TIFF", "d.tif", "e.bmp", "e.dib"];
    let output = explain(folder.path(), &["."]);
    assert_eq!((output.status.code(), inputs(&output)), (Some(0), names.map(|name| format!("./{name}")).to_vec()));
    assert!(said(&output).contains("left out: ./.DS_Store, ./._a.png"), "{}", said(&output));
    assert_eq!(inputs(&explain(folder.path(), &["*.png", "*.jfif"])), ["a.png", "b.jfif"]);
    assert_eq!(inputs(&explain_list(folder.path(), &["-"], b"./._a.png\n./a.png\n")), ["./a.png"]);
    assert_eq!(inputs(&explain(folder.path(), &["._a.png"])), ["!._a.png"]);
}

#[test]
fn brackets_in_names_are_names_where_they_exist() {
    let folder = pictures(&["set [1]/p.png", "set [1]/q [x].png", "set 1/r.png", "deep/set [2]/s.png", "deep/b/s.png"]);
    for (pattern, want) in [
        ("set [1]/*.png", &["set [1]/p.png", "set [1]/q [x].png"][..]),
        ("set [1]/q [x].png", &["set [1]/q [x].png"]),
        ("set [1]/q*", &["set [1]/q [x].png"]),
        ("set [12]/*.png", &["set 1/r.png"]),
        ("*/set [2]/*.png", &["deep/set [2]/s.png"]),
        ("**/set [2]/?.png", &["deep/set [2]/s.png"]),
        ("d*/**/s.png", &["deep/b/s.png", "deep/set [2]/s.png"]),
        ("./set [1]/p.p[mn][g]", &["./set [1]/p.png"]),
        ("set [3]/*.png", &["!set [3]/*.png"]),
        ("set [1]/*.gif", &["!set [1]/*.gif"]),
        ("set [1/*.png", &["!set [1/*.png"]),
    ] {
        let output = explain(folder.path(), &[pattern, "-o", "out"]);
        assert_eq!(inputs(&output), want, "{pattern}");
        assert_eq!(output.status.code(), Some(if want[0].starts_with('!') { 2 } else { 0 }), "{pattern}");
    }
    assert_eq!(files(&explain(folder.path(), &["set [1]/p*.png"])), ["verilume-out/p.gradient.png"]);
}

#[test]
fn a_name_of_several_files_in_a_table_is_an_error_of_each() {
    let folder = pictures(&["in/cat/1.png", "in/dog/1.png", "in/dog/2.png"]);
    let at = |name: &str| folder.path().join(name);
    let classes = |table: &str| {
        std::fs::write(at("classes.csv"), table).unwrap();
        let output = explain(folder.path(), &["in", "--format", "npy", "-t", "file:classes.csv", "-o", "out"]);
        let records = lines(&output.stdout);
        let of = |r: &Value| match r["error"].as_str() {
            Some(why) => why.to_owned(),
            None => r["target"].to_string(),
        };
        records.iter().map(of).collect::<Vec<_>>()
    };
    let found = classes("1.png,281\n2.png,7\n");
    assert!(found[..2].iter().all(|why| why.contains("in/cat/1.png, in/dog/1.png")), "{found:?}");
    assert_eq!(found[2], "7");
    assert_eq!(classes("cat/1.png,281\nin/dog/1.png,6\n2.png,7\n"), ["281", "6", "7"]);
}
