//! Collects the assumptions and warnings of a run, each once; every result carries them.

use std::collections::BTreeMap;

use super::Listener;
use crate::data::Item;
use crate::graph::{Graph, Node, Op};
use crate::image::Preprocess;
use crate::model::{Model, Setting};
use crate::reliability::share::Share;
use crate::session::{Noticed, Session};

/// Most sentences of a kind that a run collects; records have their own in any case.
pub(super) const MOST_LATE: usize = 1000;

/// Assumptions and warnings of a run.
#[derive(Debug, Clone, Default)]
pub struct Said {
    /// Assumed settings, such as `preparation: ImageNet`.
    pub assumed: Vec<String>,
    /// Probable mistakes, one sentence each.
    pub warnings: Vec<String>,
    /// Warnings found during the run; results written earlier do not carry them.
    late: Vec<String>,
    /// Assumptions about single inputs.
    late_assumed: Vec<String>,
    /// Accuracy on inputs with a known class.
    share: Share,
    /// Whether the net scales its input itself, so that numbers of any scale are fine.
    scales: bool,
}

impl Said {
    /// For a session's net and preparation; `given` are the settings that the user gave.
    pub fn new(session: &Session, given: &[Setting]) -> Self {
        let mut said = Self::of(session.model(), session.preparation(), given);
        // Remarks on files named by methods' parameters apply to every result.
        let noticed = said.of_noticed(&session.noticed());
        said.assumed.extend(noticed.assumed);
        said.warnings.extend(noticed.warnings);
        said
    }

    /// For a net and its preparation; `given` are the settings that the user gave.
    pub fn of(model: &Model, preprocess: &Preprocess, given: &[Setting]) -> Self {
        let mut said = Self { assumed: model.assumed(given), ..Self::of_net(model) };
        if preprocess.takes_pictures() && !said.scales {
            said.warnings.extend(preprocess.suspicion());
        }
        if model.scales_pictures() && [Setting::Mean, Setting::Std].iter().any(|setting| given.contains(setting)) {
            let why = "the graph scales pictures itself, and the mean or std that was given comes on top";
            said.warnings.push(why.to_owned());
        }
        said
    }

    /// For a net alone.
    pub fn of_net(model: &Model) -> Self {
        let scales = scales_itself(model.unfolded());
        Self { assumed: model.assumed(&[]), warnings: model.warnings().to_vec(), scales, ..Self::default() }
    }

    /// Reports the warnings.
    pub fn tell(&self, listener: &dyn Listener) {
        self.warnings.iter().for_each(|warning| listener.say(&format!("warning: {warning}")));
    }

    /// Adds a warning found during the run; each is reported once.
    pub fn add(&mut self, warning: &str, listener: &dyn Listener) {
        if self.late.len() < MOST_LATE && !self.late.iter().any(|known| known == warning) {
            listener.say(&format!("warning: {warning}"));
            self.late.push(warning.to_owned());
        }
    }

    /// Remarks on one input.
    pub fn of_item(&self, item: &Item) -> Noticed {
        self.of_noticed(&item.noticed)
    }

    /// Selects what to report: doubts become warnings, unless the net scales its input itself.
    pub fn of_noticed(&self, noticed: &Noticed) -> Noticed {
        let mut noticed = noticed.clone();
        let doubts = std::mem::take(&mut noticed.doubts);
        noticed.warnings.extend(doubts.into_iter().filter(|_| !self.scales));
        noticed
    }

    /// Adds the remarks of a result that is not recomputed, without reporting them again.
    pub fn remember(&mut self, assumed: &[String], warnings: &[String]) {
        let pairs = [(&self.assumed, &mut self.late_assumed, assumed), (&self.warnings, &mut self.late, warnings)];
        for (early, late, then) in pairs {
            for what in then {
                if late.len() < MOST_LATE && !early.contains(what) && !late.contains(what) {
                    late.push(what.clone());
                }
            }
        }
    }

    /// Reports remarks on an input, each sentence once.
    pub fn note(&mut self, noticed: &Noticed, listener: &dyn Listener) {
        for what in &noticed.assumed {
            if self.late_assumed.len() < MOST_LATE && !self.late_assumed.contains(what) {
                listener.say(what);
                self.late_assumed.push(what.clone());
            }
        }
        noticed.warnings.iter().for_each(|warning| self.add(warning, listener));
    }

    /// Reports the remarks on an input as soon as it is read, since it may fail later.
    pub fn hear(&mut self, item: &Item, listener: &dyn Listener) {
        self.note(&self.of_item(item), listener);
    }

    /// Counts an input whose class is known.
    pub fn count(&mut self, right: bool) {
        self.share.add(right);
    }

    /// Warns, at the end, if the net does no better than guessing among `classes` classes.
    pub fn judge(&mut self, classes: usize, listener: &dyn Listener) {
        let Share { right, of } = self.share;
        if self.share.is_guessing(classes) {
            let warning = format!(
                "right on {:.1} % of {of} pictures: is the preparation, or the order of bytes, as the net expects?",
                100.0 * right as f64 / of as f64
            );
            listener.say(&format!("warning: {warning}"));
            // Added beyond the limit too, because it concerns the whole run.
            self.late.push(warning);
        }
    }

    /// All warnings, including those found during the run.
    pub fn all(&self) -> Vec<String> {
        self.warnings.iter().chain(&self.late).cloned().collect()
    }

    /// All assumptions, including those about single inputs.
    pub fn all_assumed(&self) -> Vec<String> {
        self.assumed.iter().chain(&self.late_assumed).cloned().collect()
    }

    /// Adds the run's remarks to a record, before those on the record's own input.
    pub fn write(&self, assumed: &mut Vec<String>, warnings: &mut Vec<String>) {
        assumed.splice(..0, self.assumed.iter().cloned());
        warnings.splice(..0, self.warnings.iter().cloned());
    }

    /// As notes for a file that stores texts.
    pub fn notes(&self) -> BTreeMap<String, String> {
        let notes = [("assumed", self.all_assumed()), ("warnings", self.all())];
        let notes = notes.into_iter().filter(|(_, lines)| !lines.is_empty());
        notes.map(|(key, lines)| (key.to_owned(), lines.join("; "))).collect()
    }
}

/// Whether the net scales its input before anything else.
fn scales_itself(net: &Graph) -> bool {
    let reads_input = |node: &Node| node.inputs.first().is_some_and(|&i| matches!(net.node(i).op, Op::Input));
    net.nodes().iter().any(|node| reads_input(node) && matches!(node.op, Op::BatchNorm(_) | Op::Affine(_)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{BatchNorm, GraphBuilder};
    use crate::tensor::Shape;

    #[test]
    fn numbers_of_any_size_suit_a_net_that_scales_them() {
        let net = |first: Op| {
            let mut builder = GraphBuilder::new(Shape::new(1, 2, 2));
            let x = builder.input();
            let scaled = builder.push("first", first, &[x]).unwrap();
            let out = builder.push("flatten", Op::Flatten, &[scaled]).unwrap();
            builder.finish(out).unwrap()
        };
        let one = |v: f64| -> std::sync::Arc<[f64]> { vec![v].into() };
        let norm = BatchNorm { gamma: one(1.0), beta: one(0.0), mean: one(127.0), variance: one(4096.0), eps: 0.0 };
        assert!(scales_itself(&net(Op::BatchNorm(norm))) && !scales_itself(&net(Op::Relu)));
    }

    #[test]
    fn a_run_that_guesses_says_so_however_much_was_said() {
        let mut said = Said::default();
        (0..MOST_LATE + 5).for_each(|i| said.add(&format!("warning {i}"), &()));
        (0..1000).for_each(|_| said.count(false));
        said.judge(1000, &());
        assert_eq!(said.all().len(), MOST_LATE + 1);
        assert!(said.all()[MOST_LATE].contains("right on 0.0 %"));
    }

    #[test]
    fn what_results_of_before_say_is_kept_once() {
        let mut said = Said { warnings: vec!["early".into()], late: vec!["late".into()], ..Said::default() };
        for _ in 0..2 {
            said.remember(&["taken".into()], &["early".into(), "late".into(), "then".into()]);
        }
        assert_eq!(
            (said.all(), said.all_assumed()),
            (["early", "late", "then"].map(String::from).into(), vec!["taken".into()])
        );
    }
}
