//! Pictures against Pillow: decoding, resizing, hostile files, and the preprocessing of real photographs.
#![cfg(all(feature = "png", feature = "jpeg"))]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::path::PathBuf;

use verilume::ErrorKind;
use verilume::image::{DecodeLimits, Interpolation, Picture, Preprocess};

/// Folder of the data that is not part of the repository.
const DATA: Option<&str> = needs::test_data!();

fn golden(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/pillow").join(name)
}

fn open(name: &str) -> Picture {
    Picture::open(golden(name), &DecodeLimits::default()).unwrap()
}

fn bytes(name: &str) -> Vec<u8> {
    std::fs::read(golden(name)).unwrap()
}

/// Mean and largest difference in levels.
fn difference(a: &Picture, b: &Picture) -> (f64, u8) {
    assert_eq!((a.width(), a.height()), (b.width(), b.height()));
    let levels: Vec<u8> = a.rgb().iter().zip(b.rgb()).map(|(a, b)| a.abs_diff(*b)).collect();
    let mean = levels.iter().map(|&d| f64::from(d)).sum::<f64>() / levels.len() as f64;
    (mean, levels.into_iter().max().unwrap())
}

#[test]
fn resizing_is_pillows_bit_for_bit() {
    let source = open("source.png");
    for filter in [Interpolation::Nearest, Interpolation::Bilinear, Interpolation::Bicubic, Interpolation::Lanczos] {
        for (w, h) in [(7, 5), (11, 19), (41, 37), (23, 8), (50, 11)] {
            let expected = open(&format!("{filter}-{w}x{h}.png"));
            let ours = source.resized(w, h, filter).unwrap();
            assert_eq!(difference(&ours, &expected), (0.0, 0), "{filter} to {w}x{h}");
        }
    }
}

#[test]
fn lossless_files_decode_as_in_pillow() {
    for name in ["palette", "one-bit", "alpha", "grey-alpha", "sixteen-bit"] {
        let (ours, expected) = (open(&format!("{name}.png")), open(&format!("{name}.rgb.png")));
        assert_eq!(ours, expected, "{name}");
    }
}

#[test]
fn jpeg_files_decode_as_in_pillow() {
    // Inverse transforms and colour conversions round differently; upsampled chroma is interpolated differently too.
    for (name, mean, max) in [
        ("baseline", 0.05, 3),
        ("progressive", 0.5, 4),
        ("subsampled", 0.5, 4),
        ("grey", 0.05, 1),
        ("turned", 0.05, 3),
        ("cmyk", 0.05, 3),
        ("ycck", 0.05, 3),
    ] {
        let (ours, expected) = (open(&format!("{name}.jpg")), open(&format!("{name}.rgb.png")));
        let (is_mean, is_max) = difference(&ours, &expected);
        println!("{name}: mean {is_mean:.3}, largest {is_max}");
        assert!(is_mean <= mean && is_max <= max, "{name}: mean {is_mean}, largest {is_max}");
    }
}

/// A PNG header of `width` x `height` with no pixels behind it.
fn bomb(width: u32, height: u32) -> Vec<u8> {
    let mut file = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".to_vec();
    let mut header = width.to_be_bytes().to_vec();
    header.extend(height.to_be_bytes());
    header.extend([8, 2, 0, 0, 0]);
    let crc = b"IHDR".iter().chain(&header).fold(!0u32, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xEDB8_8320 } else { crc >> 1 })
    });
    file.extend(header);
    file.extend((!crc).to_be_bytes());
    // The reader wants to see a data chunk before it tells the size.
    file.extend(b"\0\0\0\0IDAT\x35\xaf\x06\x1e");
    file
}

#[test]
fn a_bomb_is_refused_by_its_header() {
    let limits = DecodeLimits::default();
    for (w, h, named) in [(60_000, 60_000, "60000x60000"), (20_000, 20_000, "400000000"), (40_000, 1, "32768x32768")] {
        let error = Picture::decode(&bomb(w, h), &limits).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Limit, "{error}");
        assert!(error.to_string().contains(named), "{error}");
    }
    let tight = DecodeLimits { decoded_bytes: 1000, ..limits.clone() };
    assert_eq!(Picture::decode(&bytes("source.png"), &tight).unwrap_err().kind(), ErrorKind::Limit);
    let small = DecodeLimits { file_bytes: 100, ..limits };
    assert_eq!(Picture::open(golden("source.png"), &small).unwrap_err().kind(), ErrorKind::Limit);
}

#[test]
fn files_that_are_no_pictures_say_so() {
    let limits = DecodeLimits::default();
    for (bytes, says) in [
        (&b""[..], "empty"),
        (b"Dear reader,\nthis is a letter.\n", "text"),
        (b"\0\x01\x02\x03garbage\xff\xfe", "not a picture"),
        (b"\xff\xd8\xff", "JPEG"),
        (b"\x89PNG\r\n\x1a\n", "PNG"),
        (b"qoif\0\0\0\x01\0\0\0\x01\x03\0", "not supported"),
    ] {
        let error = Picture::decode(bytes, &limits).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Input, "{error}");
        assert!(error.to_string().contains(says), "{error}");
        assert!(!error.to_string().contains('\n'), "{error}");
    }
    assert_eq!(Picture::open(golden("missing.png"), &limits).unwrap_err().kind(), ErrorKind::Io);
}

#[test]
fn the_content_decides_not_the_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("photo.png");
    std::fs::copy(golden("baseline.jpg"), &path).unwrap();
    assert_eq!(Picture::open(&path, &DecodeLimits::default()).unwrap(), open("baseline.jpg"));
}

#[test]
fn truncated_files_are_errors() {
    let limits = DecodeLimits::default();
    for name in ["baseline.jpg", "progressive.jpg", "subsampled.jpg", "turned.jpg", "cmyk.jpg"] {
        let whole = bytes(name);
        for cut in 0..whole.len() {
            let error = Picture::decode(&whole[..cut], &limits).expect_err(name);
            assert_eq!(error.kind(), ErrorKind::Input, "{name} cut at {cut}: {error}");
        }
    }
    for name in ["source.png", "palette.png", "one-bit.png"] {
        let whole = bytes(name);
        // The last twelve bytes are the end chunk, which holds no pixels; the four before them a checksum.
        for cut in 0..whole.len() - 16 {
            let error = Picture::decode(&whole[..cut], &limits).expect_err(name);
            assert_eq!(error.kind(), ErrorKind::Input, "{name} cut at {cut}: {error}");
        }
    }
}

#[test]
fn broken_files_never_panic() {
    let limits = DecodeLimits::default();
    let mut state = 0x9E37_79B9u32;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as usize
    };
    for name in ["baseline.jpg", "progressive.jpg", "subsampled.jpg", "ycck.jpg", "palette.png", "grey-alpha.png"] {
        let whole = bytes(name);
        for _ in 0..400 {
            let mut broken = whole.clone();
            for _ in 0..1 + next() % 4 {
                let at = next() % broken.len();
                broken[at] = next() as u8;
            }
            // A flipped pixel byte may go unnoticed; what counts is that every outcome is a value.
            if let Err(error) = Picture::decode(&broken, &limits) {
                assert!(matches!(error.kind(), ErrorKind::Input | ErrorKind::Limit), "{error}");
            }
        }
    }
}

#[needs::shared_data]
#[test]
fn photographs_are_prepared_as_by_pillow_and_torchvision() {
    let data = PathBuf::from(DATA.unwrap());
    let golden = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let file = std::fs::read(golden.join("real/efficientnet-lite0.cases.safetensors")).unwrap();
    let cases = safetensors::SafeTensors::deserialize(&file).unwrap();
    let input = cases.tensor("input").unwrap();
    assert_eq!(input.shape(), [4, 3, 224, 224]);
    let expected: Vec<f32> = input.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
    let preprocess = Preprocess {
        resize: 256,
        crop: [224, 224],
        interpolation: Interpolation::Bicubic,
        mean: vec![0.5; 3],
        std: vec![0.5; 3],
        channels: 3,
    };
    let names = ["n01608432_kite", "n02099712_Labrador_retriever", "n02105162_malinois", "n03787032_mortarboard"];
    for (name, expected) in names.iter().zip(expected.chunks_exact(3 * 224 * 224)) {
        let path = data.join(format!("imagenet/{name}.JPEG"));
        let picture = Picture::open(path, &DecodeLimits::default()).unwrap();
        let prepared = preprocess.apply(&picture).unwrap();
        assert_eq!(prepared.tensor.dims(), [3, 224, 224]);
        let ours = prepared.tensor.to_f32();
        let levels: Vec<f64> = ours.iter().zip(expected).map(|(a, b)| f64::from((a - b).abs()) * 0.5 * 255.0).collect();
        let mean = levels.iter().sum::<f64>() / levels.len() as f64;
        let max = levels.iter().copied().fold(0.0, f64::max);
        println!("{name}: mean {mean:.4} levels, largest {max:.2}");
        assert!(mean < 0.5 && max <= 4.0, "{name}: mean {mean}, largest {max}");
    }
}
