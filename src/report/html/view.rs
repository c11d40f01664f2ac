//! The data for the page's template: every word and number, ready for display.

use std::fmt;

use askama::Template;
use sha2::{Digest, Sha256};

use super::base64::Base64;
use super::{Drawing, Page, Plate};
use crate::report::check::{CheckReport, Finding, Verdict};
use crate::report::figures::{asked, measured, number, relation};
use crate::report::tally::{Tally, is_worse};

const STYLE: &str = include_str!("../../../templates/check.css");
const SCRIPT: &str = include_str!("../../../templates/check.js");

/// Up to this many pictures, all are unfolded.
const FEW: usize = 3;

/// Panels side by side on a wide screen.
const LEAST_COLUMNS: usize = 4;
const MOST_COLUMNS: usize = 7;

/// Columns for `panels`, such that rows are about equally long.
fn columns(panels: usize) -> usize {
    let rows = panels.div_ceil(MOST_COLUMNS).max(1);
    panels.div_ceil(rows).clamp(LEAST_COLUMNS, MOST_COLUMNS)
}

/// A verdict, on one picture or on several.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum VerdictState {
    Pass,
    Fail,
    /// It passes on some pictures and fails on others.
    Mixed,
    NotApplicable,
}

impl VerdictState {
    fn of_one(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Pass => VerdictState::Pass,
            Verdict::Fail => VerdictState::Fail,
            Verdict::NotApplicable => VerdictState::NotApplicable,
        }
    }

    fn of_all(tally: &Tally<'_>) -> Self {
        match (tally.passed, tally.failed) {
            (0, 0) => VerdictState::NotApplicable,
            (_, 0) => VerdictState::Pass,
            (0, _) => VerdictState::Fail,
            _ => VerdictState::Mixed,
        }
    }

    /// The word for it.
    fn word(self) -> &'static str {
        match self {
            VerdictState::Pass => "pass",
            VerdictState::Fail => "FAIL",
            VerdictState::Mixed => "mixed",
            VerdictState::NotApplicable => "n/a",
        }
    }
}

impl fmt::Display for VerdictState {
    /// Name of its style and icon.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            VerdictState::Pass => "pass",
            VerdictState::Fail => "fail",
            VerdictState::Mixed => "mixed",
            VerdictState::NotApplicable => "na",
        })
    }
}

/// The page.
#[derive(Template)]
#[template(path = "check.html")]
pub(super) struct View<'a> {
    style: &'static str,
    style_hash: String,
    script: &'static str,
    script_hash: String,
    report: &'a CheckReport,
    command: String,
    model: String,
    headline: String,
    scope: String,
    complaints: Vec<Complaint>,
    faultless: Vec<&'a str>,
    untested: Vec<&'a str>,
    tests: Vec<TestView>,
    methods: Vec<MethodView<'a>>,
    pictures: Vec<PictureView<'a>>,
    /// Pictures without drawings, if others have them.
    undrawn: usize,
    seconds: String,
    warnings: Vec<String>,
    /// In one line; empty if nothing was assumed.
    assumed: String,
}

/// A finding against a method.
struct Complaint {
    method: String,
    points: Vec<Point>,
}

struct Point {
    test: String,
    /// ` on 2 of 3 pictures`; empty if there is one picture.
    extent: String,
    detail: String,
}

struct TestView {
    number: usize,
    id: String,
    title: String,
    question: String,
    paper: String,
    /// `≤ 0.5`.
    bound: String,
    measure: String,
}

struct MethodView<'a> {
    id: &'a str,
    /// The id in pieces, between which a line may break.
    pieces: Vec<&'a str>,
    spec: String,
    /// `4 of 5 passed`.
    summary: String,
    /// Rank in this column's order.
    rank: usize,
    state: VerdictState,
    cells: Vec<FindingCell>,
}

struct FindingCell {
    title: String,
    state: VerdictState,
    /// `pass`, `FAIL`, `n/a`; for several pictures with the number of passes, `mixed 2/3`.
    word: String,
    value: String,
    /// The number's relation to the requirement: `≤ 0.5`, `> 0.5`.
    relation: String,
    /// The requirement: `≤ 0.5`.
    bound: String,
    rank: usize,
    measure: String,
    detail: String,
    /// Pictures on which the method fails, and links to them.
    failed_on: Vec<(String, String)>,
    tip: String,
}

struct PictureView<'a> {
    anchor: String,
    name: String,
    row: String,
    open: bool,
    error: Option<String>,
    plate: Option<&'a Plate>,
    prediction: Vec<(String, String)>,
    passed: usize,
    failed: usize,
    /// Panels of the method with the most, as far as they fit side by side.
    columns: usize,
    methods: Vec<ExplainedView<'a>>,
}

/// A method on one picture.
struct ExplainedView<'a> {
    id: &'a str,
    state: VerdictState,
    verdict: String,
    panels: Vec<PanelView<'a>>,
    findings: Vec<FindingView>,
}

struct PanelView<'a> {
    name: String,
    caption: String,
    drawing: &'a Drawing,
    /// The verdict of the test that it illustrates.
    state: Option<VerdictState>,
    value: String,
}

struct FindingView {
    title: String,
    state: VerdictState,
    value: String,
    bound: String,
    measure: String,
    detail: String,
    notes: Vec<(String, String)>,
}

/// `text` without characters that are forbidden in a page or reorder others.
fn plain(text: &str) -> String {
    let moves = |c: char| matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let shown = |c: char| if c.is_control() || moves(c) { c.escape_default().to_string() } else { c.to_string() };
    text.chars().map(shown).collect()
}

fn counted(n: usize, one: &str) -> String {
    format!("{n} {one}{}", if n == 1 { "" } else { "s" })
}

/// `Base64(SHA-256)`, the form in which a content security policy names allowed content.
fn hash(text: &str) -> String {
    Base64(&Sha256::digest(text.as_bytes())).to_string()
}

/// Ranks of `items`, best first; equal ones share a rank.
fn ranks<T>(items: &[T], is_worse: impl Fn(&T, &T) -> bool) -> Vec<usize> {
    items.iter().map(|a| items.iter().filter(|b| is_worse(a, b)).count()).collect()
}

fn is_worse_tally(a: &Tally<'_>, b: &Tally<'_>) -> bool {
    // Methods to which a test does not apply come last.
    let key = |t: &Tally<'_>| match t.decided() {
        0 => (2, 0.0),
        n => (1, t.failed as f64 / n as f64),
    };
    let ((rank_a, share_a), (rank_b, share_b)) = (key(a), key(b));
    match rank_a.cmp(&rank_b).then(share_a.total_cmp(&share_b)) {
        std::cmp::Ordering::Equal => a.worst.zip(b.worst).is_some_and(|((_, a), (_, b))| is_worse(a, b)),
        order => order.is_gt(),
    }
}

impl<'a> View<'a> {
    pub(super) fn of(page: &Page<'a>) -> Self {
        let report = page.report;
        let tallies: Vec<Vec<Tally<'a>>> = (report.methods.iter())
            .map(|method| report.tests.iter().map(|test| report.tally(&method.id, &test.id)).collect())
            .collect();
        let drawn = page.plates.iter().take(report.pictures.len()).flatten().count();
        let usable = report.pictures.iter().filter(|p| p.error.is_none()).count();
        let mut view = Self {
            style: STYLE,
            style_hash: hash(STYLE),
            script: SCRIPT,
            script_hash: hash(SCRIPT),
            report,
            command: plain(page.command),
            model: plain(&report.model.name),
            headline: String::new(),
            scope: scope(report, usable),
            complaints: Vec::new(),
            faultless: Vec::new(),
            untested: Vec::new(),
            tests: report.tests.iter().enumerate().map(|(i, _)| test(report, i)).collect(),
            methods: methods(report, &tallies),
            pictures: (report.pictures.iter().enumerate())
                .map(|(at, _)| picture(report, at, page.plates.get(at).and_then(Option::as_ref)))
                .collect(),
            undrawn: if drawn == 0 { 0 } else { usable.saturating_sub(drawn) },
            seconds: seconds(report.seconds),
            warnings: report.warnings.iter().map(|warning| plain(warning)).collect(),
            assumed: plain(&report.assumed.join("; ")),
        };
        for (method, tallies) in report.methods.iter().zip(&tallies) {
            if tallies.iter().all(|t| t.decided() == 0) {
                view.untested.push(&method.id);
            } else if tallies.iter().all(|t| t.failed == 0) {
                view.faultless.push(&method.id);
            } else {
                view.complaints.push(complaint(report, &method.id, tallies, usable));
            }
        }
        view.headline = headline(&view);
        view
    }
}

fn headline(view: &View<'_>) -> String {
    let (good, bad) = (view.faultless.len(), view.complaints.len());
    match (good, bad) {
        (0, 0) => "Nothing could be tested".into(),
        (1, 0) => format!("{} passes every test that applies to it", view.faultless[0]),
        (2, 0) => "Both methods pass every test that applies to them".into(),
        (n, 0) => format!("All {n} methods pass every test that applies to them"),
        (0, 1) => format!("{} fails {}", view.complaints[0].method, counted(view.complaints[0].points.len(), "test")),
        (0, 2) => "Both methods fail at least one test".into(),
        (0, n) => format!("All {n} methods fail at least one test"),
        (1, n) => format!("1 of {} methods passes every test that applies to it", n + 1),
        (good, bad) => format!("{good} of {} methods pass every test that applies to them", good + bad),
    }
}

fn scope(report: &CheckReport, usable: usize) -> String {
    let unusable = report.pictures.len() - usable;
    let broken = if unusable > 0 { format!(" ({unusable} more could not be used)") } else { String::new() };
    format!(
        "{}, {}, {}{broken}",
        counted(report.methods.len(), "method"),
        counted(report.tests.len(), "test"),
        counted(usable, "picture"),
    )
}

fn seconds(seconds: f64) -> String {
    match seconds {
        s if s < 10.0 => format!("{s:.1} s"),
        s if s < 120.0 => format!("{s:.0} s"),
        s => format!("{:.0} min {:02.0} s", (s / 60.0).floor(), (s % 60.0).floor()),
    }
}

fn complaint(report: &CheckReport, method: &str, tallies: &[Tally<'_>], usable: usize) -> Complaint {
    let failed = report.tests.iter().zip(tallies).filter(|(_, tally)| tally.failed > 0);
    let points = failed.map(|(test, tally)| Point {
        test: plain(&test.title),
        extent: if usable == 1 {
            String::new()
        } else {
            format!(" on {} of {} pictures", tally.failed, tally.decided())
        },
        detail: tally.worst.map(|(_, f)| plain(&f.detail)).unwrap_or_default(),
    });
    Complaint { method: method.into(), points: points.collect() }
}

fn test(report: &CheckReport, at: usize) -> TestView {
    let test = &report.tests[at];
    let all = || report.pictures.iter().flat_map(|p| &p.findings).filter(|f| f.test == test.id);
    let bounded = all().find(|f| f.threshold.is_some());
    let differs = |f: &Finding| all().any(|g| g.threshold.is_some() && g.threshold != f.threshold);
    let others = if bounded.is_some_and(differs) { " (other bounds for some methods)" } else { "" };
    TestView {
        number: at + 1,
        id: plain(&test.id),
        title: plain(&test.title),
        question: plain(&test.question),
        paper: plain(&test.paper),
        bound: bounded.and_then(|f| f.threshold).map(asked).unwrap_or_default(),
        measure: bounded.map(|f| format!("{}{others}", plain(&f.measure))).unwrap_or_default(),
    }
}

fn methods<'a>(report: &'a CheckReport, tallies: &[Vec<Tally<'a>>]) -> Vec<MethodView<'a>> {
    let by_test: Vec<Vec<usize>> = (0..report.tests.len())
        .map(|t| ranks(&tallies.iter().map(|row| row[t]).collect::<Vec<_>>(), is_worse_tally))
        .collect();
    // By failures first, then by passes.
    let overall: Vec<(usize, usize)> = (tallies.iter())
        .map(|row| {
            let failed = row.iter().filter(|t| t.failed > 0).count();
            (failed, row.iter().filter(|t| t.decided() == 0).count())
        })
        .collect();
    let overall_ranks = ranks(&overall, |a, b| a > b);
    let method = |(m, method): (usize, &'a crate::report::check::MethodChecked)| {
        let row = &tallies[m];
        let cells = report.tests.iter().enumerate().map(|(t, test)| {
            let cell = cell(report, &method.id, &test.id, &row[t]);
            FindingCell { title: plain(&test.title), rank: by_test[t][m], ..cell }
        });
        let decided = row.iter().filter(|t| t.decided() > 0).count();
        let (failed, _) = overall[m];
        MethodView {
            id: &method.id,
            pieces: method.id.split_inclusive(['_', '-']).collect(),
            spec: plain(&method.spec),
            summary: if decided == 0 {
                "no test applies".into()
            } else {
                format!("{} of {decided} passed", decided - failed)
            },
            rank: overall_ranks[m],
            state: match (decided, failed) {
                (0, _) => VerdictState::NotApplicable,
                (_, 0) => VerdictState::Pass,
                _ => VerdictState::Fail,
            },
            cells: cells.collect(),
        }
    };
    report.methods.iter().enumerate().map(method).collect()
}

fn cell(report: &CheckReport, method: &str, test: &str, tally: &Tally<'_>) -> FindingCell {
    let state = VerdictState::of_all(tally);
    let several = tally.decided() > 1;
    let word = match state {
        VerdictState::NotApplicable => "n/a".into(),
        _ if several => format!("{} {}/{}", state.word(), tally.passed, tally.decided()),
        _ => state.word().into(),
    };
    let worst = tally.worst.map(|(_, finding)| finding);
    let decided = worst.filter(|f| f.verdict != Verdict::NotApplicable);
    let fails = |p: &crate::report::check::PictureChecked| {
        p.findings.iter().any(|f| f.method == method && f.test == test && f.verdict == Verdict::Fail)
    };
    let failed_on = (report.pictures.iter().enumerate())
        .filter(|(_, p)| several && fails(p))
        .map(|(at, _)| (anchor(at), name(report, at)));
    let (value, relation, bound) =
        decided.map_or_else(Default::default, |f| (number(f), relation(f), f.threshold.map(asked).unwrap_or_default()));
    let measure = worst.map(|f| plain(&f.measure)).unwrap_or_default();
    let detail = worst.map(|f| plain(&f.detail)).unwrap_or_default();
    let whose = if several { "worst of all pictures: " } else { "" };
    let number = if value.is_empty() { String::new() } else { format!("{whose}{measure} = {value}, asked {bound}. ") };
    FindingCell {
        title: String::new(),
        state,
        word,
        tip: format!("{number}{detail}"),
        value,
        relation,
        bound,
        rank: 0,
        measure,
        detail,
        failed_on: failed_on.collect(),
    }
}

fn anchor(at: usize) -> String {
    format!("picture-{}", at + 1)
}

/// The name of picture `at`: its path, and its row in an array.
fn name(report: &CheckReport, at: usize) -> String {
    let picture = &report.pictures[at];
    let row = picture.index.map(|i| format!(" [{i}]")).unwrap_or_default();
    format!("{}{row}", plain(&picture.input))
}

fn picture<'a>(report: &'a CheckReport, at: usize, plate: Option<&'a Plate>) -> PictureView<'a> {
    let picture = &report.pictures[at];
    let count = |verdict| picture.findings.iter().filter(|f| f.verdict == verdict).count();
    let explained = |method: &'a crate::report::check::MethodChecked| {
        let findings: Vec<&Finding> = picture.findings.iter().filter(|f| f.method == method.id).collect();
        explained(report, &method.id, &findings, plate)
    };
    let usable = picture.error.is_none();
    let methods: Vec<ExplainedView<'a>> = report.methods.iter().filter(|_| usable).map(explained).collect();
    PictureView {
        anchor: anchor(at),
        name: plain(&picture.input),
        row: picture.index.map(|i| format!("row {i}")).unwrap_or_default(),
        open: at == 0 || report.pictures.len() <= FEW,
        error: picture.error.as_deref().map(plain),
        plate,
        prediction: (picture.prediction.iter())
            .map(|p| (p.label.as_deref().map_or_else(|| format!("class {}", p.index), plain), measured(p.score)))
            .collect(),
        passed: count(Verdict::Pass),
        failed: count(Verdict::Fail),
        columns: columns(methods.iter().map(|m| m.panels.len()).max().unwrap_or(0)),
        methods,
    }
}

fn explained<'a>(
    report: &'a CheckReport,
    method: &'a str,
    findings: &[&Finding],
    plate: Option<&'a Plate>,
) -> ExplainedView<'a> {
    let of = |test: &str| findings.iter().find(|f| f.test == test);
    let panels = plate.into_iter().flat_map(|plate| &plate.panels).filter(|p| p.method == method).map(|panel| {
        let finding = of(&panel.test);
        PanelView {
            name: plain(&panel.name),
            caption: plain(&panel.caption),
            drawing: &panel.drawing,
            state: finding.map(|f| VerdictState::of_one(f.verdict)),
            value: finding.map(|f| number(f)).unwrap_or_default(),
        }
    });
    let shown = findings.iter().map(|f| FindingView {
        title: plain(report.tests.iter().find(|t| t.id == f.test).map_or(&f.test, |t| &t.title)),
        state: VerdictState::of_one(f.verdict),
        value: number(f),
        bound: f.threshold.map(asked).unwrap_or_default(),
        measure: plain(&f.measure),
        detail: plain(&f.detail),
        notes: f.notes.iter().map(|(key, value)| (plain(key), measured(*value))).collect(),
    });
    let failed = findings.iter().filter(|f| f.verdict == Verdict::Fail).count();
    let passed = findings.iter().filter(|f| f.verdict == Verdict::Pass).count();
    let (state, verdict) = match (passed, failed) {
        (0, 0) => (VerdictState::NotApplicable, "no test applies".into()),
        (n, 0) => (VerdictState::Pass, format!("passes {}", counted(n, "test"))),
        (_, n) => (VerdictState::Fail, format!("fails {n} of {}", counted(passed + failed, "test"))),
    };
    ExplainedView { id: method, state, verdict, panels: panels.collect(), findings: shown.collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_character_moves_its_neighbours() {
        assert_eq!(plain("a\u{202e}gpj.exe\n\0é"), "a\\u{202e}gpj.exe\\n\\u{0}é");
    }

    #[test]
    fn rows_of_panels_are_about_equally_long() {
        assert_eq!([0, 2, 5, 7, 8, 9, 13].map(columns), [4, 4, 5, 7, 4, 5, 7]);
    }

    #[test]
    fn equal_items_share_a_rank() {
        assert_eq!(ranks(&[3, 1, 2, 1], |a, b| a > b), [3, 0, 2, 0]);
    }
}
