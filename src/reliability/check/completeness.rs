//! Completeness and conservation: does the map keep the method's own promise?

use super::{Outcome, Test, Threshold};

const MOST: Threshold = Threshold::AtMost(0.05);

pub(super) const TEST: Test = Test {
    id: "completeness",
    title: "Completeness",
    question: "Does the map keep what the method promises of it (completeness, conservation, constraint)?",
    paper: "Sundararajan, Taly, Yan 2017 (completeness); Bach et al. 2015 (conservation); the bound is this project's",
    measure: "gap, as a share of what was promised",
    threshold: MOST,
    run: |_, subject| {
        let Some(gap) = &subject.map.gap else {
            return Ok(Outcome::not_applicable(
                "no gap was measured: the method promises nothing that has one, or was told not to",
            ));
        };
        match gap.relative {
            Some(relative) => {
                Ok(Outcome::judged(MOST, relative.abs(), format!("{}: gap {:.3e}", gap.promise, gap.value))
                    .note("gap, in units of the score", gap.value))
            }
            None => Ok(Outcome::not_applicable(format!("{} of nothing: gap {:.3e}", gap.promise, gap.value))),
        }
    },
};
