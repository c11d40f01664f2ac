//! Excitation backpropagation (Zhang et al. 2016): the probability that a winner-take-all walk from the class ends at a
//! pixel.

use crate::engine::Start;
use crate::map::Sign;
use crate::method::shared::conservation::Propagation;
use crate::method::{Entry, Promise, When};
use crate::program::Score;
use crate::rule::Composite;

pub(crate) const ENTRY: Entry = Entry {
    id: "excitation_backprop",
    aliases: &["ebp"],
    title: "Excitation backpropagation",
    paper: "Zhang, Lin, Brandt, Shen, Sclaroff 2016: Top-down neural attention by excitation backprop, ECCV, equations 1 and 8",
    summary: "1 at the target is shared out by z⁺ without biases down to the pixels; signed inputs by W⁺x⁺ + W⁻x⁻, sums and \
              average pools in proportion to positive parts (both our choice)",
    passes: "1 forward, 1 backward; 2 convolutions each way where inputs are signed",
    parameters: &[],
    promises: &[(Promise::Conservation, When::Always), (Promise::NotNegative, When::Always)],
    draws: When::Never,
    caution: "says nothing about the size of the score and is the same for every --score; seldom tells one class from another, \
              which is what contrastive_ebp is for",
    build: |_, _| {
        // The logit's gradient is 1 at the target.
        let (rules, score, start) = (Composite::excitation(), Score::Logit, Start::Gradient);
        Ok(Box::new(Propagation { id: ENTRY.id, rules, score, start, sign: Sign::Unsigned }))
    },
};
