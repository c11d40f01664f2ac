//! What is public is decided: docs/public-items.txt lists it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::path::Path;

/// Names that `pub use a::{b, c as d};` brings in.
fn used(list: &str, names: &mut Vec<String>) {
    let (mut depth, mut start) = (0, 0);
    let mut parts = Vec::new();
    for (i, c) in list.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&list[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    parts.push(&list[start..]);
    for part in parts.into_iter().map(str::trim).filter(|part| !part.is_empty()) {
        match part.split_once('{') {
            Some((_, inner)) => used(inner.trim_end().trim_end_matches('}'), names),
            None => {
                let name = part.rsplit(" as ").next().unwrap().rsplit("::").next().unwrap();
                names.push(name.trim().to_owned());
            }
        }
    }
}

/// Items of the file of a public module, and of the public modules in it.
fn items(file: &Path, module: &str, all: &mut BTreeSet<String>) {
    let text = std::fs::read_to_string(file).unwrap();
    // Tests stand at the end of a file.
    let library = text.split("#[cfg(test)]\nmod ").next().unwrap();
    for (at, _) in library.match_indices("\npub ") {
        let statement = &library[at + "\npub ".len()..];
        let mut words = statement.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty());
        let qualifiers = ["const", "unsafe", "async"];
        let kind = words.next().unwrap();
        let (kind, name) = match words.next().unwrap() {
            "fn" if qualifiers.contains(&kind) => ("fn", words.next().unwrap()),
            name => (kind, name),
        };
        match kind {
            "use" => {
                let mut names = Vec::new();
                used(statement[4..].split(';').next().unwrap(), &mut names);
                all.extend(names.iter().map(|name| format!("{module}::{name} use")));
            }
            "mod" => {
                all.insert(format!("{module}::{name} mod"));
                let folder = match file.file_name().unwrap().to_str().unwrap() {
                    "lib.rs" | "mod.rs" => file.parent().unwrap().to_owned(),
                    _ => file.with_extension(""),
                };
                let places = [folder.join(format!("{name}.rs")), folder.join(name).join("mod.rs")];
                if let Some(place) = places.iter().find(|place| place.exists()) {
                    items(place, &format!("{module}::{name}"), all);
                }
            }
            _ => {
                all.insert(format!("{module}::{name} {kind}"));
            }
        }
    }
}

#[test]
fn what_is_public_is_listed() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut all = BTreeSet::new();
    items(&root.join("src/lib.rs"), "verilume", &mut all);
    assert!(all.len() > 200 && all.contains("verilume::session::Session struct"), "the items were not found");
    let text = all.into_iter().collect::<Vec<_>>().join("\n") + "\n";
    let path = root.join("docs/public-items.txt");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let listed = std::fs::read_to_string(&path).unwrap_or_default();
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<BTreeSet<_>>();
    let (is, was) = (lines(&text), lines(&listed));
    let new: Vec<_> = is.difference(&was).collect();
    let gone: Vec<_> = was.difference(&is).collect();
    assert!(
        new.is_empty() && gone.is_empty(),
        "public but not in docs/public-items.txt: {new:?}; listed but not public: {gone:?}; is it meant? \
         UPDATE_DOCS=1 cargo test --test public"
    );
}
