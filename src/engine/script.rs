//! Scripts, from which programs are written, and the cache of programs.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::fmt::Debug;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::program::{Builder, Decided, LastAdjoint, Plan};

/// Most programs in the cache; when it is full, it is emptied. Pictures of many sizes would otherwise fill it without
/// limit.
pub(super) const MOST: usize = 64;

/// Writes a method's program.
///
/// `write` sees only the script and the graph. So everything that changes the program is a field of the script, and the
/// engine can cache programs by graph and script: equal scripts write equal programs.
pub trait Script: Clone + Eq + Hash + Debug + Send + Sync + 'static {
    /// What the author must know about the program, such as which slot stores what; cached with the program.
    type Notes: Send + Sync + 'static;

    /// Writes the program.
    ///
    /// # Errors
    /// When a step is refused; [`Engine::evaluate`](super::Engine::evaluate) returns the error.
    fn write(&self, b: &mut Builder<'_>) -> Result<Self::Notes>;
}

/// A script of any type, with its type erased.
trait AnyScript: Send + Sync {
    fn as_any(&self) -> &dyn Any;
    fn equals(&self, other: &dyn Any) -> bool;
    fn feed(&self, state: &mut dyn Hasher);
}

impl<S: Script> AnyScript for S {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn equals(&self, other: &dyn Any) -> bool {
        other.downcast_ref::<S>().is_some_and(|other| self == other)
    }

    fn feed(&self, mut state: &mut dyn Hasher) {
        TypeId::of::<S>().hash(&mut state);
        self.hash(&mut state);
    }
}

/// A script compared by type and value.
struct Name(Box<dyn AnyScript>);

impl PartialEq for Name {
    fn eq(&self, other: &Self) -> bool {
        self.0.equals(other.0.as_any())
    }
}

impl Eq for Name {}

impl Hash for Name {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.feed(state);
    }
}

/// Everything that a plan depends on, within an engine.
#[derive(PartialEq, Eq, Hash)]
pub(super) struct PlanKey {
    graph: u64,
    decided: Decided,
    last: LastAdjoint,
    script: Name,
}

impl PlanKey {
    /// A script's program over the graph with this id.
    pub fn new<S: Script>(graph: u64, decided: Decided, last: LastAdjoint, script: &S) -> Self {
        Self { graph, decided, last, script: Name(Box::new(script.clone())) }
    }
}

/// Plans and their authors' notes.
#[derive(Default)]
pub(super) struct Plans(HashMap<PlanKey, (Arc<Plan>, Arc<dyn Any + Send + Sync>)>);

impl Plans {
    /// The entry for a script's key.
    pub fn get<T: Send + Sync + 'static>(&self, key: &PlanKey) -> Result<Option<(Arc<Plan>, Arc<T>)>> {
        let Some((plan, notes)) = self.0.get(key) else { return Ok(None) };
        let notes = Arc::clone(notes).downcast().map_err(|_| Error::device("notes of another script"))?;
        Ok(Some((Arc::clone(plan), notes)))
    }

    /// Stores a plan and its notes.
    pub fn keep<T: Send + Sync + 'static>(&mut self, key: PlanKey, plan: &Arc<Plan>, notes: &Arc<T>) {
        if self.0.len() >= MOST {
            self.0.clear();
        }
        self.0.insert(key, (Arc::clone(plan), Arc::clone(notes) as Arc<dyn Any + Send + Sync>));
    }

    /// Drops the plans of the graph with this id.
    pub fn forget(&mut self, graph: u64) {
        self.0.retain(|key, _| key.graph != graph);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Clone, PartialEq, Eq, Hash)]
    struct NumberedScript<const KIND: bool>(usize);

    impl<const KIND: bool> Script for NumberedScript<KIND> {
        type Notes = ();

        fn write(&self, _: &mut Builder<'_>) -> Result<()> {
            Ok(())
        }
    }

    #[test]
    fn names_differ_by_type_and_value() {
        let names = || {
            [
                Name(Box::new(NumberedScript::<true>(1))),
                Name(Box::new(NumberedScript::<true>(2))),
                Name(Box::new(NumberedScript::<false>(1))),
            ]
        };
        for (i, a) in names().into_iter().enumerate() {
            let set = std::collections::HashSet::from([a]);
            assert_eq!(names().map(|b| set.contains(&b)), [0, 1, 2].map(|j| i == j), "{i}");
        }
    }
}
