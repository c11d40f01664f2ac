//! Completeness and conservation: does the map keep the method's own promise?

use super::{CheckedMethod, Measurement, Test, Threshold, Verdict, ZERO};
use crate::map::{Gap, percent};

/// Share of the score that must reach the pixels for its conservation to be meaningful.
const LEAST_REACHED: f64 = 0.5;

pub(super) const TEST: Test = Test {
    id: "completeness",
    title: "Completeness",
    question: "Does the map keep what the method promises of it (completeness, conservation, constraint)?",
    paper: "Sundararajan, Taly, Yan 2017 (completeness); Bach et al. 2015 (conservation); the bound is this project's",
    measure: "gap, as a share of what was promised",
    threshold: Threshold::AtMost(0.05),
    run: |_, examined| {
        let Some(gap) = &examined.map.gap else { return Ok(Measurement::not_applicable(unmeasured(examined))) };
        let Some(relative) = gap.relative else {
            return Ok(Measurement::not_applicable(match examined.map.is_zero() {
                true => ZERO.into(),
                false => format!("{} of nothing: gap {:.3e}", gap.promise, gap.value),
            }));
        };
        Ok(measured(examined, gap, relative.abs()).note("gap, in units of the score", gap.value))
    },
};

/// Why there is no gap: a parameter would have to be set, or the method promises nothing.
fn unmeasured(examined: &CheckedMethod<'_>) -> String {
    let CheckedMethod { spec, .. } = examined;
    if spec.values().text("gap").is_ok_and(|gap| gap == "no") {
        return "no gap was measured: gap=no says so; gap=yes measures it".into();
    }
    let possible =
        spec.entry.promises.iter().find(|(promise, when)| promise.is_measured() && !when.holds(spec.values()));
    match possible {
        Some((promise, when)) => {
            format!(
                "no gap is measured with these settings; the method promises: {}",
                when.describe(promise.describe())
            )
        }
        None => "no gap was measured: the method promises nothing that has one".into(),
    }
}

fn measured(examined: &CheckedMethod<'_>, gap: &Gap, relative: f64) -> Measurement {
    let Some([input, bias, lost]) = examined.map.shares.and_then(|shares| shares.relative()) else {
        let sentence = format!("{}: gap {:.3e}", gap.promise, gap.value);
        return Measurement::number(relative, [sentence.clone(), sentence]);
    };
    let reached = format!("{} of it reached the pixels, {} the biases", percent(input), percent(bias));
    let conserves = format!("conserves the score; {reached}");
    let measured = if TEST.threshold.judge(relative) == Verdict::Pass && input.abs() < LEAST_REACHED {
        Measurement::not_applicable(format!("{conserves}: the map holds less than half of it"))
    } else {
        Measurement::number(relative, [conserves, format!("loses {} of the score; {reached}", percent(lost))])
    };
    measured
        .note("share of the score that reached the pixels", input)
        .note("share that biases keep", bias)
        .note("share that was lost", lost)
}
