//! Records on standard output: tables, or lines of JSON.

use serde::Serialize;

use crate::Result;
use crate::cli::talk::{Bar, StandardOutput};
use crate::data::Source;
use crate::map::{percent, showing_nothing};
use crate::report::{Line, Prediction, Record};
use crate::run::{AttackLine, AttackRecord, Show};
use crate::text::{message, one_line};

/// Characters of an input's path in a table.
const PATH_CHARACTERS: usize = 44;
/// Characters of a class in a table.
const CLASS_CHARACTERS: usize = 22;

/// What goes to standard output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply {
    /// A table.
    Table,
    /// One JSON object a line.
    Json,
}

/// One JSON object as a line.
pub fn json(of: &impl Serialize) -> Result<String> {
    serde_json::to_string(of).map_err(|e| crate::Error::settings(format!("a record is not JSON: {e}")))
}

/// Columns for the paths of `sources` and for names.
fn widths<'a>(sources: &[Source], names: impl Iterator<Item = &'a str>) -> [usize; 2] {
    // Room for the row number of an array.
    let path = sources.iter().map(|s| s.shown.chars().count() + if s.is_array() { 6 } else { 0 }).max();
    [path.unwrap_or(0).clamp(5, PATH_CHARACTERS), names.map(str::len).max().unwrap_or(0).max(6)]
}

/// Shows records of maps of `sources`; `methods` by id, with whether they share the score out.
pub fn maps(reply: Reply, bar: Bar, sources: &[Source], methods: &[(String, bool)]) -> Show<Line> {
    let widths = widths(sources, methods.iter().map(|(id, _)| id.as_str()));
    let shares = methods.iter().any(|(_, shares)| *shares);
    let mut shown = MapRecords { answer: StandardOutput::default(), reply, widths, headed: false, shares };
    Box::new(move |line| bar.aside(|| shown.show(&line.record)))
}

/// Shows records of attacks on `sources`.
pub fn attacks(reply: Reply, bar: Bar, sources: &[Source], attacks: &[&str]) -> Show<AttackLine> {
    let [input, attack] = widths(sources, attacks.iter().copied());
    let mut table = RecordTable { input, attack, headed: false };
    let mut answer = StandardOutput::default();
    Box::new(move |line| {
        bar.aside(|| {
            if reply == Reply::Json {
                return answer.line(&json(&line.record)?);
            }
            if let Some(heading) = table.heading() {
                answer.line(&heading)?;
            }
            answer.line(&table.line(&line.record))
        })
    })
}

/// Shows records of maps.
struct MapRecords {
    answer: StandardOutput,
    reply: Reply,
    widths: [usize; 2],
    headed: bool,
    /// Whether a method shares the score out, so that there is a column of what reached the pixels.
    shares: bool,
}

impl MapRecords {
    fn show(&mut self, record: &Record) -> Result<()> {
        if self.reply == Reply::Json {
            return self.answer.line(&json(record)?);
        }
        let [path, method] = self.widths;
        if !self.headed {
            self.headed = true;
            let pixels = if self.shares { format!("  {:>8}", "pixels") } else { String::new() };
            self.answer.line(&format!(
                "{:path$}  {:method$}  {:>10}  {:>8}{pixels}  {:>8}  target",
                "input", "method", "score", "gap", "seconds"
            ))?;
        }
        let row = record.index.map_or_else(String::new, |i| format!("[{i}]"));
        let input = shortened(&format!("{}{row}", one_line(&record.input)), path);
        if let Some(why) = &record.error {
            let method = record.method.as_deref().map_or_else(String::new, |m| format!("{m}: "));
            return self.answer.line(&format!("{input:path$}  failed: {method}{}", message(why)));
        }
        let dash = || "-".to_string();
        let target = match (record.target, &record.target_label) {
            (Some(i), Some(label)) => format!("{i} {label}"),
            (Some(i), None) => i.to_string(),
            (None, _) => dash(),
        };
        let nothing = showing_nothing(&record.notes).map_or_else(String::new, |words| format!("  ({words})"));
        let pixels = |share: String| if self.shares { format!("  {share:>8}") } else { String::new() };
        let reached = record.shares.and_then(|shares| shares.relative());
        self.answer.line(&format!(
            "{input:path$}  {:method$}  {:>10}  {:>8}{}  {:>8.3}  {target}{nothing}",
            record.method.as_deref().unwrap_or("-"),
            record.score.map_or_else(dash, |s| format!("{s:.4}")),
            record.gap.as_ref().and_then(|g| g.relative).map_or_else(dash, |r| format!("{r:.1e}")),
            pixels(reached.map_or_else(dash, |[input, ..]| percent(input))),
            record.seconds,
        ))
    }
}

/// A table with a line a record.
struct RecordTable {
    input: usize,
    attack: usize,
    headed: bool,
}

impl RecordTable {
    /// The heading, the first time.
    fn heading(&mut self) -> Option<String> {
        let first = !std::mem::replace(&mut self.headed, true);
        let (input, attack, class) = (self.input, self.attack, CLASS_CHARACTERS);
        first.then(|| {
            format!(
                "{:input$}  {:attack$}  {:class$}  {:class$}  {:4}  {:class$}  {:>7}  {:>5}  {:>8}  {:>8}",
                "input", "attack", "before", "after", "done", "picture", "levels", "top-k", "spearman", "seconds"
            )
        })
    }

    /// One record.
    fn line(&self, record: &AttackRecord) -> String {
        let (width, attack, class) = (self.input, self.attack, CLASS_CHARACTERS);
        let row = record.index.map_or_else(String::new, |i| format!("[{i}]"));
        let input = shortened(&format!("{}{row}", one_line(&record.input)), width);
        if let Some(why) = &record.error {
            let attack = record.attack.as_deref().map_or_else(String::new, |a| format!("{a}: "));
            return format!("{input:width$}  failed: {attack}{}", message(why));
        }
        let top = |prediction: Option<&Vec<Prediction>>| {
            prediction.and_then(|p| p.first()).map_or_else(
                || "-".to_string(),
                |p| {
                    let name = p.label.clone().unwrap_or_else(|| p.index.to_string());
                    let name: String = name.chars().take(CLASS_CHARACTERS - 5).collect();
                    format!("{name} {:.2}", p.score)
                },
            )
        };
        let plain = record.maps.first().and_then(|m| {
            let (before, after) = (showing_nothing(&m.notes), showing_nothing(&m.notes_after));
            before.map(|words| format!("  (map {words})")).or(after.map(|words| format!("  (map {words} after)")))
        });
        let number = |n: Option<f64>, digits: usize| n.map_or_else(|| "-".to_string(), |n| format!("{n:.digits$}"));
        let maps = record.maps.first();
        format!(
            "{input:width$}  {:attack$}  {:class$}  {:class$}  {:4}  {:class$}  {:>7}  {:>5}  {:>8}  {:>8.3}{}",
            record.attack.as_deref().unwrap_or("-"),
            top(Some(&record.prediction_before)),
            top(Some(&record.prediction_after)),
            if record.succeeded == Some(true) { "yes" } else { "no" },
            top(record.prediction_png.as_ref()),
            number(record.linf_levels, 2),
            number(maps.and_then(|m| m.top_k_intersection), 2),
            number(maps.and_then(|m| m.spearman), 2),
            record.seconds,
            plain.unwrap_or_default(),
        )
    }
}

/// The end of a text that is too long, since paths differ there.
fn shortened(text: &str, width: usize) -> String {
    let count = text.chars().count();
    if count <= width {
        text.to_owned()
    } else {
        format!("…{}", text.chars().skip(count + 1 - width).collect::<String>())
    }
}
