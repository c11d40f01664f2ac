//! Imports run one way, and what is allowed in few places stays there.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::{Path, PathBuf};

/// Modules from the lowest up, with what each may import.
const LAYERS: &[(&str, &[&str])] = &[
    ("error", &[]),
    ("near", &[]),
    ("score", &[]),
    ("memory", &[]),
    ("text", &["error"]),
    ("tensor", &["error"]),
    ("optimiser", &[]),
    ("random", &["error", "tensor"]),
    ("image", &["error", "tensor"]),
    ("graph", &["error", "tensor"]),
    ("model", &["error", "near", "text", "tensor", "graph", "image"]),
    ("program", &["error", "tensor", "graph"]),
    ("rule", &["error", "tensor", "graph", "program"]),
    ("device", &["error", "text", "tensor", "random", "graph", "program", "rule"]),
    ("engine", &["error", "memory", "tensor", "random", "graph", "program", "rule", "device"]),
    ("perturb", &["error", "tensor", "random", "image", "graph", "program", "rule", "device", "engine"]),
    ("map", &["error", "tensor"]),
    ("render", &["error", "tensor", "image", "map"]),
    (
        "method",
        &[
            "error",
            "near",
            "tensor",
            "optimiser",
            "random",
            "image",
            "graph",
            "program",
            "rule",
            "device",
            "engine",
            "perturb",
            "map",
        ],
    ),
    (
        "reliability",
        &[
            "error",
            "near",
            "tensor",
            "score",
            "optimiser",
            "random",
            "image",
            "graph",
            "program",
            "rule",
            "device",
            "engine",
            "perturb",
            "map",
            "method",
        ],
    ),
    ("report", &["error", "image", "map", "render", "reliability"]),
];

/// Modules that may import everything.
const ON_ALL: [&str; 2] = ["bin", "lib"];

struct Source {
    /// Below `src/`, with `/`.
    path: String,
    /// First component without `.rs`.
    module: String,
    text: String,
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut folders = vec![root.clone()];
    let mut files: Vec<PathBuf> = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    let source = |path: PathBuf| {
        let parts: Vec<String> =
            path.strip_prefix(&root).unwrap().iter().map(|p| p.to_string_lossy().into_owned()).collect();
        let module = parts[0].trim_end_matches(".rs").to_string();
        Source { path: parts.join("/"), module, text: std::fs::read_to_string(&path).unwrap() }
    };
    let sources: Vec<Source> = files.into_iter().map(source).collect();
    assert!(sources.len() > 20, "the sources were not found");
    sources
}

/// Lines of code with their numbers: no comments.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines()
        .enumerate()
        .map(|(i, line)| (i + 1, line.trim_start()))
        .filter(|(_, line)| !line.starts_with("//"))
        .map(|(i, line)| (i, line.split(" // ").next().unwrap_or(line)))
}

/// Identifiers that follow `crate::`, whether one or a list in braces.
fn imports(line: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, _) in line.match_indices("crate::") {
        let word = |s: &str| s.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
        let rest = &line[at + "crate::".len()..];
        match rest.strip_prefix('{') {
            Some(list) => found.extend(list.split(',').map(|part| word(part.trim()))),
            None => found.push(word(rest)),
        }
    }
    found
}

#[test]
fn imports_run_one_way() {
    let mut failures = Vec::new();
    let mut seen = 0;
    for source in sources() {
        if ON_ALL.contains(&source.module.as_str()) {
            continue;
        }
        let Some((_, allowed)) = LAYERS.iter().find(|(name, _)| *name == source.module) else {
            failures.push(format!("{}: module '{}' has no place among the layers", source.path, source.module));
            continue;
        };
        for (number, line) in code(&source.text) {
            for import in imports(line) {
                // Re-exported at the root.
                let import =
                    if ["Error", "ErrorKind", "Result"].contains(&import.as_str()) { "error" } else { &import };
                seen += 1;
                if import != source.module && !allowed.contains(&import) {
                    failures.push(format!("{}:{number}: {} imports {import}", source.path, source.module));
                }
            }
        }
    }
    assert!(seen > 100, "only {seen} imports were found");
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn layers_are_ordered() {
    for (i, (name, allowed)) in LAYERS.iter().enumerate() {
        for below in *allowed {
            assert!(LAYERS[..i].iter().any(|(n, _)| n == below), "{name} imports {below}, which does not lie below it");
        }
    }
}

/// Each `word` only in files whose path begins with one of `places`.
fn only_in(words: &[&str], places: &[&str]) {
    let mut failures = Vec::new();
    for source in sources().iter().filter(|s| !places.iter().any(|p| s.path.starts_with(p))) {
        for (number, line) in code(&source.text) {
            let is_word = |at: usize, word: &str| {
                let part = |c: char| c.is_alphanumeric() || c == '_';
                !line[..at].ends_with(part) && !line[at + word.len()..].starts_with(part)
            };
            for word in words {
                if line.match_indices(word).any(|(at, _)| is_word(at, word)) {
                    failures.push(format!("{}:{number}: {word} belongs in {}", source.path, places.join(", ")));
                }
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn the_gpu_is_known_in_one_place() {
    only_in(&["cudarc", "libloading"], &["device/cuda"]);
}

#[test]
fn the_terminal_is_known_in_one_place() {
    only_in(&["anyhow", "clap", "indicatif"], &["bin/"]);
}

#[test]
fn unsafe_code_is_in_devices_and_memory_mapping() {
    only_in(&["unsafe"], &["device/", "model/mod.rs"]);
}

#[test]
fn the_library_prints_nothing() {
    let mut failures = Vec::new();
    for source in sources().iter().filter(|s| !s.path.starts_with("bin/")) {
        // Tests stand at the end of a file.
        let library = source.text.split("#[cfg(test)]\nmod ").next().unwrap();
        for (number, line) in code(library) {
            if ["println!", "print!", "dbg!"].iter().any(|w| line.contains(w)) {
                failures.push(format!("{}:{number}: {line}", source.path));
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn files_can_be_read_in_one_sitting() {
    for source in sources() {
        let lines = source.text.lines().count();
        assert!(lines <= 900, "{} has {lines} lines", source.path);
    }
}
