//! Deep Taylor decomposition (Montavon et al. 2017): relevance by the z⁺ rule inside the net, by z^B at the pixels.

use crate::engine::Start;
use crate::map::Sign;
use crate::method::shared::conservation::Propagation;
use crate::method::{Entry, Promise, When};
use crate::rule::Composite;

pub(crate) const ENTRY: Entry = Entry {
    id: "deep_taylor",
    aliases: &["dtd"],
    title: "Deep Taylor decomposition",
    paper: "Montavon, Lapuschkin, Binder, Samek, Müller 2017: Explaining nonlinear classification decisions with deep Taylor \
            decomposition, Pattern Recognition, sections 4.2 and 4.3",
    summary: "as lrp, by z⁺ for all layers with weights but those at the pixels, and there by z^B with the preprocessed 0 and \
              255 as bounds; positive biases, which the paper does not allow, keep their part (our choice)",
    passes: "1 forward, 1 backward; 3 convolutions each way at the pixels",
    parameters: &[],
    promises: &[(Promise::Conservation, When::Always)],
    draws: When::Never,
    caution: "made for positive scores and pixels within the bounds; seldom tells one class from another, since nothing speaks \
              against a class; biases may keep most of the score, see the record's shares",
    build: |_, context| {
        let preprocess = context.preprocess;
        let rules = Composite::deep_taylor(&preprocess.black(), &preprocess.white()).map_err(|e| e.within(ENTRY.id))?;
        let (score, start) = (context.score, Start::Relevance);
        Ok(Box::new(Propagation { id: ENTRY.id, rules, score, start, sign: Sign::Signed }))
    },
};
