//! The embedded model on labelled pictures, decoded and prepared by our own code.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![cfg(all(feature = "embedded-model", feature = "jpeg"))]

use std::path::Path;

use verilume::engine::{Batch, Engine, Settings};
use verilume::image::{DecodeLimits, Picture};
use verilume::model::Model;

/// Folder of the data that is not part of the repository.
const DATA: Option<&str> = needs::test_data!();

/// Right answers asked for; the reference pipeline gives 48 of 59.
const RIGHT: usize = 47;

/// File names carry the class: `n02091467_Norwegian_elkhound.JPEG`.
#[needs::shared_data]
#[test]
fn most_pictures_are_labelled_right() {
    let model = Model::embedded().unwrap();
    let graph = model.graph(model.default_input()).unwrap();
    let mut engine = Engine::new(&Settings::default()).unwrap();
    let (mut right, mut wrong) = (0, Vec::new());
    let mut files: Vec<_> =
        std::fs::read_dir(Path::new(DATA.unwrap()).join("imagenet")).unwrap().map(|f| f.unwrap().path()).collect();
    files.sort();
    for file in &files {
        let stem = file.file_stem().unwrap().to_string_lossy().into_owned();
        let class = stem.split_once('_').unwrap().1.replace('_', " ");
        let picture = Picture::open(file, &DecodeLimits::default()).unwrap();
        let input = model.preprocess().apply(&picture).unwrap().tensor;
        let logits = engine.forward(&graph, &Batch::of(vec![input]).unwrap()).unwrap();
        let top = (0..logits.len()).max_by(|&a, &b| logits.at(a).total_cmp(&logits.at(b))).unwrap();
        let label = model.labels().get(top).unwrap();
        if label.eq_ignore_ascii_case(&class) {
            right += 1;
        } else {
            wrong.push(format!("{class} → {label}"));
        }
    }
    println!("{right} of {} right; wrong: {}", files.len(), wrong.join(", "));
    assert_eq!(files.len(), 59);
    assert!(right >= RIGHT, "{right} right");
}
