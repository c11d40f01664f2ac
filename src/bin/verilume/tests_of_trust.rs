//! The library's tests of trust: which are meant, and what they are, as text and as JSON.

use std::fmt::Write;

use anyhow::{Result, bail};
use serde_json::json;
use verilume::reliability::check::{PanelKind, Test, Threshold, registry};
use verilume::report::check;
use verilume::report::figures::chosen;

/// The tests that `names` name; all when there is none.
pub fn named(names: &[String]) -> Result<Vec<&'static Test>> {
    if names.is_empty() {
        return Ok(registry().iter().collect());
    }
    let mut tests: Vec<&'static Test> = Vec::new();
    for name in names {
        let Some(test) = registry().iter().find(|test| test.id == name.as_str()) else {
            let all: Vec<&str> = registry().iter().map(|test| test.id).collect();
            bail!("--tests: there is no test '{name}'; there are {}", all.join(", "));
        };
        if !tests.iter().any(|t| t.id == test.id) {
            tests.push(test);
        }
    }
    Ok(tests)
}

/// A test as reports have it.
pub fn described(test: &Test) -> check::Test {
    check::Test {
        id: test.id.into(),
        title: test.title.into(),
        question: test.question.into(),
        paper: test.paper.into(),
    }
}

/// What a map is, under its picture.
pub fn kind(kind: PanelKind) -> &'static str {
    match kind {
        PanelKind::Original => "original",
        PanelKind::Shifted => "shifted",
        PanelKind::WrongClass => "wrong class",
        PanelKind::Randomised => "randomised",
        PanelKind::Noisy => "noisy",
        PanelKind::Attacked => "attacked",
    }
}

/// `at most 0.5`.
fn bound(threshold: Threshold) -> String {
    match threshold {
        Threshold::AtMost(bound) => format!("at most {}", chosen(bound)),
        Threshold::AtLeast(bound) => format!("at least {}", chosen(bound)),
    }
}

/// Every test, for `--list-tests`.
pub fn text() -> String {
    let mut text = String::from("TESTS\n");
    for test in registry() {
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "\n  {}: {}\n      {}\n      Passes with: {}, {}\n      {}\n",
            test.id,
            test.title,
            test.question,
            test.measure,
            bound(test.threshold),
            test.paper
        );
    }
    text
}

/// The same as one JSON array.
pub fn json() -> serde_json::Value {
    let one = |test: &Test| {
        json!({
            "id": test.id, "title": test.title, "question": test.question, "paper": test.paper,
            "measure": test.measure, "threshold": test.threshold,
        })
    };
    registry().iter().map(one).collect()
}
