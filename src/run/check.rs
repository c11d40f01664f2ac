//! Runs tests of trust on many inputs.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::path::Path;
use std::sync::Arc;

use super::said::Said;
use super::settings::Named;
use super::{InputWork, Listener, too_small};
use crate::cancel::Cancel;
use crate::data::{Item, ItemPosition, Source};
use crate::engine::Settings;
use crate::error::{Error, ErrorKind, Result};
use crate::method::Spec;
use crate::reliability::check::{Checked, Checker, Test, TestOptions, Verdict};
use crate::report::check::PictureChecked;
use crate::session::{Noticed, Session};
use crate::tensor::{Shape, Tensor};
use crate::text::counted;

/// Receives each checked input: its results; the item and details, unless it failed; and the assumptions and warnings
/// of the run and of this input.
pub type Hears<'a> = Box<dyn FnMut(&PictureChecked, Option<(&Item, &Checked)>, &Noticed) -> Result<()> + 'a>;

/// Runs tests of trust for methods on many inputs.
pub struct Checks<'a> {
    session: &'a Session,
    load: &'a dyn Fn(&Path) -> Result<Tensor>,
    settings: Settings,
    methods: Vec<(String, Spec)>,
    tests: Vec<&'static Test>,
    sources: Arc<[Source]>,
    /// One per input shape.
    checkers: HashMap<Shape, Checker<'a>>,
    cancel: Cancel,
    hears: Hears<'a>,
    pictures: Vec<PictureChecked>,
    said: Said,
    /// Whether an input has been checked.
    proven: bool,
    /// Inputs checked before the current source.
    before: usize,
}

impl<'a> Checks<'a> {
    /// Runs `tests` on `methods`, on engines of their own with the given settings.
    ///
    /// # Errors
    /// When a method has no meaning, as far as that shows before the first input.
    pub fn new(
        session: &'a Session,
        load: &'a dyn Fn(&Path) -> Result<Tensor>,
        (methods, tests, settings): (&[Named], Vec<&'static Test>, Settings),
        (sources, said): (Arc<[Source]>, Said),
        hears: Hears<'a>,
    ) -> Result<Self> {
        for method in methods {
            session.build(&method.spec).map_err(|e| e.within(format!("-m {}", method.spec)))?;
        }
        let methods = methods.iter().map(|n| (n.id.clone(), n.spec.clone())).collect();
        let (checkers, cancel, pictures) = (HashMap::new(), Cancel::default(), Vec::new());
        let (proven, before) = (false, 0);
        Ok(Self {
            session,
            load,
            settings,
            methods,
            tests,
            sources,
            checkers,
            cancel,
            hears,
            pictures,
            said,
            proven,
            before,
        })
    }

    /// The results by input, and the remarks on the run.
    pub fn close(self) -> (Vec<PictureChecked>, Said) {
        (self.pictures, self.said)
    }

    fn examine(&mut self, item: &Item, listener: &dyn Listener) -> Result<Checked> {
        let &[c, h, w] = item.input.dims() else {
            return Err(Error::input(format!("an input of shape {:?}", item.input.dims())));
        };
        let shape = Shape::new(c, h, w);
        let checker = match self.checkers.entry(shape) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => {
                let options = TestOptions {
                    seed: self.session.seed(),
                    score: self.session.explained(),
                    preprocess: self.session.preparation(),
                    load: self.load,
                    tests: self.tests.clone(),
                };
                let mut checker = Checker::new(self.session.model().graph(shape)?, options, &self.settings)?;
                checker.cancel_with(&self.cancel);
                if let Some(observer) = listener.observer() {
                    checker.engine().observe(observer);
                }
                new.insert(checker)
            }
        };
        let row = item.row.map(|row| format!(" [{row}]")).unwrap_or_default();
        let shown = &self.sources[item.source].shown;
        let mut told = |method: &str, test: &str| listener.at(&format!("{shown}{row}: {method}, {test}"));
        checker.check(&item.input, &self.methods, &mut told)
    }

    fn add(&mut self, checked: PictureChecked, found: Option<(&Item, &Checked)>, mut noticed: Noticed) -> Result<()> {
        self.said.write(&mut noticed.assumed, &mut noticed.warnings);
        (self.hears)(&checked, found, &noticed)?;
        self.pictures.push(checked);
        Ok(())
    }

    fn blank(&self, (at, row): ItemPosition) -> PictureChecked {
        PictureChecked { input: self.sources[at].shown.clone(), index: row, ..PictureChecked::default() }
    }
}

impl InputWork for Checks<'_> {
    type Input = Item;

    fn name(&self, at: usize) -> String {
        self.sources[at].shown.clone()
    }

    fn cancel_with(&mut self, cancel: &Cancel) {
        self.cancel = cancel.clone();
    }

    fn begin(&mut self, _: usize, _: Option<(usize, bool)>) -> Result<()> {
        self.before = self.pictures.len();
        Ok(())
    }

    fn group(&mut self, items: Vec<(ItemPosition, Item)>, listener: &dyn Listener) -> Result<()> {
        for (at, item) in items {
            self.said.hear(&item, listener);
            let (mut checked, noticed) = (self.blank(at), self.said.of_item(&item));
            let found = self.examine(&item, listener);
            too_small(&found, &mut self.proven, &self.sources)?;
            match found {
                Ok(found) => {
                    checked.prediction = self.session.prediction(&found.logits, self.session.explained());
                    if let (Some(class), Some(top)) = (item.label, checked.prediction.first()) {
                        self.said.count(class == top.index);
                    }
                    checked.findings.clone_from(&found.findings);
                    self.add(checked, Some((&item, &found)), noticed)?;
                }
                Err(e) if e.kind() == ErrorKind::Cancelled => return Err(e),
                Err(e) => self.add(PictureChecked { error: Some(e.to_string()), ..checked }, None, noticed)?,
            }
        }
        Ok(())
    }

    fn failed(&mut self, at: ItemPosition, why: Error, _: &dyn Listener) -> Result<()> {
        let checked = PictureChecked { error: Some(why.to_string()), ..self.blank(at) };
        self.add(checked, None, Noticed::default())
    }

    fn end(&mut self, at: usize) -> Result<Option<String>> {
        let (shown, pictures) = (&self.sources[at].shown, &self.pictures[self.before..]);
        let error = pictures.iter().find_map(|p| p.error.as_deref());
        let usable = pictures.iter().filter(|p| p.error.is_none()).count();
        Ok(Some(match (error, usable) {
            (Some(why), 0) => format!("failed: {why}"),
            (Some(_), n) => format!("{shown}: {n} of {} checked", counted(pictures.len(), "input")),
            (None, _) => {
                let count = |v| pictures.iter().flat_map(|p| &p.findings).filter(|f| f.verdict == v).count();
                format!("{shown}: {} passed, {} failed", count(Verdict::Pass), count(Verdict::Fail))
            }
        }))
    }
}
