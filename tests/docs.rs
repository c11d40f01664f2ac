//! The guides agree with the code: `docs/methods.md` and `docs/metrics.md` are what the registries say, the README lists
//! every method, the dependencies are explained, and no relative link is broken.
//!
//! `UPDATE_DOCS=1 cargo test --test docs` rewrites both, but for the end of `docs/methods.md`: what rules do where papers
//! are silent, written by hand, and what other tests measured.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fmt::Write;
use std::path::{Path, PathBuf};

use verilume::method::{Entry, Parameter, registry};
use verilume::reliability::metric::{self, Better, Needs};

/// Heading of the first part of `docs/methods.md` that the registry does not say.
const BY_HAND: &str = "## Operations";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// Text of a table's cell.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

/// One method's section.
fn section(entry: &Entry) -> String {
    let mut out = format!("## {} (`{}`)\n\n", entry.title, entry.id);
    let mut fact = |name: &str, text: &str| {
        if !text.is_empty() {
            writeln!(out, "- **{name}**: {text}").unwrap();
        }
    };
    fact("Definition", entry.summary);
    fact("Paper", entry.paper);
    let aliases: Vec<String> = entry.aliases.iter().map(|a| format!("`{a}`")).collect();
    fact("Also named", &aliases.join(", "));
    fact("Passes a picture", entry.passes);
    let promises = entry.promised();
    fact("Promise", if promises.is_empty() { "none" } else { "" });
    fact("Promise", &promises.join("; "));
    fact("Random", &entry.drawn().unwrap_or_default());
    fact("Caution", entry.caution);
    out + &parameters(entry.parameters)
}

/// The table of an entry's parameters, or that there are none.
fn parameters(all: &[Parameter]) -> String {
    if all.is_empty() {
        return "- **Parameters**: none\n".into();
    }
    let mut out = String::from("\n| parameter | default | unit or choices | meaning |\n|---|---|---|---|\n");
    for p in all {
        writeln!(out, "| `{}` | `{}` | {} | {} |", p.key, p.default, cell(p.unit), cell(p.help)).unwrap();
    }
    out
}

/// All of `docs/metrics.md`.
fn metrics() -> String {
    let mut out = String::from(
        "# Metrics\n\n\
         <!-- Written by `UPDATE_DOCS=1 cargo test --test docs` from the registry in `src/reliability/metric`. Do not edit. -->\n\n\
         `f` is the target's logit unless said otherwise, `x` the preprocessed picture, `E` the map as the method computed it.\n\
         Where a metric wants one number a pixel, its parameter `reduce` says how channels are folded. A metric is written\n\
         `name` or `name:key=value,key=value`.\n\n\
         | metric | numbers | definition |\n|---|---|---|\n",
    );
    let numbers = |entry: &metric::MetricEntry| {
        let number = |o: &metric::Output| {
            let sign = match o.better {
                Better::Lower => " ↓",
                Better::Higher => " ↑",
                Better::Neither => "",
            };
            format!("`{}`{sign}", o.key)
        };
        entry.outputs.iter().map(number).collect::<Vec<_>>().join(", ")
    };
    for entry in metric::registry() {
        let link = anchor(&format!("{} (`{}`)", entry.title, entry.id));
        writeln!(out, "| [`{}`](#{link}) | {} | {} |", entry.id, numbers(entry), cell(entry.summary)).unwrap();
    }
    out.push_str("\n↓ lower is better, ↑ higher is better.\n");
    for entry in metric::registry() {
        let needs = match entry.needs {
            Needs::Maps => "maps",
            Needs::Labels => "the true class of each picture",
            Needs::Regions => "boxes of the explained class",
            Needs::Mosaic => "mosaics: cells of at least two classes a picture",
        };
        writeln!(out, "\n## {} (`{}`)\n", entry.title, entry.id).unwrap();
        writeln!(out, "- **Definition**: {}", entry.summary).unwrap();
        writeln!(out, "- **Paper**: {}", entry.paper).unwrap();
        writeln!(out, "- **Numbers**: {}", numbers(entry)).unwrap();
        writeln!(out, "- **Needs**: {needs}").unwrap();
        out.push_str(&parameters(entry.parameters));
    }
    out
}

#[test]
fn metrics_are_documented_as_registered() {
    let path = root().join("docs/metrics.md");
    let want = metrics();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, &want).unwrap();
    }
    let stale = read("docs/metrics.md") != want;
    assert!(!stale, "docs/metrics.md is not what the registry says; UPDATE_DOCS=1 cargo test --test docs rewrites it");
}

/// What the registry does not say, at the end of `docs/methods.md`.
fn by_hand() -> String {
    let text = read("docs/methods.md");
    text.find(BY_HAND).map_or(String::new(), |at| format!("\n{}", &text[at..]))
}

/// All of `docs/methods.md` that the registry says.
fn methods() -> String {
    let mut out = String::from(
        "# Methods\n\n\
         <!-- Written by `UPDATE_DOCS=1 cargo test --test docs` from the registry in `src/method`. Do not edit. -->\n\n\
         `f` is the explained score (the target's logit unless `--score` says otherwise), `x` the preprocessed picture,\n\
         `g = ∂f/∂x`, `∘` the product element by element, ⟨·⟩ the mean over positions.\n\n\
         Every map is raw: never rescaled, with its sign, in the shape the method computes. A method is written `name` or\n\
         `name:key=value,key=value`; a value that holds `,` or `=` stands in parentheses.\n\n\
         | method | definition | passes |\n|---|---|---|\n",
    );
    for entry in registry() {
        let (id, summary, passes) = (entry.id, cell(entry.summary), cell(entry.passes));
        writeln!(out, "| [`{id}`](#{}) | {summary} | {passes} |", anchor(&heading(entry))).unwrap();
    }
    for entry in registry() {
        write!(out, "\n{}", section(entry)).unwrap();
    }
    out
}

fn heading(entry: &Entry) -> String {
    format!("{} (`{}`)", entry.title, entry.id)
}

/// Anchor that a heading gets on GitHub.
fn anchor(heading: &str) -> String {
    let kept = heading.to_lowercase().replace(' ', "-");
    kept.chars().filter(|c| c.is_alphanumeric() || matches!(c, '-' | '_')).collect()
}

#[test]
fn methods_are_documented_as_registered() {
    let path = root().join("docs/methods.md");
    let want = methods() + &by_hand();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, &want).unwrap();
    }
    let stale = read("docs/methods.md") != want;
    assert!(!stale, "docs/methods.md is not what the registry says; UPDATE_DOCS=1 cargo test --test docs rewrites it");
}

#[test]
fn the_readme_lists_every_method_and_no_other() {
    let readme = read("README.md");
    let rows = readme.lines().skip_while(|l| !l.starts_with("| method |")).skip(2);
    let listed: Vec<&str> =
        rows.take_while(|l| l.starts_with('|')).map(|l| l.split('`').nth(1).expect("a method in backticks")).collect();
    let registered: Vec<&str> = registry().iter().map(|e| e.id).collect();
    assert_eq!(listed, registered, "the README's table of methods");
}

#[test]
fn every_dependency_is_explained() {
    let explained = read("docs/dependencies.md");
    let mut names = std::collections::BTreeSet::new();
    for manifest in ["Cargo.toml", "bindings/python/Cargo.toml"].map(read) {
        let mut section = "";
        for line in manifest.lines() {
            if line.starts_with('[') {
                section = line;
            } else if section.ends_with("dependencies]")
                && let Some((name, _)) = line.split_once('=')
                && name.trim() != "verilume"
            {
                let row = format!("| `{}` |", name.trim());
                assert!(explained.contains(&row), "docs/dependencies.md does not explain {}", name.trim());
                names.insert(name.trim().to_owned());
            }
        }
    }
    assert!(names.len() > 10, "the dependencies were not found in Cargo.toml");
    let rows = explained.lines().filter(|l| l.starts_with("| `")).count();
    assert_eq!(rows, names.len(), "docs/dependencies.md explains what Cargo.toml does not have");
}

/// Modules in the table of `docs/architecture.md`.
fn layers() -> Vec<String> {
    let text = read("docs/architecture.md");
    let rows = text.lines().skip_while(|l| !l.starts_with("| module |")).skip(2).take_while(|l| l.starts_with('|'));
    rows.map(|l| l.split('`').nth(1).expect("a module in backticks").to_owned()).collect()
}

#[test]
fn every_module_has_its_place_in_the_architecture() {
    let layers = layers();
    let library = read("src/lib.rs");
    let modules: Vec<&str> = library.lines().filter_map(|l| l.strip_prefix("pub mod ")?.strip_suffix(';')).collect();
    assert!(modules.len() > 10, "the modules were not found in src/lib.rs");
    for module in modules {
        assert!(layers.iter().any(|l| l == module), "docs/architecture.md does not place the module {module}");
    }
}

/// All Markdown files of the repository.
fn markdown(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        // Build output and hidden folders are not ours to check.
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            markdown(&path, found);
        } else if name.ends_with(".md") {
            found.push(path);
        }
    }
}

/// Targets of `[text](target)` outside code blocks.
fn links(text: &str) -> Vec<String> {
    let mut in_code = false;
    let mut found = Vec::new();
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
        } else if !in_code {
            found.extend(line.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(to, _)| to.to_owned()));
        }
    }
    found
}

/// Anchors of a file's headings.
fn anchors(text: &str) -> Vec<String> {
    let mut in_code = false;
    let mut found = Vec::new();
    for line in text.lines() {
        in_code ^= line.starts_with("```");
        if !in_code && line.starts_with('#') {
            found.push(anchor(line.trim_start_matches('#').trim()));
        }
    }
    found
}

#[test]
fn relative_links_lead_somewhere() {
    let mut files = Vec::new();
    markdown(root(), &mut files);
    assert!(files.len() > 5, "only {files:?}");
    let mut broken = Vec::new();
    let mut checked = 0;
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        for link in links(&text).into_iter().filter(|l| !l.contains("://") && !l.starts_with("mailto:")) {
            checked += 1;
            let (path, fragment) = link.split_once('#').unwrap_or((&link, ""));
            let target = if path.is_empty() { file.clone() } else { file.parent().unwrap().join(path) };
            let leads = target.exists()
                && (fragment.is_empty()
                    || anchors(&std::fs::read_to_string(&target).unwrap()).iter().any(|a| a == fragment));
            if !leads {
                broken.push(format!("{}: {link}", file.display()));
            }
        }
    }
    assert!(checked > 10, "only {checked} links were found");
    assert!(broken.is_empty(), "broken links:\n{}", broken.join("\n"));
}
