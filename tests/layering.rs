//! Imports run one way, and what is allowed in few places stays there.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::{Path, PathBuf};

/// Modules from the lowest up, with what each may import.
const LAYERS: &[(&str, &[&str])] = &[
    ("error", &[]),
    ("near", &[]),
    ("score", &[]),
    ("memory", &[]),
    ("cancel", &["error"]),
    ("text", &["error"]),
    ("tensor", &["error"]),
    ("optimiser", &[]),
    ("random", &["error", "tensor"]),
    ("image", &["error", "tensor"]),
    ("graph", &["error", "tensor"]),
    ("model", &["error", "near", "text", "tensor", "graph", "image"]),
    ("program", &["error", "tensor", "graph"]),
    ("rule", &["error", "tensor", "graph", "program"]),
    ("device", &["cancel", "error", "text", "tensor", "random", "graph", "program", "rule"]),
    ("engine", &["cancel", "error", "memory", "tensor", "random", "graph", "program", "rule", "device"]),
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
            "cancel",
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
    (
        "session",
        &[
            "cancel", "error", "tensor", "score", "image", "graph", "model", "program", "engine", "map", "method",
            "report",
        ],
    ),
    (
        "data",
        &[
            "error",
            "memory",
            "score",
            "text",
            "tensor",
            "random",
            "image",
            "model",
            "method",
            "map",
            "render",
            "reliability",
            "report",
            "session",
        ],
    ),
    (
        "run",
        &[
            "cancel",
            "error",
            "score",
            "text",
            "tensor",
            "image",
            "graph",
            "model",
            "program",
            "device",
            "engine",
            "map",
            "render",
            "method",
            "reliability",
            "report",
            "session",
            "data",
        ],
    ),
];

/// Modules that may import everything.
const ON_ALL: [&str; 3] = ["bin", "cli", "lib"];

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

/// Paths that a text names, its lists in braces spelled out, each as its parts.
fn paths(text: &str) -> Vec<Vec<String>> {
    let library = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
    let bare: String = code(library).map(|(_, line)| line.to_owned() + "\n").collect();
    let mut found = Vec::new();
    for start in ["crate::", "super::"] {
        for (at, _) in bare.match_indices(start) {
            let before = bare[..at].chars().next_back();
            if before.is_none_or(|c| !c.is_alphanumeric() && !matches!(c, '_' | ':' | '$')) {
                spell_out(&bare[at..], &[], &mut found);
            }
        }
    }
    found
}

/// Spells out the path at the start of `text`, which follows `head`; what is left of the text.
fn spell_out<'t>(text: &'t str, head: &[String], found: &mut Vec<Vec<String>>) -> &'t str {
    let text = text.trim_start();
    if let Some(mut list) = text.strip_prefix('{') {
        loop {
            list = list.trim_start();
            if let Some(rest) = list.strip_prefix('}') {
                return rest;
            }
            let rest = spell_out(list, head, found);
            let rest = rest.trim_start();
            let Some(end) = rest.find([',', '}']).filter(|_| rest.len() < list.len()) else { return rest };
            list = rest[end..].strip_prefix(',').unwrap_or(&rest[end..]);
        }
    }
    let length = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    let path = [head, &[text[..length].to_owned()]].concat();
    match text[length..].strip_prefix("::") {
        Some(rest) if rest.starts_with(|c: char| c.is_alphabetic() || matches!(c, '_' | '{')) => {
            spell_out(rest, &path, found)
        }
        _ => {
            found.push(path);
            &text[length..]
        }
    }
}

/// Circles that stay, with the reason.
const CIRCLES: &[(&str, &str)] = &[];

#[test]
fn files_of_a_folder_import_in_no_circle() {
    let sources = sources();
    let stem = |path: &str| path.trim_end_matches(".rs").trim_end_matches("/mod").to_owned();
    let modules: std::collections::BTreeSet<String> = sources.iter().map(|s| stem(&s.path)).collect();
    // By folder, which of its members (files and folders) names which.
    let mut edges: std::collections::BTreeMap<String, std::collections::BTreeSet<(String, String)>> =
        Default::default();
    for source in &sources {
        let here: Vec<String> = stem(&source.path).split('/').map(str::to_owned).collect();
        for path in paths(&source.text) {
            let mut base: Vec<String> = if path[0] == "crate" { Vec::new() } else { here.clone() };
            for part in path.iter().skip(usize::from(path[0] == "crate")) {
                if part == "super" {
                    base.pop();
                } else {
                    base.push(part.clone());
                }
            }
            // The longest part of the path that is a module.
            let module = (1..=base.len()).rev().map(|n| base[..n].to_vec()).find(|m| modules.contains(&m.join("/")));
            let Some(module) = module else { continue };
            let shared = here.iter().zip(&module).take_while(|(a, b)| a == b).count();
            if let (Some(from), Some(to)) = (here.get(shared), module.get(shared)) {
                let folder = here[..shared].join("/");
                edges.entry(folder).or_default().insert((from.clone(), to.clone()));
            }
        }
    }
    assert!(edges.values().map(|e| e.len()).sum::<usize>() > 300, "the imports were not found");
    let mut failures = Vec::new();
    for (folder, edges) in &edges {
        let reaches = |from: &str, to: &str| {
            let (mut seen, mut next) = (std::collections::BTreeSet::new(), vec![from.to_owned()]);
            while let Some(at) = next.pop() {
                for (_, b) in edges.iter().filter(|(a, _)| *a == at) {
                    if b == to {
                        return true;
                    }
                    if seen.insert(b.clone()) {
                        next.push(b.clone());
                    }
                }
            }
            false
        };
        for (a, b) in edges.iter().filter(|(a, b)| a < b) {
            let circle = format!("{folder}: {a}, {b}");
            if reaches(b, a) && !CIRCLES.iter().any(|(allowed, _)| *allowed == circle) {
                failures.push(circle);
            }
        }
    }
    assert!(failures.is_empty(), "files that import each other in a circle:\n{}", failures.join("\n"));
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
    only_in(&["anyhow", "clap", "indicatif"], &["cli/"]);
}

#[test]
fn unsafe_code_is_in_devices_and_memory_mapping() {
    only_in(&["unsafe"], &["device/", "model/mod.rs"]);
}

#[test]
fn the_environment_is_read_for_the_gpu_alone() {
    let words = ["env::var", "env::var_os", "env::vars", "env::vars_os", "env::temp_dir", "env::home_dir"];
    only_in(&words, &["cli/", "device/cuda"]);
}

/// Parallel iterators outside a pool would start rayon's own.
#[test]
fn threads_are_started_where_they_are_asked_for() {
    only_in(&["thread::spawn", "thread::Builder", "thread::scope"], &["cli/", "run/keeper.rs"]);
    only_in(&["ThreadPoolBuilder"], &["device/threads.rs"]);
    only_in(
        &["par_iter", "into_par_iter", "rayon::spawn", "rayon::join", "rayon::scope"],
        &["device/threads.rs", "device/cpu/mod.rs", "device/cpu/patches.rs"],
    );
}

#[test]
fn the_library_has_no_build_script() {
    // Every program that uses the library would run it. What tests need is looked for in `tests/needs`.
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let manifest = std::fs::read_to_string(root.join("Cargo.toml")).unwrap();
    assert!(
        !root.join("build.rs").exists() && !manifest.contains("build-dependencies") && !manifest.contains("build =")
    );
}

#[test]
fn the_library_prints_nothing() {
    let mut failures = Vec::new();
    for source in sources().iter().filter(|s| !s.path.starts_with("cli/")) {
        // Tests stand at the end of a file.
        let library = source.text.split("#[cfg(test)]\nmod ").next().unwrap();
        for (number, line) in code(library) {
            if ["println!", "print!", "dbg!", "stdout()", "stderr()"].iter().any(|w| line.contains(w)) {
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
