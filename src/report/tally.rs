//! [`Tally`]: a test's verdicts on a method over all pictures.

use super::check::{CheckReport, Finding, Threshold, Verdict};

/// The verdicts of one test on one method, counted over pictures.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tally<'a> {
    /// Pictures on which the method passes.
    pub passed: usize,
    /// Pictures on which it fails.
    pub failed: usize,
    /// Pictures to which the test does not apply.
    pub not_applicable: usize,
    /// The worst finding for the method, and the index of its picture.
    pub worst: Option<(usize, &'a Finding)>,
}

impl Tally<'_> {
    /// Number of pictures with a verdict.
    pub fn decided(&self) -> usize {
        self.passed + self.failed
    }

    /// One verdict for all pictures: fail if it fails on any of them.
    pub fn verdict(&self) -> Verdict {
        match (self.passed, self.failed) {
            (0, 0) => Verdict::NotApplicable,
            (_, 0) => Verdict::Pass,
            _ => Verdict::Fail,
        }
    }
}

/// Severity of a finding; within a test, larger is worse.
fn weight(finding: &Finding) -> (u8, f64) {
    let rank = match finding.verdict {
        Verdict::NotApplicable => 0,
        Verdict::Pass => 1,
        Verdict::Fail => 2,
    };
    let excess = match (finding.value, finding.threshold) {
        (Some(value), _) if value.is_nan() => f64::INFINITY,
        (Some(value), Some(Threshold::AtMost(bound))) => value - bound,
        (Some(value), Some(Threshold::AtLeast(bound))) => bound - value,
        _ => f64::NEG_INFINITY,
    };
    (rank, excess)
}

/// Whether `a` is worse for its method than `b`, a finding of the same test.
pub(super) fn is_worse(a: &Finding, b: &Finding) -> bool {
    let ((rank_a, excess_a), (rank_b, excess_b)) = (weight(a), weight(b));
    rank_a.cmp(&rank_b).then(excess_a.total_cmp(&excess_b)).is_gt()
}

impl CheckReport {
    /// The tally of test `test` for method `method`, both by id.
    pub fn tally(&self, method: &str, test: &str) -> Tally<'_> {
        let mut tally = Tally::default();
        for (at, picture) in self.pictures.iter().enumerate() {
            for finding in picture.findings.iter().filter(|f| f.method == method && f.test == test) {
                match finding.verdict {
                    Verdict::Pass => tally.passed += 1,
                    Verdict::Fail => tally.failed += 1,
                    Verdict::NotApplicable => tally.not_applicable += 1,
                }
                if tally.worst.is_none_or(|(_, worst)| is_worse(finding, worst)) {
                    tally.worst = Some((at, finding));
                }
            }
        }
        tally
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::check::PictureChecked;

    fn finding(verdict: Verdict, value: Option<f64>, threshold: Threshold) -> Finding {
        Finding {
            test: "t".into(),
            method: "m".into(),
            verdict,
            value,
            threshold: Some(threshold),
            measure: String::new(),
            detail: String::new(),
            notes: Vec::new(),
        }
    }

    fn report(findings: Vec<Finding>) -> CheckReport {
        let picture = |finding| PictureChecked { input: "p".into(), findings: vec![finding], ..Default::default() };
        CheckReport { pictures: findings.into_iter().map(picture).collect(), ..CheckReport::default() }
    }

    #[test]
    fn the_worst_finding_is_the_one_farthest_beyond_its_bound() {
        let most = Threshold::AtMost(0.5);
        let report = report(vec![
            finding(Verdict::NotApplicable, None, most),
            finding(Verdict::Pass, Some(0.1), most),
            finding(Verdict::Fail, Some(0.7), most),
            finding(Verdict::Fail, Some(0.9), most),
            finding(Verdict::Fail, Some(0.8), most),
        ]);
        let tally = report.tally("m", "t");
        assert_eq!((tally.passed, tally.failed, tally.not_applicable), (1, 3, 1));
        assert_eq!(tally.worst.unwrap().0, 3);
        assert_eq!(tally.verdict(), Verdict::Fail);
        assert_eq!(report.tally("m", "other").verdict(), Verdict::NotApplicable);
    }

    #[test]
    fn lower_is_worse_where_much_is_asked() {
        let least = Threshold::AtLeast(0.5);
        let values = [0.9, 0.6, 0.7].map(|v| finding(Verdict::Pass, Some(v), least));
        assert_eq!(report(values.to_vec()).tally("m", "t").worst.unwrap().0, 1);
        let values = [0.9, f64::NAN, 0.7].map(|v| finding(Verdict::Fail, Some(v), least));
        assert_eq!(report(values.to_vec()).tally("m", "t").worst.unwrap().0, 1);
    }
}
