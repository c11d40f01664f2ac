//! Mean squared gradient of n noisy copies (Hooker et al. 2019).

use crate::map::Sign;
use crate::method::shared::noisy;
use crate::method::{Entry, Promise, When};
use crate::program::Statistic;

pub(crate) const ENTRY: Entry = Entry {
    id: "squaregrad",
    aliases: &[],
    title: "SmoothGrad squared",
    paper: "Hooker, Erhan, Kindermans, Kim 2019: A benchmark for interpretability methods (ROAR), NeurIPS",
    summary: "mean squared gradient of n noisy copies",
    passes: "n forward, n backward",
    parameters: &noisy::parameters("noisy copies of the picture"),
    promises: &[(Promise::NotNegative, When::Always)],
    draws: When::Always,
    caution: "without sign: evidence for and against look alike",
    build: |values, context| noisy::build(ENTRY.id, Statistic::SumOfSquares, Sign::Unsigned, values, context),
};
