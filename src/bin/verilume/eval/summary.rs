//! What the lines come to: means, intervals, differences, and the table of them.

use comfy_table::{CellAlignment, Table, presets};
use verilume::map::showing_nothing;
use verilume::reliability::bootstrap::{Bootstrap, Estimate};
use verilume::report::eval::{Asked, Difference, Direction, Evaluated, Score, Summary};

use super::metrics::Measure;
use crate::said::Said;

/// The net's accuracy, then every method's scores, method after method, in the order of the metrics.
pub fn scores(
    lines: &[Evaluated],
    methods: &[Asked],
    metrics: &[Measure],
    bootstrap: &Bootstrap,
    said: &Said,
) -> verilume::Result<Vec<Score>> {
    let right: Vec<f64> = lines.iter().filter_map(|l| l.correct).map(|c| f64::from(u8::from(c))).collect();
    let accuracy = bootstrap.mean(&right)?;
    let mut scores = vec![Score {
        method: None,
        metric: None,
        output: "accuracy".into(),
        better: Direction::Higher,
        mean: accuracy.map(|e| e.mean),
        n: accuracy.map_or(0, |e| e.n),
        estimate: accuracy,
        failed: lines.iter().filter(|l| l.error.is_some()).count(),
        difference: None,
        assumed: said.all_assumed(),
        warnings: said.all(),
    }];
    let column = |method: &Asked, name: &str| -> Vec<Option<f64>> {
        lines.iter().map(|l| l.methods.get(&method.id)?.readings.get(name).copied().flatten()).collect()
    };
    for (m, method) in methods.iter().enumerate() {
        for metric in metrics {
            let failed = lines.iter().filter_map(|l| l.methods.get(&method.id));
            let failed = failed.filter(|of| of.error.is_some() || of.errors.contains_key(&metric.id)).count();
            for output in &metric.columns {
                let values = column(method, &output.name);
                let difference = match methods.first() {
                    Some(first) if m > 0 => Some(Difference {
                        against: first.id.clone(),
                        estimate: bootstrap.difference(&values, &column(first, &output.name))?,
                    }),
                    _ => None,
                };
                let estimate = bootstrap.mean(&values.into_iter().flatten().collect::<Vec<f64>>())?;
                scores.push(Score {
                    method: Some(method.id.clone()),
                    metric: Some(metric.id.clone()),
                    output: output.name.clone(),
                    better: output.better,
                    mean: estimate.map(|e| e.mean),
                    n: estimate.map_or(0, |e| e.n),
                    estimate,
                    failed,
                    difference,
                    assumed: Vec::new(),
                    warnings: Vec::new(),
                });
            }
        }
    }
    Ok(scores)
}

/// The table for people: a row a number, a column a method.
pub fn table(summary: &Summary, lines: &[Evaluated]) -> String {
    let mut text = String::new();
    let share = |n: usize| if n == 1 { "1 picture".to_owned() } else { format!("{n} pictures") };
    let kind = if summary.kind == "pictures" {
        share(summary.pictures)
    } else {
        format!("{} {}", summary.pictures, summary.kind)
    };
    let failed = if summary.failed > 0 { format!(", {} of them failed", summary.failed) } else { String::new() };
    text += &format!("{}, {kind}{failed}", summary.model.name);
    if let Some(accuracy) = summary.scores.first().and_then(|s| s.estimate.as_ref()) {
        text += &format!(", accuracy {}", cell(Some(accuracy)));
    }
    text += "\n\n";
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    let heads = std::iter::once(String::new()).chain(summary.methods.iter().map(|m| m.id.clone()));
    table.set_header(heads.collect::<Vec<_>>());
    let mut starred = false;
    let of = |id: &String| summary.scores.iter().filter(|s| s.method.as_ref() == Some(id)).collect();
    let rows: Vec<Vec<&Score>> = summary.methods.iter().map(|m| of(&m.id)).collect();
    for (r, head) in rows.first().into_iter().flatten().enumerate() {
        let arrow = match head.better {
            Direction::Higher => " ↑",
            Direction::Lower => " ↓",
            Direction::Neither => "",
        };
        let mut row = vec![format!("{}{arrow}", head.output)];
        for scores in &rows {
            let Some(score) = scores.get(r) else { continue };
            let difference = score.difference.as_ref().and_then(|d| d.estimate.as_ref());
            let star = match difference.map(|d| (d.low, d.high)) {
                Some((Some(low), Some(high))) if low > 0.0 || high < 0.0 => " *",
                _ => "",
            };
            starred |= !star.is_empty();
            let failed = if score.failed > 0 { format!(" ({} failed)", score.failed) } else { String::new() };
            row.push(format!("{}{star}{failed}", cell(score.estimate.as_ref())));
        }
        table.add_row(row);
    }
    let seconds = |method: &Asked| {
        let all: Vec<f64> = lines.iter().filter_map(|l| Some(l.methods.get(&method.id)?.seconds)).collect();
        if all.is_empty() { "-".to_owned() } else { number(all.iter().sum::<f64>() / all.len() as f64) }
    };
    table.add_row(
        std::iter::once("seconds a map".to_owned()).chain(summary.methods.iter().map(seconds)).collect::<Vec<_>>(),
    );
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Left);
    }
    let body = table.to_string();
    text += &body.lines().map(str::trim_end).collect::<Vec<_>>().join("\n");
    text += &format!("\n\nmean over pictures [{:.0} % bootstrap interval]", 100.0 * summary.bootstrap.level);
    if let (true, Some(first)) = (starred, summary.methods.first()) {
        text += &format!("; * the interval of the paired difference from {} leaves 0 out", first.id);
    }
    for method in &summary.methods {
        for words in ["blank", "one position", "the same everywhere"] {
            let maps = || lines.iter().filter_map(|l| l.methods.get(&method.id)).filter(|of| of.error.is_none());
            match maps().filter(|of| showing_nothing(&of.notes) == Some(words)).count() {
                0 => {}
                n => text += &format!("\n{}: {n} of {} maps: {words}", method.id, maps().count()),
            }
        }
    }
    // Names alone do not say which of several settings stands where.
    let asked = summary.methods.iter().filter(|m| m.spec != m.id);
    asked.for_each(|m| text += &format!("\n{}: {}", m.id, m.spec));
    text
}

fn cell(estimate: Option<&Estimate>) -> String {
    match estimate {
        None => "-".into(),
        Some(Estimate { mean, low: Some(low), high: Some(high), .. }) => {
            format!("{} [{}, {}]", number(*mean), number(*low), number(*high))
        }
        Some(e) => number(e.mean),
    }
}

/// Three places behind the point, or three digits where that would say nothing.
fn number(v: f64) -> String {
    match v.abs() {
        0.0 => "0".into(),
        size if !(0.001..10_000.0).contains(&size) => format!("{v:.2e}"),
        size if size >= 100.0 => format!("{v:.1}"),
        _ => format!("{v:.3}"),
    }
}
