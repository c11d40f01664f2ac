//! The gradient of the score with respect to the picture (Simonyan et al. 2014).

use crate::engine::Job;
use crate::method::{Entry, OneJob, When};

pub(crate) const ENTRY: Entry = Entry {
    id: "gradient",
    aliases: &[],
    title: "Gradient",
    paper: "Simonyan, Vedaldi, Zisserman 2014: Deep inside convolutional networks, ICLR workshop",
    summary: "g = ∂f/∂x, the score's slope at each pixel",
    passes: "1 forward, 1 backward",
    parameters: &[],
    promises: &[],
    draws: When::Never,
    caution: "noisy on deep nets; small where the score saturates",
    build: |_, context| Ok(Box::new(OneJob { id: ENTRY.id, job: Job::gradient(context.score), on_copies: true })),
};
