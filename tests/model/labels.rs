//! Names of classes.

use super::*;

#[test]
fn labels_are_found_by_name_and_synonym() {
    let labels = Labels::for_pictures(1000);
    assert_eq!(labels.len(), 1000);
    assert_eq!(labels.find("tabby").unwrap(), 281);
    assert_eq!(labels.find("Great_White  SHARK").unwrap(), 2);
    let miss = labels.find("golden retreiver").unwrap_err();
    assert_eq!(miss.kind(), ErrorKind::Settings);
    says(&miss.to_string(), &["golden retreiver", "golden retriever"]);
    says(&labels.find("terrier").unwrap_err().to_string(), &["toy terrier"]);
    assert!(labels.find("").is_err());
    assert!(labels.find(&"x".repeat(1 << 20)).is_err());
    assert_eq!(Labels::numbered(20).find("class 17").unwrap(), 17);

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("labels.txt");
    std::fs::write(&path, "tench, Tinca tinca\r\nCrane\ncrane, heron\n\n").unwrap();
    let labels = Labels::from_file(&path, 3).unwrap();
    assert_eq!(labels.find("tinca TINCA").unwrap(), 0);
    assert_eq!(labels.find("Crane").unwrap(), 1);
    assert_eq!(labels.find("heron").unwrap(), 2);
    says(&Labels::from_file(&path, 4).unwrap_err().to_string(), &["labels.txt", "3 names", "4 classes"]);
    std::fs::write(&path, "a\n\nA").unwrap();
    says(&Labels::from_file(&path, 3).unwrap_err().to_string(), &["line 2"]);
    std::fs::write(&path, "A\nA").unwrap();
    says(&Labels::from_file(&path, 2).unwrap().find("a").unwrap_err().to_string(), &["0 and 1"]);

    let mut model = loaded(&mlp(&[4, 3]));
    assert!(model.set_labels(Labels::numbered(2)).is_err());
    model.set_labels(Labels::numbered(3)).unwrap();
}
