//! The registry of methods as text and as JSON.

use std::collections::BTreeMap;
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

/// The parameters in a method's canonical text `name:key=value,key=(nested,value)`.
pub fn parameters(spec: &str) -> BTreeMap<String, String> {
    let Some((_, list)) = spec.split_once(':') else { return BTreeMap::new() };
    let mut depth = 0usize;
    let parts = list.split(|c| {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        c == ',' && depth == 0
    });
    let pairs = parts.filter_map(|part| part.split_once('='));
    pairs.map(|(key, value)| (key.to_owned(), bare(value).to_owned())).collect()
}

/// A value without the parentheses around all of it.
fn bare(value: &str) -> &str {
    value.strip_prefix('(').and_then(|v| v.strip_suffix(')')).unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nested_values_stay_whole() {
        let found = parameters("decoy:base=(smoothgrad:n=8,sigma=0.1),patch=3");
        assert_eq!(found["base"], "smoothgrad:n=8,sigma=0.1");
        assert_eq!((found["patch"].as_str(), found.len()), ("3", 2));
    }
}
