//! The library's tests of trust: which are meant, and what they are, as text and as JSON.

use std::fmt::Write;

use anyhow::Result;
use serde_json::json;

use crate::reliability::check::{self, Panel, Test, Threshold, registry};
use crate::report::check::TestUsed as Described;
use crate::report::figures::chosen;

/// The tests that `names` name; all when there is none.
pub fn named(names: &[String]) -> Result<Vec<&'static Test>> {
    if names.is_empty() {
        return Ok(registry().iter().collect());
    }
    let mut tests: Vec<&'static Test> = Vec::new();
    for name in names {
        let test = check::test(name).map_err(|e| e.within("--tests"))?;
        if !tests.iter().any(|t| t.id == test.id) {
            tests.push(test);
        }
    }
    Ok(tests)
}

/// A test as reports have it.
pub fn described(test: &Test) -> Described {
    Described { id: test.id.into(), title: test.title.into(), question: test.question.into(), paper: test.paper.into() }
}

/// What a panel shows, under its picture: the title of its test.
pub fn caption(panel: &Panel) -> &'static str {
    let test = registry().iter().find(|test| Some(test.id) == panel.test);
    test.map_or("Original", |test| test.title)
}

/// `at most 0.5`.
pub fn bound(threshold: Threshold) -> String {
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
            "\n  {}: {}\n      {}\n      To pass: {}, {}\n      {}\n",
            test.id,
            test.title,
            test.question,
            bound(test.threshold),
            test.measure,
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
