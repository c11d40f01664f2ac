//! Removes unused steps and merges pointwise steps into the convolutions before them.

use std::collections::HashSet;

use super::watch::watching;
use super::{Epilogue, Form, Step, Value};
use crate::graph::NodeId;

/// A step and the node that it works for.
pub(super) type NodeStep = (Step, Option<NodeId>);

/// The remaining steps, with those that watch the values in `watched`, and the node of each.
pub(super) fn lower(
    steps: Vec<NodeStep>,
    forms: &mut Vec<Form>,
    watched: &HashSet<Value>,
) -> (Vec<Step>, Vec<Option<NodeId>>) {
    let steps = watching(without_dead_steps(steps), forms, watched);
    fuse(steps, forms.len())
}

fn without_dead_steps(steps: Vec<NodeStep>) -> Vec<NodeStep> {
    let mut needed: HashSet<Value> = HashSet::new();
    let mut kept: Vec<NodeStep> = Vec::with_capacity(steps.len());
    for (mut step, node) in steps.into_iter().rev() {
        if !step.has_effect() && !step.writes().iter().any(|v| needed.contains(v)) {
            continue;
        }
        if let Step::MaxPool { winners, .. } = &mut step {
            *winners = winners.filter(|w| needed.contains(w));
        }
        if let Step::Standardise { scale, .. } = &mut step {
            *scale = scale.filter(|s| needed.contains(s));
        }
        needed.extend(step.reads());
        kept.push((step, node));
    }
    kept.reverse();
    kept
}

/// Merges `Add`, `Clamp`, `Inside` and `Gate` into the epilogue of the convolution that computed their input.
fn fuse(work: Vec<NodeStep>, values: usize) -> (Vec<Step>, Vec<Option<NodeId>>) {
    let mut uses = vec![0usize; values];
    work.iter().flat_map(|(step, _)| step.reads()).for_each(|v| uses[v.index()] += 1);
    // Position in `steps` of the step that defines a value; values of merged steps move to their convolution.
    let mut defined = vec![usize::MAX; values];
    let mut steps: Vec<Step> = Vec::with_capacity(work.len());
    let mut nodes = Vec::with_capacity(work.len());
    for (step, node) in work {
        let written = step.writes();
        let at = merge(&step, &mut steps, &defined, &uses).unwrap_or_else(|| {
            steps.push(step);
            nodes.push(node);
            steps.len() - 1
        });
        written.into_iter().for_each(|v| defined[v.index()] = at);
    }
    (steps, nodes)
}

fn epilogue_of(step: &mut Step) -> Option<(&mut Value, &mut Epilogue)> {
    match step {
        Step::Conv { out, epilogue, .. } | Step::ConvAdjoint { out, epilogue, .. } => Some((out, epilogue)),
        _ => None,
    }
}

/// Position of the earlier convolution whose epilogue now includes `step`, if there is one.
fn merge(step: &Step, steps: &mut [Step], defined: &[usize], uses: &[usize]) -> Option<usize> {
    match *step {
        Step::Add { a, b, out } => {
            // The later operand must come from a convolution whose result has no other reader.
            let (late, early) = if defined[a.index()] > defined[b.index()] { (a, b) } else { (b, a) };
            if a == b || uses[late.index()] != 1 || defined[early.index()] == defined[late.index()] {
                return None;
            }
            let at = defined[late.index()];
            let (target, epilogue) = steps.get_mut(at).and_then(epilogue_of)?;
            if *epilogue != Epilogue::default() {
                return None;
            }
            epilogue.add = Some(early);
            *target = out;
            Some(at)
        }
        Step::Clamp { x, range, out } => {
            let at = defined[x.index()];
            let (target, epilogue) = steps.get_mut(at).and_then(epilogue_of)?;
            if uses[x.index()] != 1 || *target != x || epilogue.clamp.is_some() || epilogue.gate.is_some() {
                return None;
            }
            epilogue.clamp = Some(range);
            *target = out;
            Some(at)
        }
        Step::Inside { x, range, out } => {
            let at = defined[x.index()];
            let (target, epilogue) = steps.get_mut(at).and_then(epilogue_of)?;
            // Bits are taken before clamping; the clamp must not change their meaning.
            let same = epilogue.clamp.is_none_or(|c| c == range);
            if *target != x || !same || epilogue.gate.is_some() || epilogue.bits.is_some() {
                return None;
            }
            epilogue.bits = Some((out, range));
            Some(at)
        }
        Step::Gate { s, bits, out } => {
            let at = defined[s.index()];
            let (target, epilogue) = steps.get_mut(at).and_then(epilogue_of)?;
            if uses[s.index()] != 1 || *target != s || epilogue.gate.is_some() || defined[bits.index()] >= at {
                return None;
            }
            epilogue.gate = Some(bits);
            *target = out;
            Some(at)
        }
        _ => None,
    }
}
