//! PatternNet (Kindermans et al. 2018): the gradient, with weights replaced by patterns.

use crate::method::shared::patterns::{self, StandIn};
use crate::method::{Entry, When};

pub(crate) const ENTRY: Entry = Entry {
    id: "pattern_net",
    aliases: &[],
    title: "PatternNet",
    paper: "Kindermans, Schütt, Alber, Müller, Erhan, Kim, Dähne 2018: Learning how to explain neural networks: PatternNet \
            and PatternAttribution, ICLR, section 4",
    summary: "the gradient with each layer's patterns a in place of its weights w: the part of the picture that carries the signal",
    passes: "1 forward, 1 backward",
    parameters: patterns::PARAMETERS,
    promises: &[],
    draws: When::Never,
    caution: "as good as the data the patterns were fitted to. Our choices: the way back starts with the score's gradient (the \
              paper's signal is that times the score), all means of the relu estimator are taken over the samples with \
              y > 0 (the paper's mix does not survive a shift of the data), in every layer",
    build: |values, context| patterns::build(ENTRY.id, StandIn::Pattern, values, context),
};
