//! Scripts, from which programs are written, and the cache of programs.

use std::any::Any;
use std::fmt::Debug;
use std::hash::Hash;
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

/// Everything that a plan depends on, within an engine, besides its script.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PlanKey {
    /// The graph's id.
    pub graph: u64,
    pub decided: Decided,
    pub last: LastAdjoint,
}

/// A program, and what it was written from.
struct Kept {
    key: PlanKey,
    /// Scripts are compared by type and value.
    script: Box<dyn Any + Send + Sync>,
    plan: Arc<Plan>,
    /// Its author's notes.
    notes: Arc<dyn Any + Send + Sync>,
}

/// A script's program and notes.
pub(super) type PlanOf<S> = (Arc<Plan>, Arc<<S as Script>::Notes>);

/// Plans and their authors' notes. There are so few that a search along the list costs less than a hash.
#[derive(Default)]
pub(super) struct Plans(Vec<Kept>);

impl Plans {
    /// The entry for a script.
    pub fn get<S: Script>(&self, key: PlanKey, script: &S) -> Result<Option<PlanOf<S>>> {
        let same = |kept: &&Kept| kept.key == key && kept.script.downcast_ref::<S>().is_some_and(|s| s == script);
        let Some(kept) = self.0.iter().find(same) else { return Ok(None) };
        let notes = Arc::clone(&kept.notes).downcast().map_err(|_| Error::device("notes of another script"))?;
        Ok(Some((Arc::clone(&kept.plan), notes)))
    }

    /// Stores a plan and its notes.
    pub fn keep<S: Script>(&mut self, key: PlanKey, script: &S, plan: &Arc<Plan>, notes: &Arc<S::Notes>) {
        if self.0.len() >= MOST {
            self.0.clear();
        }
        let script = Box::new(script.clone());
        self.0.push(Kept {
            key,
            script,
            plan: Arc::clone(plan),
            notes: Arc::clone(notes) as Arc<dyn Any + Send + Sync>,
        });
    }

    /// Drops the plans of the graph with this id.
    pub fn forget(&mut self, graph: u64) {
        self.0.retain(|kept| kept.key.graph != graph);
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
    fn scripts_differ_by_type_and_value() {
        let graph = crate::graph::GraphBuilder::new(crate::tensor::Shape::vector(2));
        let input = graph.input();
        let graph = graph.finish(input).unwrap();
        let program = |decided| Builder::new(&graph, decided).unwrap().finish_watching(&[]);
        let key = |graph| PlanKey { graph, decided: Decided::Here, last: LastAdjoint::EachCopy };
        let mut plans = Plans::default();
        let plan = || Arc::new(Plan::new(program(Decided::Here), |_| 64));
        let kept = [plan(), plan(), plan(), plan()];
        plans.keep(key(1), &NumberedScript::<true>(1), &kept[0], &Arc::new(()));
        plans.keep(key(1), &NumberedScript::<true>(2), &kept[1], &Arc::new(()));
        plans.keep(key(1), &NumberedScript::<false>(1), &kept[2], &Arc::new(()));
        plans.keep(key(2), &NumberedScript::<true>(1), &kept[3], &Arc::new(()));
        let id = |found: Option<(Arc<Plan>, Arc<()>)>| found.map(|(plan, _)| plan.id);
        assert_eq!(id(plans.get(key(1), &NumberedScript::<true>(1)).unwrap()), Some(kept[0].id));
        assert_eq!(id(plans.get(key(1), &NumberedScript::<true>(2)).unwrap()), Some(kept[1].id));
        assert_eq!(id(plans.get(key(1), &NumberedScript::<false>(1)).unwrap()), Some(kept[2].id));
        assert_eq!(id(plans.get(key(2), &NumberedScript::<true>(1)).unwrap()), Some(kept[3].id));
        assert_eq!(id(plans.get(key(1), &NumberedScript::<true>(3)).unwrap()), None);
        plans.forget(1);
        assert_eq!(id(plans.get(key(1), &NumberedScript::<true>(1)).unwrap()), None);
        assert_eq!(id(plans.get(key(2), &NumberedScript::<true>(1)).unwrap()), Some(kept[3].id));
    }
}
