//! Removes unused steps and merges pointwise steps into the convolutions before them.

use std::collections::HashSet;

use super::{Elementwise, Epilogue, Form, Step, Value};
use crate::graph::NodeId;

/// A step and the node that it works for.
type NodeStep = (Step, Option<NodeId>);

/// The remaining steps, and the node of each.
pub(super) fn lower(steps: Vec<NodeStep>, forms: &[Form]) -> (Vec<Step>, Vec<Option<NodeId>>) {
    fuse(without_dead_steps(steps), forms)
}

/// The values that some step with an effect depends on.
pub(super) fn needed<'a>(steps: impl DoubleEndedIterator<Item = &'a Step>) -> HashSet<Value> {
    let mut needed = HashSet::new();
    for step in steps.rev() {
        if step.has_effect() || step.writes().iter().any(|v| needed.contains(v)) {
            needed.extend(step.reads());
        }
    }
    needed
}

fn without_dead_steps(mut steps: Vec<NodeStep>) -> Vec<NodeStep> {
    let needed = needed(steps.iter().map(|(step, _)| step));
    steps.retain_mut(|(step, _)| {
        let kept = step.has_effect() || step.writes().iter().any(|v| needed.contains(v));
        if let Step::MaxPool { winners, .. } = step {
            *winners = winners.filter(|w| needed.contains(w));
        }
        if let Step::Standardise { scale, .. } = step {
            *scale = scale.filter(|s| needed.contains(s));
        }
        kept
    });
    steps
}

/// Who reads each value.
struct Readers<'a> {
    forms: &'a [Form],
    count: Vec<usize>,
    /// Of these, steps that compute the slope of an activation.
    slopes: Vec<usize>,
}

/// Merges pointwise steps into the epilogue of the convolution that computed their input.
fn fuse(work: Vec<NodeStep>, forms: &[Form]) -> (Vec<Step>, Vec<Option<NodeId>>) {
    let values = forms.len();
    let mut readers = Readers { forms, count: vec![0; values], slopes: vec![0; values] };
    for (step, _) in &work {
        let slope = usize::from(matches!(step, Step::Elementwise { op: Elementwise::Slope(_), .. }));
        for v in step.reads() {
            readers.count[v.index()] += 1;
            readers.slopes[v.index()] += slope;
        }
    }
    // Position in `steps` of the step that defines a value; values of merged steps move to their convolution.
    let mut defined = vec![usize::MAX; values];
    let mut steps: Vec<Step> = Vec::with_capacity(work.len());
    let mut nodes = Vec::with_capacity(work.len());
    for (step, node) in work {
        let written = step.writes();
        let at = merge(&step, &mut steps, &defined, &readers).unwrap_or_else(|| {
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
fn merge(step: &Step, steps: &mut [Step], defined: &[usize], readers: &Readers<'_>) -> Option<usize> {
    let uses = &readers.count;
    match step {
        &Step::Add { a, b, out } => {
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
        &Step::Clamp { x, range, out } => {
            let at = defined[x.index()];
            let (target, epilogue) = steps.get_mut(at).and_then(epilogue_of)?;
            if uses[x.index()] != 1 || *target != x || epilogue.clamp.is_some() || epilogue.ends() {
                return None;
            }
            epilogue.clamp = Some(range);
            *target = out;
            Some(at)
        }
        &Step::Inside { x, range, out } => {
            let at = defined[x.index()];
            let (target, epilogue) = steps.get_mut(at).and_then(epilogue_of)?;
            // Bits are taken before clamping; the clamp must not change their meaning.
            let same = epilogue.clamp.is_none_or(|c| c == range);
            if *target != x || !same || epilogue.ends() || epilogue.bits.is_some() {
                return None;
            }
            epilogue.bits = Some((out, range));
            Some(at)
        }
        &Step::Gate { s, bits, out } => {
            let at = defined[s.index()];
            let (target, epilogue) = steps.get_mut(at).and_then(epilogue_of)?;
            if uses[s.index()] != 1 || *target != s || epilogue.ends() || defined[bits.index()] >= at {
                return None;
            }
            epilogue.gate = Some(bits);
            *target = out;
            Some(at)
        }
        Step::Elementwise { op, xs, out } => merge_elementwise(*op, xs, *out, steps, defined, readers),
        _ => None,
    }
}

/// As [`merge`], for an elementwise function.
fn merge_elementwise(
    op: Elementwise,
    xs: &[Value],
    out: Value,
    steps: &mut [Step],
    defined: &[usize],
    readers: &Readers<'_>,
) -> Option<usize> {
    match (op, xs) {
        // A signal times what the forward pass stored.
        (Elementwise::Mul, &[a, b]) => {
            let (late, early) = if defined[a.index()] > defined[b.index()] { (a, b) } else { (b, a) };
            let same = readers.forms[late.index()] == readers.forms[early.index()];
            if !same || readers.count[late.index()] != 1 || defined[early.index()] == defined[late.index()] {
                return None;
            }
            let at = defined[late.index()];
            let Some(Step::ConvAdjoint { out: target, epilogue, .. }) = steps.get_mut(at) else { return None };
            if *target != late || !epilogue.is_sum() {
                return None;
            }
            epilogue.times = Some(early);
            *target = out;
            Some(at)
        }
        (Elementwise::Smooth(f), &[x]) => {
            let at = defined[x.index()];
            let Some(Step::Conv { out: target, epilogue, .. }) = steps.get_mut(at) else { return None };
            // The input is not stored, so nothing else reads it but one slope.
            let slopes = readers.slopes[x.index()];
            if *target != x || !epilogue.is_sum() || slopes > 1 || readers.count[x.index()] != 1 + slopes {
                return None;
            }
            epilogue.smooth = Some((f, None));
            *target = out;
            Some(at)
        }
        // The convolution has an activation only if `x` is that activation's input.
        (Elementwise::Slope(f), &[x]) => {
            let at = defined[x.index()];
            let Some(Step::Conv { epilogue, .. }) = steps.get_mut(at) else { return None };
            match &mut epilogue.smooth {
                Some((of, slope @ None)) if *of == f => *slope = Some(out),
                _ => return None,
            }
            Some(at)
        }
        _ => None,
    }
}
