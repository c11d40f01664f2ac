//! The registry of methods as text and as JSON.

use std::fmt::Write;

use serde_json::{Value, json};

use crate::method::{self, Parameter};
use crate::reliability::attack;
use crate::reliability::metric::{self, Better, Needs};

/// One line per parameter.
fn parameters_text(parameters: &[Parameter]) -> String {
    let line = |p: &Parameter| {
        let unit = if p.unit.is_empty() { String::new() } else { format!(" [{}]", p.unit) };
        format!("      {}={}{unit}  {}\n", p.key, p.default, p.help)
    };
    parameters.iter().map(line).collect()
}

fn parameters_json(parameters: &[Parameter]) -> Value {
    let one = |p: &Parameter| json!({ "key": p.key, "unit": p.unit, "default": p.default, "help": p.help });
    parameters.iter().map(one).collect()
}

/// Every method with its paper and parameters, for `--help` and `--list-methods`.
pub fn methods_text() -> String {
    let mut text = String::from("METHODS\n");
    for entry in method::registry() {
        let aliases = if entry.aliases.is_empty() { String::new() } else { format!(" ({})", entry.aliases.join(", ")) };
        let _ = writeln!(text, "\n  {}{aliases}: {}", entry.id, entry.title);
        let promises = entry.promised();
        let draws = entry.drawn().map_or_else(String::new, |drawn| format!("Random: {drawn}"));
        let passes = format!("Passes: {}", entry.passes);
        let promises = if promises.is_empty() { String::new() } else { format!("Promise: {}", promises.join("; ")) };
        let caution = if entry.caution.is_empty() { String::new() } else { format!("Caution: {}", entry.caution) };
        for line in
            [entry.summary, entry.paper, &passes, &promises, &draws, &caution].into_iter().filter(|l| !l.is_empty())
        {
            let _ = writeln!(text, "      {line}");
        }
        text += &parameters_text(entry.parameters);
    }
    text
}

/// The same as one JSON array.
pub fn methods_json() -> Value {
    let methods = method::registry().iter().map(|e| {
        json!({
            "id": e.id, "aliases": e.aliases, "title": e.title, "summary": e.summary, "paper": e.paper,
            "passes": e.passes, "promises": e.promised(), "draws": e.drawn(),
            "caution": e.caution, "parameters": parameters_json(e.parameters),
        })
    });
    methods.collect()
}

/// Every metric with its paper, numbers and parameters.
pub fn metrics_text() -> String {
    let mut text = String::from("METRICS\n");
    for entry in metric::registry() {
        let _ = writeln!(text, "\n  {}: {}", entry.id, entry.title);
        let outputs: Vec<String> = entry.outputs.iter().map(|o| format!("{} ({})", o.key, better(o.better))).collect();
        let outputs = format!("Numbers: {}", outputs.join(", "));
        let needs = needs(entry.needs).map(|what| format!("Needs: {what}"));
        for line in [entry.summary, entry.paper, &outputs].into_iter().chain(needs.as_deref()) {
            let _ = writeln!(text, "      {line}");
        }
        text += &parameters_text(entry.parameters);
    }
    text
}

/// The same as one JSON array.
pub fn metrics_json() -> Value {
    let metrics = metric::registry().iter().map(|e| {
        let outputs: Vec<_> = e.outputs.iter().map(|o| json!({ "key": o.key, "better": better(o.better) })).collect();
        json!({
            "id": e.id, "title": e.title, "summary": e.summary, "paper": e.paper, "outputs": outputs,
            "needs": needs(e.needs), "parameters": parameters_json(e.parameters),
        })
    });
    metrics.collect()
}

fn better(which: Better) -> &'static str {
    match which {
        Better::Lower => "lower is better",
        Better::Higher => "higher is better",
        Better::Neither => "describes",
    }
}

fn needs(what: Needs) -> Option<&'static str> {
    match what {
        Needs::Maps => None,
        Needs::Labels => Some("true classes"),
        Needs::Regions => Some("boxes or mosaics"),
        Needs::Mosaic => Some("mosaics"),
    }
}

/// Every attack with its paper and parameters, for `--help` and `--list-attacks`.
pub fn attacks_text() -> String {
    let mut text = String::from("ATTACKS\n");
    for entry in attack::registry() {
        let _ = writeln!(text, "\n  {}: {}\n      {}\n      {}", entry.id, entry.title, entry.summary, entry.paper);
        text += &parameters_text(entry.parameters);
    }
    text
}

/// The same as one JSON array.
pub fn attacks_json() -> Value {
    let attacks = attack::registry().iter().map(|e| {
        let kind = match e.kind {
            attack::AttackKind::Prediction => "prediction",
            attack::AttackKind::Map => "map",
        };
        json!({
            "id": e.id, "title": e.title, "summary": e.summary, "paper": e.paper, "changes": kind,
            "parameters": parameters_json(e.parameters),
        })
    });
    attacks.collect()
}
