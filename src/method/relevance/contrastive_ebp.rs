//! Contrastive excitation backpropagation (Zhang et al. 2016): where the class is excited more than its complement.

use crate::engine::{Batch, Engine, Job};
use crate::error::Result;
use crate::graph::Graph;
use crate::map::{Map, Sign};
use crate::method::{Entry, Method, When, input_maps};
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
    build: |_, _| Ok(Box::new(Contrastive)),
};

/// The difference of two excitation maps.
struct Contrastive;

impl Method for Contrastive {
    fn explain(&self, engine: &mut Engine, graph: &Graph, x: &Batch, targets: &[usize]) -> Result<Vec<Map>> {
        // The logit's gradient is 1 at the target.
        let job = Job { rules: Composite::contrastive_excitation(), ..Job::gradient(Score::Logit) };
        input_maps(engine, graph, &job, x, targets, Sign::Signed, ENTRY.id)
    }
}
