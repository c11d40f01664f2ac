//! Contrastive excitation backpropagation (Zhang et al. 2016): where the class is excited more than its complement.

use crate::engine::Job;
use crate::method::{Entry, OneJob, When};
use crate::program::Score;
use crate::rule::Composite;

pub(crate) const ENTRY: Entry = Entry {
    id: "contrastive_ebp",
    aliases: &["cebp"],
    title: "Contrastive excitation backpropagation",
    paper: "Zhang, Lin, Brandt, Shen, Sclaroff 2016: Top-down neural attention by excitation backprop, ECCV, section 3.3",
    summary: "excitation_backprop less the same with the last layer's weights negated, signed: where it is negative the \
              opposite of the class is excited more. The difference is taken below the last layer",
    passes: "1 forward, 1 backward",
    parameters: &[],
    promises: &[],
    draws: When::Never,
    caution: "sums to nearly zero and says nothing about the size of the score, whatever --score is",
    build: |_, _| {
        // The logit's gradient is 1 at the target.
        let job = Job { rules: Composite::contrastive_excitation(), ..Job::gradient(Score::Logit) };
        Ok(Box::new(OneJob { id: ENTRY.id, job, on_copies: false }))
    },
};
