//! The registry of methods as text and as JSON.

use std::fmt::Write;

use serde_json::json;
use verilume::method;

/// Every method with its paper and parameters, for `--help` and `--list-methods`.
pub fn methods_text() -> String {
    let mut text = String::from("METHODS\n");
    for entry in method::registry() {
        let aliases = if entry.aliases.is_empty() { String::new() } else { format!(" ({})", entry.aliases.join(", ")) };
        let _ = writeln!(text, "\n  {}{aliases}\n      {}\n      {}", entry.id, entry.summary, entry.paper);
        for p in entry.parameters {
            let unit = if p.unit.is_empty() { String::new() } else { format!(" [{}]", p.unit) };
            let _ = writeln!(text, "      {}={}{unit}  {}", p.key, p.default, p.help);
        }
    }
    text
}

/// The same as one JSON array.
pub fn methods_json() -> serde_json::Value {
    let methods = method::registry().iter().map(|e| {
        let parameters: Vec<_> = e
            .parameters
            .iter()
            .map(|p| json!({ "key": p.key, "unit": p.unit, "default": p.default, "help": p.help }))
            .collect();
        json!({
            "id": e.id, "aliases": e.aliases, "title": e.title, "summary": e.summary, "paper": e.paper,
            "parameters": parameters,
        })
    });
    methods.collect()
}
