//! Deconvolutional net (Zeiler et al. 2014).

use crate::engine::Job;
use crate::method::{Entry, OneJob, When};
use crate::rule::Composite;

pub(crate) const ENTRY: Entry = Entry {
    id: "deconvnet",
    aliases: &[],
    title: "Deconvolutional net",
    paper: "Zeiler, Fergus 2014: Visualizing and understanding convolutional networks, ECCV",
    summary: "backward with max(·, 0) at every ReLU instead of its gate",
    passes: "1 forward, 1 backward",
    parameters: &[],
    promises: &[],
    draws: When::Never,
    caution: "close to a picture of edges; hardly depends on the class (Nie 2018)",
    build: |_, context| {
        let job = Job { rules: Composite::deconvnet(), ..Job::gradient(context.score) };
        Ok(Box::new(OneJob { id: ENTRY.id, job, on_copies: false }))
    },
};
