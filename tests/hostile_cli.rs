//! The program under arguments that make no sense, and the fuzzer that looks for more of them.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::path::Path;
use std::process::{Command, Output, Stdio};

fn run(folder: &Path, arguments: &[&str]) -> (i32, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_verilume"));
    told(command.current_dir(folder).args(arguments).stdin(Stdio::null()).output().unwrap())
}

/// Exit code and standard error.
fn told(output: Output) -> (i32, String) {
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!message.contains("panicked"), "{message}");
    (output.status.code().unwrap(), message)
}

#[test]
fn absurd_numbers_of_calls_and_pictures_are_refused_with_a_sentence() {
    let folder = tempfile::tempdir().unwrap();
    for command in ["bench", "profile"] {
        let measure = |more: &[&str]| {
            let steady: &[&str] = if more[0].starts_with("--repeat") { &[] } else { &["--repeat", "1"] };
            let net = ["--random-weights", "resnet20", "--threads", "1", "--device", "cpu"];
            run(folder.path(), &[&[command], &net[..], steady, more].concat())
        };
        // What a list of so many times would take, no memory holds.
        for number in ["1000000000000000000", "18446744073709551616", "10001", "0", "-1", "2e15"] {
            let (code, message) = measure(&[&format!("--repeat={number}")]);
            let sentence = format!("'{number}' is not a number of calls from 1 to 10000");
            assert!(code == 2 && message.contains(&sentence), "{command}: {message}");
        }
        for number in ["2000000000000000", "18446744073709551615"] {
            for quiet in [&[][..], &["-q"]] {
                let (code, message) = measure(&[&["--batch", number], quiet].concat());
                assert!(
                    code == 2 && message.contains(&format!("a batch of {number} pictures")),
                    "{command}: {message}"
                );
                assert!(message.contains("do not fit into"), "{command}: {message}");
            }
        }
        // 24 KiB a picture with its map.
        let (code, message) = measure(&["--batch", "1000", "--memory", "20MiB"]);
        assert!(code == 2 && message.contains("do not fit into the 20.0 MiB"), "{command}: {message}");
        let (code, message) = measure(&["--batch", "2e15"]);
        assert!(code == 2 && message.contains("'2e15' is not a whole number"), "{command}: {message}");
    }
}

/// A program that lists methods as the real one does and otherwise does `wrong`.
#[cfg(unix)]
fn impostor(folder: &Path, wrong: &str) -> std::path::PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let path = folder.join("impostor");
    let real = env!("CARGO_BIN_EXE_verilume");
    let text = format!("#!/bin/sh\ncase \"$*\" in *--list-*) exec '{real}' \"$@\";; esac\n{wrong}\n");
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

#[cfg(unix)]
#[needs::python3]
#[test]
fn the_fuzzer_finds_what_is_planted() {
    for (wrong, finding) in [
        ("echo ok >&2; exit 3", "exit code 3"),
        ("kill -SEGV $$", "signal 11"),
        ("echo \"thread 'main' panicked at x\" >&2; exit 2", "panicked at"),
        ("exit 2", "a failure without a word"),
        ("printf 'name \\033[31m\\n' >&2; exit 2", "control character in standard errors"),
        ("head -c 2000 /dev/zero | tr '\\0' x >&2; exit 2", "a line of standard error without bound"),
        ("echo '{\"error\": null, \"score\": NaN}'; exit 0", "a line that is not JSON"),
        ("echo '{\"error\": \"no\"}'; exit 0", "a code that contradicts the records"),
        (
            "echo '{\"error\": null, \"score\": 1.5, \"files\": [\"no.npy\"]}'",
            "a file that was promised and is not there",
        ),
        ("sleep 100", "hang"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("out");
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/fuzz");
        let mut fuzz = Command::new("python3");
        fuzz.args([script.as_os_str(), "--binary".as_ref(), impostor(folder.path(), wrong).as_os_str()]);
        fuzz.args(["--out".as_ref(), out.as_os_str()]);
        fuzz.args("--only methods --cases 1 --seconds 600 --limit 2 --jobs 1".split(' '));
        let output = fuzz.output().unwrap();
        let table = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(output.status.code(), Some(1), "{wrong}: {table}");
        assert!(table.contains(&format!("methods: {finding}")), "{wrong}: {table}");
        assert!(table.lines().last().unwrap().starts_with("fuzz: 0 passed, 1 failed"), "{table}");
        // It can be repeated.
        let find = out.join("finds/methods-1-0");
        assert!(std::fs::read_to_string(find.join("why")).unwrap().contains(finding), "{wrong}");
        let again = Command::new("sh").arg(find.join("again")).output();
        if finding != "hang" {
            assert!(String::from_utf8_lossy(&again.unwrap().stdout).contains("code "), "{wrong}");
        }
    }
}
