//! Files of pictures and arrays that people have: kinds, orientations, damage, sizes, and what the machine has to give.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use verilume::ErrorKind;
use verilume::image::{DecodeLimits, Picture};

/// Crop of the pictures: small, so that the embedded net takes milliseconds.
const SIZE: &str = "32";

fn case(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases").join(name)
}

fn decode(bytes: &[u8]) -> verilume::Result<Picture> {
    Picture::decode(bytes, &DecodeLimits::default())
}

fn verilume(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_verilume"));
    command.current_dir(folder).args(arguments).stdin(Stdio::null());
    command
}

fn run(folder: &Path, arguments: &[&str]) -> (i32, String, Output) {
    let output = verilume(folder, arguments).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!stderr.contains("panicked"), "{stderr}");
    (output.status.code().unwrap_or(-1), stderr, output)
}

fn records(folder: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(folder.join("out/records.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn drawn(width: usize, height: usize) -> Picture {
    let level = |x: usize, y: usize, c: usize| (x * 7 + y * 13 + c * 85 + (x * y) % 31) as u8;
    let rgb = (0..width * height).flat_map(|i| [0, 1, 2].map(|c| level(i % width, i / width, c))).collect();
    Picture::new(width, height, rgb).unwrap()
}

fn write_npy(path: &Path, descr: &str, shape: &[usize], numbers: &[u8]) {
    let shape: String = shape.iter().map(|n| format!("{n},")).collect();
    let text = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({shape})}}\n");
    let length = (text.len() as u16).to_le_bytes();
    std::fs::write(path, [b"\x93NUMPY\x01\0", length.as_slice(), text.as_bytes(), numbers].concat()).unwrap();
}

/// Lists without end hung, tuples overflowed the stack, and both took the batch with them.
#[test]
fn nested_headers_of_arrays_are_errors_of_their_file() {
    let folder = tempfile::tempdir().unwrap();
    for (from, to) in [("npy-nested-list-hang/hang.npy", "a.npy"), ("npy-nested-tuple-abort/abort.npy", "b.npy")] {
        std::fs::copy(case(from), folder.path().join(to)).unwrap();
    }
    std::fs::write(folder.path().join("c.png"), verilume::render::png(&drawn(40, 40)).unwrap()).unwrap();
    let arguments = ["explain", ".", "--size", SIZE, "-m", "gradient", "-o", "out", "--threads", "1"];
    let mut child = verilume(folder.path(), &arguments).stderr(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    let started = Instant::now();
    let status = loop {
        match child.try_wait().unwrap() {
            Some(status) => break status,
            None if started.elapsed() > Duration::from_secs(120) => {
                child.kill().unwrap();
                panic!("the header of an array hangs");
            }
            None => std::thread::sleep(Duration::from_millis(20)),
        }
    };
    assert_eq!(status.code(), Some(1));
    let records = records(folder.path());
    let errors: Vec<_> = records.iter().filter_map(|r| r["error"].as_str()).collect();
    assert!(errors.len() == 2 && errors.iter().all(|e| e.contains("not a .npy array")), "{errors:?}");
}

/// A header that names a tensor twice is refused wherever such files are read.
#[test]
fn a_tensor_named_twice_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let entry = r#"{"dtype":"U8","shape":[1,3,8,8],"data_offsets":[0,192]}"#;
    let header = format!(r#"{{"images":{entry},"images":{entry}}}"#);
    let file = [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &[7; 192]].concat();
    std::fs::write(folder.path().join("x.safetensors"), &file).unwrap();
    let (code, stderr, _) = run(folder.path(), &["explain", "x.safetensors", "-o", "out"]);
    assert!(code == 2 && stderr.contains("twice"), "{code} {stderr}");
    let (code, stderr, _) = run(folder.path(), &["model", "info", "--model", "x.safetensors"]);
    assert!(code == 2 && stderr.contains("twice"), "{code} {stderr}");
}

#[test]
fn orientation_is_found_wherever_a_file_says_it() {
    let open = |name: &str| Picture::open(case("orientation").join(name), &DecodeLimits::default()).unwrap();
    for kind in ["png", "jpg"] {
        let good = open(&format!("good.{kind}"));
        assert!(good.height() > good.width(), "{}x{}", good.width(), good.height());
        let all =
            std::fs::read_dir(case("orientation")).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
        let same: Vec<String> = all.filter(|name| name.ends_with(kind)).collect();
        assert!(same.len() >= 3);
        for name in same {
            assert_eq!(open(&name).rgb(), good.rgb(), "{name}");
        }
    }
    let webp = open("good.webp");
    assert!(webp.height() > webp.width());
}

/// A block behind the pixels, in every form that Pillow's `exif_transpose` reads, in either order of bytes.
#[test]
fn every_orientation_of_png_and_jpeg() {
    let picture = drawn(9, 5);
    let upright = [verilume::render::png(&picture).unwrap(), verilume::render::jpeg(&picture, 90).unwrap()];
    let turned = |rgb: &Picture, orientation: usize| -> Vec<[u8; 3]> {
        let (w, h) = (rgb.width(), rgb.height());
        let (rows, columns) = if (5..=8).contains(&orientation) { (w, h) } else { (h, w) };
        let at = |y: usize, x: usize| match orientation {
            2 => [y, w - 1 - x],
            3 => [h - 1 - y, w - 1 - x],
            4 => [h - 1 - y, x],
            5 => [x, y],
            6 => [h - 1 - x, y],
            7 => [h - 1 - x, w - 1 - y],
            8 => [x, w - 1 - y],
            _ => [y, x],
        };
        let place = |i: usize| at(i / columns, i % columns);
        (0..rows * columns).map(|i| rgb.pixel(place(i)[0], place(i)[1]).unwrap()).collect()
    };
    let chunk = |kind: &[u8; 4], body: &[u8]| {
        let mut sum = flate2::Crc::new();
        [kind.as_slice(), body].iter().for_each(|part| sum.update(part));
        [&(body.len() as u32).to_be_bytes(), kind.as_slice(), body, &sum.sum().to_be_bytes()].concat()
    };
    for value in 0..=9u8 {
        for exif in [
            [b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0", [value, 0, 0, 0].as_slice(), &[0; 4]].concat(),
            [b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x04\0\0\0\x01", [0, 0, 0, value].as_slice(), &[0; 4]].concat(),
        ] {
            let marked = [b"Exif\0\0", exif.as_slice()].concat();
            let xmp = format!("<rdf:Description tiff:Orientation=\"{value}\"/>");
            let hex: String = marked.iter().map(|b| format!("{b:02x}")).collect();
            let raw = format!("Raw profile type exif\0\nexif\n{:8}\n{hex}\n", marked.len());
            let packed = {
                use std::io::Read;
                let mut bytes = Vec::new();
                let text = raw.split_once('\0').unwrap().1.as_bytes();
                flate2::read::ZlibEncoder::new(text, flate2::Compression::fast()).read_to_end(&mut bytes).unwrap();
                [b"Raw profile type exif\0\0", bytes.as_slice()].concat()
            };
            let itxt = format!("XML:com.adobe.xmp\0\0\0\0\0{xmp}");
            let png = &upright[0];
            let end = png.len() - 12;
            for extra in [
                chunk(b"eXIf", &exif),
                chunk(b"eXIf", &marked),
                chunk(b"tEXt", raw.as_bytes()),
                chunk(b"zTXt", &packed),
                chunk(b"iTXt", itxt.as_bytes()),
            ] {
                for at in [33, end] {
                    let file = [&png[..at], &extra, &png[at..]].concat();
                    let got = decode(&file).unwrap();
                    let want = turned(&picture, usize::from(value));
                    assert_eq!(got.rgb().as_chunks::<3>().0, want.as_slice(), "{value} {:?} at {at}", &extra[4..8]);
                }
            }
            let jpeg = &upright[1];
            let plain = decode(jpeg).unwrap();
            let segment = |body: &[u8]| [b"\xff\xe1", &(body.len() as u16 + 2).to_be_bytes(), body].concat();
            let adobe = [b"http://ns.adobe.com/xap/1.0/\0", xmp.as_bytes()].concat();
            for extra in [segment(&marked), segment(&adobe)] {
                let file = [&jpeg[..2], &extra, &jpeg[2..]].concat();
                let want = turned(&plain, usize::from(value));
                assert_eq!(decode(&file).unwrap().rgb().as_chunks::<3>().0, want.as_slice(), "{value}");
            }
        }
    }
}

/// Against what Pillow makes of them; see `tests/cases/tiff/make.py`.
#[test]
fn kinds_of_tiff_are_those_of_pillow() {
    let mut read = 0;
    for entry in std::fs::read_dir(case("tiff")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|e| e != "tif") {
            continue;
        }
        let name = path.file_stem().unwrap().to_str().unwrap();
        let answer = std::fs::read(path.with_extension("rgb"));
        match (Picture::open(&path, &DecodeLimits::default()), answer) {
            (Ok(picture), Ok(answer)) => {
                assert_eq!(picture.rgb().len(), answer.len(), "{name}");
                let worst = picture.rgb().iter().zip(&answer).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
                // Roundings of colours, and of JPEG's transforms.
                let allowed = if name == "ycbcr-jpeg" { 4 } else { u8::from(name.starts_with("ycbcr")) };
                assert!(worst <= allowed, "{name}: {worst} levels apart");
                read += 1;
            }
            (Err(error), Err(_)) => {
                assert_eq!(error.kind(), ErrorKind::Input);
                assert!(error.to_string().contains("unsupported kind of TIFF picture"), "{error}");
            }
            (Ok(_), Err(_)) => panic!("{name} is read, and Pillow does not say what it is"),
            (Err(error), Ok(_)) => panic!("{name}: {error}"),
        }
    }
    assert!(read >= 25, "{read}");
    for name in ["palette.tif", "float32.tif"] {
        Picture::open(case("tiff-kinds").join(name), &DecodeLimits::default()).unwrap();
    }
}

/// Numbers whose white nobody knows are not cut without a word.
#[test]
fn grey_tiff_numbers_beyond_levels_are_refused_or_said() {
    use tiff::encoder::{TiffEncoder, colortype};
    fn file<C: colortype::ColorType>(values: &[C::Inner]) -> Vec<u8>
    where
        [C::Inner]: tiff::encoder::TiffValue,
    {
        let mut bytes = std::io::Cursor::new(Vec::new());
        TiffEncoder::new(&mut bytes).unwrap().write_image::<C>(2, 1, values).unwrap();
        bytes.into_inner()
    }
    for fine in [
        file::<colortype::GrayI16>(&[0, 255]),
        file::<colortype::Gray32>(&[0, 255]),
        file::<colortype::GrayI32>(&[0, 255]),
        file::<colortype::Gray32Float>(&[0.0, 255.0]),
    ] {
        let picture = decode(&fine).unwrap();
        assert_eq!((picture.rgb(), picture.damage()), ([0, 0, 0, 255, 255, 255].as_slice(), None));
    }
    for (beyond, word) in [
        (file::<colortype::GrayI16>(&[0, 256]), "signed grey numbers of 16 bits"),
        (file::<colortype::Gray32>(&[0, 70_000]), "grey numbers of 32 bits"),
        (file::<colortype::GrayI32>(&[-1, 255]), "signed grey numbers of 32 bits"),
    ] {
        let why = decode(&beyond).unwrap_err().to_string();
        assert!(why.contains(word), "{why}");
    }
    let cut = decode(&file::<colortype::Gray32Float>(&[0.0, 300.0])).unwrap();
    assert!(cut.damage().is_some_and(|said| said.contains("cut")));
    let black = decode(&file::<colortype::Gray32Float>(&[0.0, 0.75])).unwrap();
    assert!(black.damage().is_some_and(|said| said.contains("black")));
    assert_eq!(decode(&file::<colortype::Gray32Float>(&[0.0, 1.0])).unwrap().damage(), None);
}

/// Truncated or broken TIFF files are errors, never panics.
#[test]
fn broken_tiff_files_are_errors() {
    for name in ["palette4", "ycbcr-jpeg", "palette8-tiles", "float32-predicted", "rgb-planes-lzw"] {
        let whole = std::fs::read(case("tiff").join(format!("{name}.tif"))).unwrap();
        for at in 0..whole.len() {
            let _ = decode(&whole[..at]);
            for value in [0, 255] {
                let mut broken = whole.clone();
                broken[at] = value;
                if let Err(error) = decode(&broken) {
                    assert!(matches!(error.kind(), ErrorKind::Input | ErrorKind::Limit), "{error}");
                }
            }
        }
    }
}

/// Files whose data are damaged but which end as they should are explained with a word.
#[test]
fn damaged_jpeg_data_are_said() {
    let golden =
        |name: &str| std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/pillow").join(name));
    let mut files = vec![verilume::render::jpeg(&drawn(90, 70), 90).unwrap()];
    files.extend(
        ["baseline.jpg", "progressive.jpg", "subsampled.jpg", "cmyk.jpg", "ycck.jpg", "turned.jpg"]
            .map(|name| golden(name).unwrap_or_else(|e| panic!("{name}: {e}"))),
    );
    for (n, whole) in files.iter().enumerate() {
        assert_eq!(decode(whole).unwrap().damage(), None, "{n}");
        let scan = whole.windows(2).position(|w| w == b"\xff\xda").unwrap();
        let data = scan + 2 + usize::from(u16::from_be_bytes([whole[scan + 2], whole[scan + 3]]));
        let (mut said, mut tried) = (0, 0);
        for share in [10, 30, 50, 70, 90] {
            let mut cut = data + (whole.len() - 2 - data) * share / 100;
            cut -= usize::from(whole[cut - 1] == 0xFF);
            let file = [&whole[..cut], b"\xff\xd9"].concat();
            tried += 1;
            said += usize::from(decode(&file).map_or(true, |picture| picture.damage().is_some()));
        }
        assert_eq!(said, tried, "{n}");
        let extra = [&whole[..whole.len() - 2], b"\x12\x34\x56\xff\xd9"].concat();
        assert!(decode(&extra).map_or(true, |picture| picture.damage().is_some()), "{n}");
    }
    let folder = tempfile::tempdir().unwrap();
    let whole = &files[0];
    let cut = [&whole[..whole.len() * 2 / 3], b"\xff\xd9"].concat();
    std::fs::write(folder.path().join("cut.jpg"), cut).unwrap();
    let (code, stderr, _) = run(folder.path(), &["explain", "cut.jpg", "--size", SIZE, "-m", "gradient", "-o", "out"]);
    assert_eq!(code, 0, "{stderr}");
    assert!(stderr.contains("damaged"), "{stderr}");
    let warned = records(folder.path());
    assert!(warned[0]["warnings"][0].as_str().unwrap().contains("damaged"), "{}", warned[0]);
}

#[test]
fn a_chunk_with_a_wrong_checksum_is_an_error() {
    let png = verilume::render::png(&drawn(9, 5)).unwrap();
    let file = [&png[..33], b"\0\0\0\x02tEXtab\x12\x34\x56\x78", &png[33..]].concat();
    let error = decode(&file).unwrap_err().to_string();
    assert!(error.contains("tEXt") && error.contains("checksum"), "{error}");
}

/// Bytes in the order of most tools, height x width x channel, make the same maps, and the record says that they were
/// taken so; what may be either is refused.
#[test]
fn the_order_of_bytes_is_found_and_said() {
    let folder = tempfile::tempdir().unwrap();
    let picture = drawn(32, 32);
    let packed = picture.rgb();
    let planes: Vec<u8> = (0..3).flat_map(|c| packed.iter().skip(c).step_by(3).copied()).collect();
    write_npy(&folder.path().join("last.npy"), "|u1", &[1, 32, 32, 3], packed);
    write_npy(&folder.path().join("first.npy"), "|u1", &[1, 3, 32, 32], &planes);
    let header = r#"{"images":{"dtype":"U8","shape":[1,32,32,3],"data_offsets":[0,3072]}}"#;
    let file = [&(header.len() as u64).to_le_bytes(), header.as_bytes(), packed].concat();
    std::fs::write(folder.path().join("tensor.safetensors"), file).unwrap();
    let arguments = ["explain", "last.npy", "first.npy", "tensor.safetensors", "--size", SIZE, "-m", "gradient"];
    let (code, stderr, _) = run(folder.path(), &[&arguments[..], &["--format", "npy", "-o", "out"]].concat());
    assert_eq!(code, 0, "{stderr}");
    let map = |name: &str| std::fs::read(folder.path().join(format!("out/{name}.gradient.npy"))).unwrap();
    assert!(map("last") == map("first") && map("tensor") == map("first"));
    for record in records(folder.path()) {
        let assumed = record["assumed"].to_string();
        let said = assumed.contains("height x width x channel");
        assert_eq!(said, record["input"] != "first.npy", "{record}");
    }
    write_npy(&folder.path().join("either.npy"), "|u1", &[1, 3, 32, 3], &planes[..288]);
    let (code, stderr, _) = run(folder.path(), &["explain", "either.npy", "--size", SIZE, "-o", "other"]);
    assert!(code == 2 && stderr.contains("may be the first or the last"), "{code} {stderr}");
    let numbers: Vec<u8> = packed.iter().flat_map(|&v| (f32::from(v) / 255.0).to_le_bytes()).collect();
    write_npy(&folder.path().join("real.npy"), "<f4", &[1, 32, 32, 3], &numbers);
    let (code, stderr, _) = run(folder.path(), &["explain", "real.npy", "--size", SIZE, "-o", "real"]);
    assert!(code == 2 && stderr.contains("channels last"), "{code} {stderr}");
}

/// With one thread asked for there is one, whatever the command does: nothing starts a thread a core behind its back.
#[test]
#[cfg(target_os = "linux")]
fn no_thread_is_started_that_was_not_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(folder.path().join("data/281")).unwrap();
    for (name, width) in [("a", 700), ("b", 650)] {
        let path = folder.path().join(format!("data/281/{name}.png"));
        std::fs::write(path, verilume::render::png(&drawn(width, 900)).unwrap()).unwrap();
    }
    for (arguments, threads) in [
        (["explain", "data", "--format", "grid", "-m", "smoothgrad:n=8", "-o", "out"].as_slice(), 1),
        (&["explain", "data", "-m", "smoothgrad:n=8", "-o", "three"], 3),
        (&["eval", "--data", "data", "-m", "gradient", "--metric", "road", "-o", "eval"], 1),
        (&["patterns", "fit", "--data", "data", "-o", "p.safetensors"], 1),
    ] {
        let count = threads.to_string();
        let arguments = [arguments, &["--size", SIZE, "--threads", &count, "--device", "cpu"]].concat();
        let mut child =
            verilume(folder.path(), &arguments).stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let tasks = format!("/proc/{}/task", child.id());
        let mut most = 0;
        let status = loop {
            most = most.max(std::fs::read_dir(&tasks).map_or(0, Iterator::count));
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            std::thread::sleep(Duration::from_millis(1));
        };
        let mut stderr = String::new();
        std::io::Read::read_to_string(&mut child.stderr.take().unwrap(), &mut stderr).unwrap();
        assert!(status.success(), "{arguments:?}: {stderr}");
        // The main thread, one that waits for the disk, and the workers that are asked for: one alone is the main thread.
        let allowed = if threads == 1 { 2 } else { threads + 2 };
        assert!((1..=allowed).contains(&most), "{most} threads: {arguments:?}");
    }
}

#[test]
fn threads_beyond_reason_are_bounded_with_a_word() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.png"), verilume::render::png(&drawn(40, 40)).unwrap()).unwrap();
    let arguments = ["explain", "a.png", "--size", SIZE, "-m", "gradient", "-o", "out", "--threads", "4096"];
    let (code, stderr, _) = run(folder.path(), &arguments);
    assert!(code == 0 && stderr.contains("--threads 4096: "), "{code} {stderr}");
    let manifest: Value =
        serde_json::from_slice(&std::fs::read(folder.path().join("out/manifest.json")).unwrap()).unwrap();
    let cores = std::thread::available_parallelism().unwrap().get() as u64;
    assert_eq!(manifest["threads"], 4 * cores);
}

/// Inputs that cannot fit are refused before anything of their size is made.
#[test]
fn inputs_larger_than_memory_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("281")).unwrap();
    std::fs::write(folder.path().join("281/a.png"), verilume::render::png(&drawn(40, 40)).unwrap()).unwrap();
    let large = ["--size", "16384", "--memory", "64MiB"];
    for command in [
        ["explain", "281", "-o", "out"].as_slice(),
        &["check", "281", "-o", "out"],
        &["attack", "281", "-o", "out"],
        &["eval", "--data", "281", "-o", "out"],
        &["patterns", "fit", "--data", "281"],
    ] {
        let (code, stderr, _) = run(folder.path(), &[command, &large].concat());
        assert!(code == 2 && stderr.contains("--memory allows"), "{command:?}: {code} {stderr}");
    }
    // A picture of 36 MB decoded.
    let photograph = Picture::filled(4000, 3000, [9, 8, 7]).unwrap();
    std::fs::write(folder.path().join("b.png"), verilume::render::png(&photograph).unwrap()).unwrap();
    let arguments = ["explain", "b.png", "--size", SIZE, "-m", "gradient", "-o", "small", "--memory"];
    let (code, stderr, _) = run(folder.path(), &[&arguments[..], &["20MiB"]].concat());
    assert!(code == 2 && stderr.contains("--memory SIZE"), "{code} {stderr}");
    let (code, stderr, _) = run(folder.path(), &[&arguments[..], &["200MiB"]].concat());
    assert_eq!(code, 0, "{stderr}");
}

/// A photograph of 108 million pixels lies within the limits; one of 400 million does not.
#[test]
fn limits_let_large_photographs_pass() {
    let header = |width: u32, height: u32| {
        let body = [b"IHDR".as_slice(), &width.to_be_bytes(), &height.to_be_bytes(), &[8, 2, 0, 0, 0]].concat();
        let mut sum = flate2::Crc::new();
        sum.update(&body);
        [b"\x89PNG\r\n\x1a\n\0\0\0\x0d", body.as_slice(), &sum.sum().to_be_bytes(), b"\0\0\0\0IDAT"].concat()
    };
    // What follows the header is missing: a picture that passes the limits is truncated.
    assert_eq!(decode(&header(12_000, 9000)).unwrap_err().kind(), ErrorKind::Input);
    assert_eq!(decode(&header(20_000, 20_000)).unwrap_err().kind(), ErrorKind::Limit);
}

/// Classes whose names the font cannot draw do not look the same.
#[test]
fn names_of_any_script_are_told_apart_on_sheets() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.png"), verilume::render::png(&drawn(40, 40)).unwrap()).unwrap();
    let mut sheets = Vec::new();
    for (n, name) in ["\u{732b}", "\u{72ac}", "кошка", "собака", "γάτα"].into_iter().enumerate() {
        let labels = vec![name; 1000].join("\n");
        std::fs::write(folder.path().join("labels.txt"), labels).unwrap();
        let out = format!("out{n}");
        let arguments = ["explain", "a.png", "--size", SIZE, "-m", "gradient", "--format", "grid"];
        let (code, stderr, _) = run(folder.path(), &[&arguments[..], &["--labels", "labels.txt", "-o", &out]].concat());
        assert_eq!(code, 0, "{stderr}");
        sheets.push(std::fs::read(folder.path().join(out).join("a.grid.png")).unwrap());
    }
    for (i, sheet) in sheets.iter().enumerate() {
        assert!(sheets[..i].iter().all(|other| other != sheet), "{i}");
    }
}

/// A PNG whose palette is no whole number of colours, on which its decoder panics.
const PALETTE_OF_FOUR_BYTES: &[u8] = &[
    0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a, 0x00, 0x00, 0x00, 0x0d, 0x49, 0x48, 0x44, 0x52, 0x00, 0x00, 0x00,
    0x01, 0x00, 0x00, 0x00, 0x01, 0x08, 0x03, 0x00, 0x00, 0x00, 0x28, 0xcb, 0x34, 0xbb, 0x00, 0x00, 0x00, 0x04, 0x50,
    0x4c, 0x54, 0x45, 0x61, 0xbe, 0x27, 0x8c, 0xc6, 0x32, 0x90, 0x68, 0x00, 0x00, 0x00, 0x0a, 0x49, 0x44, 0x41, 0x54,
    0x78, 0x9c, 0x63, 0x64, 0x00, 0x00, 0x00, 0x04, 0x00, 0x02, 0x21, 0x64, 0xad, 0x6a, 0x00, 0x00, 0x00, 0x1a, 0x66,
    0x63, 0x54, 0x4c, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x04, 0x91, 0xc7, 0x06, 0x00, 0x00, 0x00, 0x0a, 0x49,
    0x44, 0x41, 0x54, 0x78, 0x9c, 0x63, 0x64, 0x00, 0x00, 0x00, 0x04, 0x00, 0x02, 0x21, 0x64, 0xad, 0x6a, 0x00, 0x00,
    0x00, 0x00, 0x49, 0x45, 0x4e, 0x44, 0xae, 0x42, 0x60, 0x82,
];

#[test]
fn a_decoder_that_panics_costs_its_picture_alone() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("bad.png"), PALETTE_OF_FOUR_BYTES).unwrap();
    std::fs::write(folder.path().join("good.png"), verilume::render::png(&drawn(40, 40)).unwrap()).unwrap();
    let output =
        verilume(folder.path(), &["explain", "bad.png", "good.png", "--size", SIZE, "-o", "out"]).output().unwrap();
    let (answer, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(!said.contains("panicked") && answer.contains("its decoder fails on it"), "{said}{answer}");
    assert!(folder.path().join("out/good.grad_cam.png").is_file());
}

/// A TIFF file of such tags, each of one number, and bytes behind its directory.
fn tiff(tags: &[(u16, u32)], behind: &[u8]) -> Vec<u8> {
    let mut bytes = b"II*\0\x08\0\0\0".to_vec();
    bytes.extend((tags.len() as u16).to_le_bytes());
    for (tag, value) in tags {
        bytes.extend([tag.to_le_bytes(), 4u16.to_le_bytes()].concat());
        bytes.extend([1u32.to_le_bytes(), value.to_le_bytes()].concat());
    }
    bytes.extend([0; 4]);
    bytes.extend(behind);
    bytes
}

#[test]
fn sizes_that_cannot_be_counted_are_beyond_the_limit() {
    let any = usize::MAX;
    let limits = DecodeLimits { width: any, height: any, pixels: u64::MAX, ..DecodeLimits::default() };
    for side in [u32::MAX, 1 << 31] {
        let tags = [(256, side), (257, side), (258, 8), (259, 1), (262, 1), (273, 8), (277, 1), (278, side), (279, 1)];
        let why = Picture::decode(&tiff(&tags, b""), &limits).unwrap_err().to_string();
        assert!(why.contains("limit"), "{why}");
    }
}

#[test]
fn a_palette_whose_file_is_larger_than_the_limit_is_not_copied() {
    let tags = [(256, 1), (257, 1), (258, 8), (259, 1), (262, 3), (273, 8), (277, 1), (278, 1), (279, 1)];
    let limits = DecodeLimits { decoded_bytes: 1000, ..DecodeLimits::default() };
    let error = Picture::decode(&tiff(&tags, &[0; 2000]), &limits).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Limit, "{error}");
}
