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
    says(&refused(b"PK\x03\x04archive/data.pkl".to_vec()), &["pickled"]);
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
    let error = Model::open(folder.path(), None).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Model);
    says(&error.to_string(), &["folder", folder.path().to_str().unwrap()]);
    let absent = folder.path().join("absent.safetensors");
    assert_eq!(Model::open(&absent, None).unwrap_err().kind(), ErrorKind::Io);
    let empty = folder.path().join("empty.safetensors");
    std::fs::write(&empty, []).unwrap();
    let error = Model::open(&empty, None).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Model);
    says(&error.to_string(), &["empty.safetensors", "the file is empty"]);
}
