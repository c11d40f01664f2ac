//! Files that are no weights file, damaged ones and hostile ones.

use super::tensors::small_resnet;
use super::*;

#[test]
fn hostile_files_are_refused() {
    let good = file(&small_resnet());
    for cut in [1, 7, 8, 9, 100, good.len() / 2, good.len() - 1] {
        refused(good[..cut].to_vec());
    }
    says(&refused(good[..good.len() - 1].to_vec()), &["truncated"]);
    says(&refused([&good[..], &[0]].concat()), &["surplus bytes"]);
    says(&refused(Vec::new()), &["empty"]);
    refused(vec![0; 64]);
    refused(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".to_vec());
    refused((0..997u32).map(|i| (i * 31 % 251) as u8).collect());
    says(&refused([&u64::MAX.to_le_bytes()[..], b"{}"].concat()), &["header"]);
    says(&refused([&(1u64 << 40).to_le_bytes()[..], b"{}"].concat()), &["header"]);
    says(&refused(with_header("{}", &[])), &["no tensors"]);
    refused(with_header("[]", &[]));
    refused(with_header("{\"a\": 1}", &[]));
    refused(with_header("{\"a\": {\"dtype\": \"F32\"", &[]));
    refused(with_header(&"[".repeat(1 << 16), &[]));
    refused(with_header(&format!("{{\"a\":{}", "{\"a\":".repeat(1 << 16)), &[]));
    let one = |dtype: &str, shape: &str, from: u64, to: u64, data: usize| {
        let tensor = format!("{{\"dtype\":\"{dtype}\",\"shape\":{shape},\"data_offsets\":[{from},{to}]}}");
        refused(with_header(&format!("{{\"0.weight\":{tensor}}}"), &vec![0; data]))
    };
    one("F32", "[2,2]", 0, 8, 8);
    one("F32", "[2,2]", 4, 20, 20);
    one("F32", "[2,2]", 16, 0, 16);
    one("F32", "[2,2]", 0, u64::MAX, 16);
    one("F32", "[18446744073709551615,18446744073709551615]", 0, 4, 4);
    one("F32", "[4611686018427387904,4]", 0, 0, 0);
    one("F32", "[-1,4]", 0, 4, 4);
    one("F32", "[1e30,4]", 0, 4, 4);
    one("F8_E4M3", "[2,2]", 0, 4, 4);
    one("Q7", "[2,2]", 0, 4, 4);
    says(&one("F32", "[0,4]", 0, 0, 0), &["'0.weight'", "[0, 4]"]);
    says(&one("F32", "[4,0]", 0, 0, 0), &["'0.weight'"]);
    one("F32", "[0,0]", 0, 0, 0);
    says(&one("I64", "[2,2]", 0, 32, 32), &["I64"]);
    // Offsets whose sum with the header's length overflows.
    let huge = 1u64 << 61;
    let tensors: Vec<String> = (0..7)
        .map(|i| {
            format!(
                "\"{i}.weight\":{{\"dtype\":\"U8\",\"shape\":[{huge}],\"data_offsets\":[{},{}]}}",
                i * huge,
                (i + 1) * huge
            )
        })
        .collect();
    refused(with_header(&format!("{{{}}}", tensors.join(",")), &[0; 8]));
}

#[test]
fn paths_that_are_no_weights_file() {
    let folder = tempfile::tempdir().unwrap();
    let absent = folder.path().join("absent.safetensors");
    assert_eq!(Model::open(&absent, None).unwrap_err().kind(), ErrorKind::Io);
    let empty = folder.path().join("empty.safetensors");
    std::fs::write(&empty, []).unwrap();
    let error = Model::open(&empty, None).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Model);
    says(&error.to_string(), &["empty.safetensors", "the file is empty"]);
}

/// A zip archive with entries of these names, each of four bytes.
fn zip(names: &[&str]) -> Vec<u8> {
    let (mut file, mut directory) = (Vec::new(), Vec::new());
    for name in names {
        let at = file.len() as u32;
        let length = (name.len() as u16).to_le_bytes();
        file.extend([b"PK\x03\x04".as_slice(), &[0; 14], &[4, 0, 0, 0, 4, 0, 0, 0], &length, &[0, 0]].concat());
        file.extend([name.as_bytes(), b"data"].concat());
        directory.extend([b"PK\x01\x02".as_slice(), &[0; 16], &[4, 0, 0, 0, 4, 0, 0, 0], &length, &[0; 12]].concat());
        directory.extend([at.to_le_bytes().as_slice(), name.as_bytes()].concat());
    }
    let (start, count) = (file.len() as u32, (names.len() as u16).to_le_bytes());
    file.extend(&directory);
    file.extend([b"PK\x05\x06".as_slice(), &[0; 4], &count, &count].concat());
    file.extend([(directory.len() as u32).to_le_bytes(), start.to_le_bytes()].concat());
    file.extend([0, 0]);
    file
}

/// What is said of a file, after its path; never of a header of absurd length.
fn said(name: &str, bytes: &[u8]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    let error = Model::open(&path, None).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Model, "{error}");
    let message = error.to_string();
    let (file, sentence) = message.split_once(": ").unwrap();
    assert_eq!(Path::new(file), path, "{message}");
    assert!(!message.contains('\n') && sentence.len() < 420, "{message}");
    assert!(!sentence.contains("bytes") || sentence.contains("first 8 bytes") || bytes.len() < 9, "{message}");
    sentence.to_string()
}

#[test]
fn every_kind_of_file_is_told_by_its_first_bytes() {
    let checkpoint = ["torch.load(\"net.pth\"", "safetensors.torch.save_file", "\"net.safetensors\""];
    let pickles: [&[u8]; 9] = [
        b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.",
        b"\x80\x03}q\x00.",
        b"\x80\x04\x95\x1a\0\0\0\0\0\0\0}\x94.",
        b"\x80\x05\x95\x1a\0\0\0\0\0\0\0}\x94.",
        b"}q\x00(X\x01\x00\x00\x00aK\x01u.",
        b"(dp0\nVa\np1\nI1\ns.",
        b"(lp0\nI1\na.",
        b"ccollections\nOrderedDict\np0\n(tRp1\n.",
        b"]q\x00.",
    ];
    for pickle in pickles {
        says(&said("net.pth", pickle), &[&["pickled checkpoint"][..], &checkpoint].concat());
    }
    let (checkpoint_of, onnx) = (["this is a checkpoint of PyTorch"], "torch.onnx.export(");
    let archives: [(&str, &[&str], &[&str]); 12] = [
        ("net.pth", &["net/data.pkl", "net/byteorder", "net/data/0"], &[&checkpoint_of[..], &checkpoint].concat()),
        ("net.pth", &["archive/data/0", "archive/data.pkl", "archive/version"], &checkpoint),
        ("net.ckpt", &["archive/data.pkl"], &["torch.load(\"net.ckpt\""]),
        (
            "net.pt",
            &["net/data/0", "net/data.pkl", "net/code/__torch__/a.py", "net/constants.pkl"],
            &["TorchScript", "torch.jit.load(\"net.pt\"", onnx, "\"net.onnx\""],
        ),
        ("net.pt2", &["net/data/weights/weight_0", "net/models/model.json"], &["torch.export.load(\"net.pt2\")", onnx]),
        ("net.pt2", &["version", "serialized_exported_program.json"], &["torch.export.load", onnx]),
        (
            "net.keras",
            &["metadata.json", "config.json", "model.weights.h5"],
            &["Keras", "load_model(\"net.keras\"", "format=\"onnx\""],
        ),
        ("net.npz", &["conv.weight.npy", "fc.bias.npy"], &["npz", "numpy.load(\"net.npz\")", "safetensors.numpy"]),
        ("net.zip", &["README.txt", "best/Net.ONNX"], &["unzip", "'best/Net.ONNX'"]),
        ("net.zip", &["model.safetensors"], &["unzip", "'model.safetensors'"]),
        ("net.zip", &["README.txt"], &["archive (zip) without a net"]),
        ("a b.pth", &["archive/data.pkl"], &["torch.load(\"FILE\"", "\"net.safetensors\""]),
    ];
    for (name, entries, parts) in archives {
        says(&said(name, &zip(entries)), parts);
    }
    // An archive that is cut is told by its first entry; a broken directory ends no program.
    let whole = zip(&["net/data.pkl", "net/version"]);
    for cut in [42, 60, whole.len() - 30, whole.len() - 1] {
        says(&said("net.pth", &whole[..cut]), &["torch.load"]);
    }
    for cut in [4, 20, 29, 31, 35] {
        said("net.pth", &whole[..cut]);
    }
    for at in 0..whole.len() {
        let mut odd = whole.clone();
        odd[at] = 0xff;
        said("net.pth", &odd);
    }
    let mut lite = b"\x1c\0\0\0TFL3".to_vec();
    lite.resize(64, 0);
    let mut tar = vec![b'x'; 257];
    tar.extend(b"ustar\x0000");
    let pages: [(&str, &[u8], &[&str]); 29] = [
        ("net.h5", b"\x89HDF\r\n\x1a\n\0\0\0\0", &["HDF5", "load_model(\"net.h5\"", "format=\"onnx\""]),
        ("net.tflite", &lite, &["TensorFlow Lite", "tf2onnx.convert --tflite net.tflite --output net.onnx"]),
        ("net.gguf", b"GGUF\x03\0\0\0\0\0\0\0", &["GGUF"]),
        (
            "model.safetensors",
            b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 102446234\n",
            &["Git LFS pointer", "git lfs pull"],
        ),
        ("model.safetensors", b"\n<!DOCTYPE html><html><head>", &["web page", "resolve"]),
        ("model.onnx", b"<html lang=en>", &["web page"]),
        ("model.safetensors", b"<?xml version=\"1.0\"?><Error><Code>AccessDenied</Code></Error>", &["refused"]),
        ("net.xml", b"<?xml version=\"1.0\"?><net name=\"a\"></net>", &["XML", "OpenVINO"]),
        (
            "model.safetensors",
            b"{\"error\":\"Invalid username or password.\"}",
            &["server's answer", "Invalid username or password."],
        ),
        ("config.json", b"{\"architectures\": [\"ResNetForImageClassification\"]}", &["describes a net", "folder"]),
        ("x.json", b" [1, 2]", &["JSON text, not a net"]),
        ("x.json", b"{\"weight_map\": {\"a\": ", &["JSON text that is cut"]),
        ("x.npy", b"\x93NUMPY\x01\0v\0{'descr'", &["array", "not a net"]),
        ("net.safetensors.gz", b"\x1f\x8b\x08\0\0\0\0\0", &["gzip", "gunzip"]),
        ("net.zst", b"\x28\xb5\x2f\xfd\0\0\0\0", &["zstd"]),
        ("net.xz", b"\xfd7zXZ\0\0\0", &["xz"]),
        ("net.bz2", b"BZh91AY&SY", &["bzip2"]),
        ("net.7z", b"7z\xbc\xaf\x27\x1c\0\x04", &["7z"]),
        ("net.tar", &tar, &["tar"]),
        ("cat.png", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", &["picture (PNG)"]),
        ("cat.jpg", b"\xff\xd8\xff\xe0\0\x10JFIF", &["picture (JPEG)"]),
        ("frozen.pb", b"\x0a\x33\x0a\x05input", &["TensorFlow", "tf2onnx"]),
        ("net.onnx.data", &[7; 64], &["weights of an ONNX net", ".onnx file"]),
        ("net.safetensors", b"", &["empty"]),
        ("net.safetensors", b"\x10\0\0", &["truncated", "3 bytes"]),
        ("net.safetensors", &[0; 64], &["zeros", "again"]),
        ("net.safetensors", b"\xff\xff\xff\xff\xff\xff\xff\xff{}", &["header longer than the file"]),
        ("net.safetensors", b"import torch\nx = 1", &["this is a text", "\"import torch\""]),
        ("net.safetensors", b"\x01\x02\x03\x04\x05\x06\x07\x08\x09", &["neither safetensors nor ONNX", "01 02 03 04"]),
    ];
    for (name, bytes, parts) in pages {
        says(&said(name, bytes), parts);
    }
}

#[test]
fn a_graph_is_told_by_its_first_fields_or_its_name() {
    let graphs: [(&str, &[u8]); 5] = [
        ("net", b"\x08\x08\x12\x07pytorch\x1a\x052.1.0:\x10"),
        ("net", b"\x08\x07\x3a\x80\x01"),
        ("net.bin", b"\x08\x09\x42\x02\x10\x0d\x3a\x01\x00"),
        ("net.onnx", b"\x3a\x04\x0a\x02ab\x08\x07"),
        ("NET.ONNX", b"\x08\x08"),
    ];
    for (name, bytes) in graphs {
        says(&said(name, bytes), &["ONNX graph"]);
    }
    // A header whose length has the bytes of such fields belongs to safetensors.
    let mut header = "{}".to_string();
    header.push_str(&" ".repeat(0x12_0808 - 2));
    says(&refused(with_header(&header, &[])), &["no tensors"]);
    // The first fields of a SavedModel, whose second is long.
    assert!(!said("net", b"\x08\x01\x12\xf0\xa0\x02\x0a\x10").contains("ONNX graph"));
}

#[test]
fn a_folder_is_the_net_in_it() {
    let folder = tempfile::tempdir().unwrap();
    let hub = folder.path().join("resnet18.of_mine");
    std::fs::create_dir(&hub).unwrap();
    let put = |name: &str, bytes: &[u8]| std::fs::write(hub.join(name), bytes).unwrap();
    let why = || {
        let message = Model::open(&hub, None).unwrap_err().to_string();
        assert!(message.starts_with(hub.to_str().unwrap()), "{message}");
        message
    };
    says(&why(), &["no model.safetensors", "empty"]);
    put("README.md", b"# Net");
    put(".gitattributes", b"");
    says(&why(), &["no model.safetensors", "holds README.md"]);
    put("saved_model.pb", b"\x08\x01\x12");
    says(&why(), &["SavedModel", "--saved-model"]);
    put("pytorch_model.bin", &zip(&["archive/data.pkl"]));
    says(&why(), &["neither safetensors nor ONNX", "pytorch_model.bin", "torch.load"]);
    put("vgg.safetensors", &file(&filled(&vgg(VGG[0].0, false, 32, 8, 10))));
    let model = Model::open(&hub, None).unwrap();
    assert_eq!((model.name(), model.architecture()), ("resnet18.of_mine", "vgg (8 conv)"));
    put("other.ONNX", b"\x08\x07");
    says(&why(), &["several nets", "other.ONNX, vgg.safetensors"]);
    put("model.safetensors", &file(&small_resnet()));
    put("config.json", br#"{"num_classes": 5, "model_type": "own", "mean": [0.1, 0.2, 0.3]}"#);
    let model = Model::open(&hub.join(""), None).unwrap();
    assert_eq!((model.name(), model.preprocess().mean[2]), ("resnet18.of_mine", 0.3));
    assert_eq!(model.sha256(), Model::open(&hub.join("model.safetensors"), None).unwrap().sha256());
    // What is damaged is told with its file.
    put("model.safetensors", b"");
    says(&why(), &["model.safetensors: the file is empty"]);
    std::fs::create_dir(hub.join("sub.safetensors")).unwrap();
    put("model.safetensors", &file(&small_resnet()));
    says(&Model::open(&hub.join("sub.safetensors"), None).unwrap_err().to_string(), &["sub.safetensors", "is empty"]);
}

#[test]
fn a_net_in_shards_is_read_as_one() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let [first, second] = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
    let index = at("model.safetensors.index.json");
    let whole = small_resnet();
    let half = |second: bool| -> BTreeMap<String, Tensor> {
        let all = whole.iter().enumerate().filter(|(i, _)| (i % 3 == 0) == second);
        all.map(|(_, (name, tensor))| (name.clone(), tensor.clone())).collect()
    };
    let shards = [file(&half(false)), file(&half(true))];
    let list = |map: &serde_json::Value| {
        std::fs::write(&index, serde_json::json!({"metadata": {"total_size": 7}, "weight_map": map}).to_string())
            .unwrap();
    };
    let mut map: serde_json::Map<String, serde_json::Value> =
        half(false).keys().map(|n| (n.clone(), first.into())).collect();
    map.extend(half(true).keys().map(|n| (n.clone(), second.into())));
    let good = serde_json::Value::Object(map);
    list(&good);
    std::fs::write(at(first), &shards[0]).unwrap();
    let why = |path: &Path| Model::open(path, None).unwrap_err().to_string();
    says(&why(&index), &["index.json", second, "missing"]);
    std::fs::write(at(second), &shards[1]).unwrap();

    let one = load(file(&whole)).unwrap();
    let numbers = |model: &Model| -> Vec<f64> {
        let weight = |op: &Op| match op {
            Op::Conv(conv) => conv.weight.to_f64(),
            Op::Linear(linear) => linear.weight.to_f64(),
            Op::BatchNorm(norm) => norm.mean.to_vec(),
            _ => Vec::new(),
        };
        model.unfolded().nodes().iter().flat_map(|node| weight(&node.op)).collect()
    };
    for path in [index.as_path(), folder.path()] {
        let net = Model::open(path, None).unwrap();
        assert!(numbers(&net) == numbers(&one), "the same numbers");
        assert_eq!(net.file_bytes(), shards.concat().len());
        let digest: String = {
            use sha2::Digest;
            sha2::Sha256::digest(shards.concat()).iter().map(|b| format!("{b:02x}")).collect()
        };
        assert_eq!(net.sha256(), digest);
    }
    assert_eq!(Model::open(&index, None).unwrap().name(), "model");

    // One alone is told which list it belongs to; one of one is a whole net.
    for path in [at(first), at(second)] {
        says(&why(&path), &["one of 2 shards", "model.safetensors.index.json", "folder"]);
    }
    std::fs::write(at("net-00001-of-00001.safetensors"), file(&whole)).unwrap();
    Model::open(&at("net-00001-of-00001.safetensors"), None).unwrap();
    std::fs::remove_file(at("net-00001-of-00001.safetensors")).unwrap();

    // Lists that are wrong.
    let mut edited = good.clone();
    let edit = |name: &str, file: serde_json::Value| {
        edited = good.clone();
        edited[name] = file;
        list(&edited);
        why(&index)
    };
    let mut edit = edit;
    let outside = folder.path().join("outside.safetensors");
    for file in ["../outside.safetensors", outside.to_str().unwrap(), "a/b.safetensors", "..", "", "C:x", "a\\b"] {
        says(&edit("fc.bias", file.into()), &["index.json", "weight_map", "not the name of a file in this folder"]);
    }
    says(&edit("fc.bias", 7.into()), &["'fc.bias' has no file"]);
    says(&edit("fc.none", first.into()), &[first, "'fc.none'", "does not"]);
    for text in [r#"{"weight_map": {}}"#, r#"{"weight_map": 7}"#] {
        std::fs::write(&index, text).unwrap();
        says(&why(&index), &["index.json", "weight_map"]);
    }
    list(&good);
    // The same tensor twice, a shard of another kind, and one that is cut.
    let mut twice = half(true);
    let (name, tensor) = half(false).into_iter().next().unwrap();
    twice.insert(name.clone(), tensor);
    std::fs::write(at(second), file(&twice)).unwrap();
    says(&why(&index), &[second, &format!("'{name}'"), "another shard"]);
    std::fs::write(at(second), zip(&["archive/data.pkl"])).unwrap();
    says(&why(&index), &[second, "torch.load"]);
    std::fs::write(at(second), &shards[1][..shards[1].len() - 1]).unwrap();
    says(&why(&index), &[second, "truncated"]);
    // Without their list they are no net.
    std::fs::remove_file(&index).unwrap();
    says(&why(folder.path()), &["shards", "model.safetensors.index.json"]);
}
