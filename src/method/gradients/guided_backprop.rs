//! Guided backpropagation (Springenberg et al. 2015).

use crate::engine::Job;
use crate::method::{Entry, OneJob, When};
use crate::rule::Composite;

pub(crate) const ENTRY: Entry = Entry {
    id: "guided_backprop",
    aliases: &[],
    title: "Guided backpropagation",
    paper: "Springenberg, Dosovitskiy, Brox, Riedmiller 2015: Striving for simplicity, ICLR workshop",
    summary: "backward with max(·, 0) at every active ReLU",
    passes: "1 forward, 1 backward",
    parameters: &[],
    promises: &[],
    draws: When::Never,
    caution: "close to a picture of edges; hardly depends on the class or on upper layers' weights (Adebayo 2018)",
    build: |_, context| {
        let job = Job { rules: Composite::guided(), ..Job::gradient(context.score) };
        Ok(Box::new(OneJob { id: ENTRY.id, job, on_copies: true }))
    },
};
