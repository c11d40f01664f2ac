//! Verdicts as lines of JSON and as a table.

use comfy_table::Table;
use serde::Serialize;

use crate::cli::records::json;
use crate::cli::tables::plain;
use crate::cli::tests_of_trust::bound;
use crate::report::RECORD_VERSION;
use crate::report::check::{CheckReport, Finding, PictureChecked, Threshold, Verdict};
use crate::report::figures::number;
use crate::session::Noticed;
use crate::text::one_line;

/// A finding and the picture it was made on.
#[derive(Serialize)]
struct VerdictLine<'a> {
    input: &'a str,
    index: Option<usize>,
    method: Option<&'a str>,
    test: Option<&'a str>,
    verdict: Option<Verdict>,
    value: Option<f64>,
    threshold: Option<Threshold>,
    measure: Option<&'a str>,
    detail: Option<&'a str>,
    notes: &'a [(String, f64)],
    error: Option<&'a str>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    assumed: &'a [String],
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    warnings: &'a [String],
    record_version: u32,
}

/// One JSON object a finding; one for a picture that could not be checked. `said` is of the run and of the picture.
pub fn lines(picture: &PictureChecked, said: &Noticed) -> crate::Result<Vec<String>> {
    let line = |finding: Option<&Finding>| {
        json(&VerdictLine {
            input: &picture.input,
            index: picture.index,
            method: finding.map(|f| f.method.as_str()),
            test: finding.map(|f| f.test.as_str()),
            verdict: finding.map(|f| f.verdict),
            value: finding.and_then(|f| f.value),
            threshold: finding.and_then(|f| f.threshold),
            measure: finding.map(|f| f.measure.as_str()),
            detail: finding.map(|f| f.detail.as_str()),
            notes: finding.map(|f| f.notes.as_slice()).unwrap_or_default(),
            error: picture.error.as_deref(),
            assumed: &said.assumed,
            warnings: &said.warnings,
            record_version: RECORD_VERSION,
        })
    };
    match &picture.error {
        Some(_) => Ok(vec![line(None)?]),
        None => picture.findings.iter().map(|finding| line(Some(finding))).collect(),
    }
}

/// Methods by tests, then what the tests ask for. Of several pictures a cell has how many are passed and the worst number.
pub fn table(report: &CheckReport) -> String {
    let mut table = plain();
    let heads = report.tests.iter().map(|test| test.id.clone());
    table.set_header(std::iter::once("method".to_string()).chain(heads));
    for method in &report.methods {
        let cells = report.tests.iter().map(|test| cell(report, &method.id, &test.id));
        table.add_row(std::iter::once(method.id.clone()).chain(cells));
    }
    let mut text = flush(&table);
    text.push('\n');
    let width = report.tests.iter().map(|test| test.id.len()).max().unwrap_or(0);
    for test in &report.tests {
        let asks = asks(report, &test.id).map_or_else(String::new, |asks| format!(" To pass: {asks}"));
        text += &format!("\n{:width$}  {}{asks}", test.id, one_line(&test.question));
    }
    text
}

/// A table without the space before its first column.
pub fn flush(table: &Table) -> String {
    table.trim_fmt().lines().map(|line| line.strip_prefix(' ').unwrap_or(line)).collect::<Vec<_>>().join("\n")
}

fn cell(report: &CheckReport, method: &str, test: &str) -> String {
    let tally = report.tally(method, test);
    let word = match tally.verdict() {
        Verdict::NotApplicable => return "n/a".into(),
        Verdict::Pass => "pass",
        Verdict::Fail => "FAIL",
    };
    let count = if tally.decided() > 1 { format!(" {}/{}", tally.passed, tally.decided()) } else { String::new() };
    let worst = tally.worst.map(|(_, finding)| number(finding)).unwrap_or_default();
    format!("{word}{count} {worst}").trim_end().into()
}

/// `at most 0.5, |Spearman|`, as the first finding with a bound has it.
fn asks(report: &CheckReport, test: &str) -> Option<String> {
    let findings = report.pictures.iter().flat_map(|picture| &picture.findings);
    let finding = findings.filter(|f| f.test == test).find(|f| f.threshold.is_some())?;
    Some(format!("{}, {}", bound(finding.threshold?), one_line(&finding.measure)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::check::{MethodChecked, TestUsed};

    fn finding(method: &str, verdict: Verdict, value: Option<f64>) -> Finding {
        Finding {
            test: "wrong_class".into(),
            method: method.into(),
            verdict,
            value,
            threshold: value.map(|_| Threshold::AtMost(0.5)),
            measure: "|Spearman|".into(),
            detail: "it is so".into(),
            notes: vec![("SSIM".into(), 0.25)],
        }
    }

    fn picture(input: &str, findings: Vec<Finding>) -> PictureChecked {
        PictureChecked { input: input.into(), findings, ..PictureChecked::default() }
    }

    #[test]
    fn cells_count_pictures_and_show_the_worst() {
        let both = |a, b| {
            vec![
                finding("gradient", Verdict::Pass, Some(a)),
                finding("grad_cam", b, Some(0.9).filter(|_| b == Verdict::Fail)),
            ]
        };
        let report = CheckReport {
            tests: vec![TestUsed {
                id: "wrong_class".into(),
                title: "Wrong class".into(),
                question: "Does another class give another map?".into(),
                paper: String::new(),
            }],
            methods: ["gradient", "grad_cam", "haf"].map(|m| MethodChecked { id: m.into(), spec: m.into() }).to_vec(),
            pictures: vec![picture("a", both(0.1, Verdict::Fail)), picture("b", both(1e-14, Verdict::NotApplicable))],
            ..CheckReport::default()
        };
        let text = table(&report);
        let rows: Vec<Vec<&str>> = text.lines().map(|l| l.split_whitespace().collect()).collect();
        assert_eq!(rows[1], ["gradient", "pass", "2/2", "0.1"]);
        assert_eq!(rows[2], ["grad_cam", "FAIL", "0.9"]);
        assert_eq!(rows[3], ["haf", "n/a"]);
        let legend = "wrong_class  Does another class give another map? To pass: at most 0.5, |Spearman|";
        assert_eq!(text.lines().last(), Some(legend));
    }

    #[test]
    fn every_finding_is_a_line_and_every_failure_one() {
        let good =
            picture("a", vec![finding("gradient", Verdict::Pass, Some(0.1)), finding("haf", Verdict::Fail, None)]);
        let lines = |picture| -> Vec<serde_json::Value> {
            super::lines(picture, &Noticed::default())
                .unwrap()
                .iter()
                .map(|l| serde_json::from_str(l).unwrap())
                .collect()
        };
        let made = lines(&good);
        assert_eq!(made.len(), 2);
        assert_eq!((&made[0]["verdict"], &made[0]["threshold"]["at_most"]), (&"pass".into(), &0.5.into()));
        let broken = PictureChecked { error: Some("cut off".into()), ..picture("b", Vec::new()) };
        let made = lines(&broken);
        assert!(made.len() == 1 && made[0]["method"].is_null() && made[0]["error"] == "cut off");
    }
}
