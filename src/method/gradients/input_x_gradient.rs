//! Picture times gradient, element by element (Shrikumar et al. 2016).

use crate::engine::Job;
use crate::method::{Entry, OneJob, When};
use crate::program::Times;

pub(crate) const ENTRY: Entry = Entry {
    id: "input_x_gradient",
    aliases: &[],
    title: "Input × gradient",
    paper: "Shrikumar, Greenside, Shcherbina, Kundaje 2016: Not just a black box, arXiv 1605.01713",
    summary: "x ∘ g, the first-order share of each pixel in the score",
    passes: "1 forward, 1 backward",
    parameters: &[],
    promises: &[],
    draws: When::Never,
    caution: "changes when the same picture is shifted and the net compensates (Kindermans 2017)",
    build: |_, context| {
        let job = Job { times: Times::Input, ..Job::gradient(context.score) };
        Ok(Box::new(OneJob { id: ENTRY.id, job, on_copies: false }))
    },
};
