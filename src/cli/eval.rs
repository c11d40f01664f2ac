//! `verilume eval`: opens the net, goes through the data, sums up.

use anyhow::Result;
use comfy_table::CellAlignment;

use crate::cli::args::EvalArgs;
use crate::cli::exit;
use crate::cli::exit::ExitCode;
use crate::cli::listing;
use crate::cli::plan;
use crate::cli::records::json;
use crate::cli::tables::plain;
use crate::cli::talk::{InputProgress, StandardOutput};
use crate::map::showing_nothing;
use crate::reliability::bootstrap::Estimate;
use crate::report::Versioned;
use crate::report::eval::{Asked, Direction, Evaluated, MeanScore, Summary};
use crate::run::{self, Earlier, EvalOptions, Evaluation, Listener, UnitKind};
use crate::text::counted;

/// Runs the command.
pub fn run(args: &EvalArgs) -> Result<ExitCode> {
    let mut answer = StandardOutput::default();
    if args.list_metrics {
        let text = if args.json { listing::metrics_json().to_string() } else { listing::metrics_text() };
        answer.line(text.trim_end())?;
        return Ok(ExitCode::SUCCESS);
    }
    let kind = match (args.mosaics, args.mosaic_size, &args.boxes) {
        (Some(count), size, _) => UnitKind::Mosaics { count, size },
        (None, _, Some(_)) => UnitKind::Boxed,
        (None, _, None) => UnitKind::Pictures,
    };
    let shared = &args.shared;
    let mut methods = run::methods(&args.methods)?;
    let metrics = run::choose(&args.metrics, kind, args.unlabelled)?;
    let (mut session, settings) = shared.open(args.score)?;
    if methods.is_empty() {
        methods = plan::default_methods(session.model())?;
    }
    let progress = InputProgress::new(shared.voice());
    progress.observer().into_iter().for_each(|observer| session.engine().observe(observer));
    let options = EvalOptions {
        data: args.data.clone(),
        labels_csv: args.labels_csv.clone(),
        boxes: args.boxes.clone(),
        unlabelled: args.unlabelled,
        shuffle: args.shuffle,
        limit: args.limit,
        kind,
        methods,
        metrics,
        explain_label: args.target.unwrap_or(matches!(kind, UnitKind::Mosaics { .. })),
        out: args.out.clone(),
        earlier: if args.resume { Earlier::Resume } else { Earlier::Forget },
        settings,
        given: shared.given(),
    };
    let mut work = Evaluation::open(&mut session, options, &progress)?;
    let ended = run::drive(work.stream(), &mut work, &progress);
    let closed = work.close(ended, &progress);
    progress.finish();
    let (summary, lines) = closed?;
    if args.json {
        for score in &summary.scores {
            // Each line is read by itself.
            let (assumed, warnings) = (summary.assumed.clone(), summary.warnings.clone());
            answer.line(&json(&Versioned::new(MeanScore { assumed, warnings, ..score.clone() }))?)?;
        }
    } else {
        answer.line(&table(&summary, &lines))?;
    }
    let failures: usize = lines.iter().map(Evaluated::failures).sum();
    if failures > 0 {
        progress.say(&format!("{} in {}", counted(failures, "failure"), args.out.join("eval.jsonl").display()));
    }
    let measured = lines.iter().flat_map(|l| l.methods.values()).filter(|m| !m.readings.is_empty()).count();
    Ok(if measured == 0 { ExitCode::from(exit::UNUSABLE) } else { exit::of(measured, failures) })
}

/// The table for people: a row a number, a column a method.
fn table(summary: &Summary, lines: &[Evaluated]) -> String {
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
    let mut table = plain();
    let heads = std::iter::once(String::new()).chain(summary.methods.iter().map(|m| m.id.clone()));
    table.set_header(heads.collect::<Vec<_>>());
    let mut starred = false;
    let of = |id: &String| summary.scores.iter().filter(|s| s.method.as_ref() == Some(id)).collect();
    let rows: Vec<Vec<&MeanScore>> = summary.methods.iter().map(|m| of(&m.id)).collect();
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
