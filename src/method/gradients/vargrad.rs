//! Unbiased variance of the gradient over n noisy copies (Adebayo et al. 2018).

use crate::map::Sign;
use crate::method::shared::noisy;
use crate::method::{Entry, Promise, When};
use crate::program::Statistic;

pub(crate) const ENTRY: Entry = Entry {
    id: "vargrad",
    aliases: &[],
    title: "VarGrad",
    paper: "Adebayo, Gilmer, Goodfellow, Kim 2018: Local explanation methods for deep neural networks lack sensitivity to parameter values, ICLR workshop",
    summary: "unbiased variance of the gradient over n noisy copies",
    passes: "n forward, n backward",
    parameters: &noisy::parameters("noisy copies of the picture, at least 2"),
    promises: &[(Promise::NotNegative, When::Always)],
    draws: When::Always,
    caution: "independent of the mean gradient: shows where the slope changes, not where it is large",
    build: |values, context| noisy::build(ENTRY.id, Statistic::Variance, Sign::Unsigned, values, context),
};
