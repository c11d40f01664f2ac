//! Mean gradient of n noisy copies (Smilkov et al. 2017).

use crate::map::Sign;
use crate::method::shared::noisy;
use crate::method::{Entry, When};
use crate::program::Statistic;

pub(crate) const ENTRY: Entry = Entry {
    id: "smoothgrad",
    aliases: &[],
    title: "SmoothGrad",
    paper: "Smilkov, Thorat, Kim, Viégas, Wattenberg 2017: SmoothGrad, arXiv 1706.03825",
    summary: "mean gradient of n noisy copies",
    passes: "n forward, n backward",
    parameters: &noisy::parameters("noisy copies of the picture"),
    promises: &[],
    draws: When::Always,
    caution: "the mean of signed gradients can cancel where copies disagree",
    build: |values, context| noisy::build(ENTRY.id, Statistic::Sum, Sign::Signed, values, context),
};
