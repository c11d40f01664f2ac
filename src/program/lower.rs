//! Removes unused steps and merges pointwise steps into the convolutions before them.

use std::collections::{HashMap, HashSet};

use super::{Elementwise, Epilogue, Form, Step, Value};
use crate::graph::{NodeId, Smooth};

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
    /// Of these, steps that compute the slope of an activation: their positions and the activations.
    slopes: Vec<Vec<(usize, Smooth)>>,
}

/// Steps so far, with what follows merged into them.
struct Fused {
    steps: Vec<Step>,
    /// The input of the activation that a convolution took in, by the convolution's position.
    activated: HashMap<usize, Value>,
    /// Position of the step that defines a value; values of merged steps move to their convolution.
    defined: Vec<usize>,
}

/// Adjoints onto so few channels have kernels of their own, which take no factor.
const FEW_CHANNELS: usize = 4;

/// Merges pointwise steps into the epilogue of the convolution that computed their input.
fn fuse(work: Vec<NodeStep>, forms: &[Form]) -> (Vec<Step>, Vec<Option<NodeId>>) {
    let values = forms.len();
    let mut readers = Readers { forms, count: vec![0; values], slopes: vec![Vec::new(); values] };
    for (position, (step, _)) in work.iter().enumerate() {
        for v in step.reads() {
            readers.count[v.index()] += 1;
            if let Step::Elementwise { op: Elementwise::Slope(f), .. } = step {
                readers.slopes[v.index()].push((position, *f));
            }
        }
    }
    let steps = Vec::with_capacity(work.len());
    let mut fused = Fused { steps, activated: HashMap::new(), defined: vec![usize::MAX; values] };
    let mut nodes = Vec::with_capacity(work.len());
    for (position, (step, node)) in work.into_iter().enumerate() {
        let written = step.writes();
        let at = fused.merge(&step, position, &readers).unwrap_or_else(|| {
            fused.steps.push(step);
            nodes.push(node);
            fused.steps.len() - 1
        });
        written.into_iter().for_each(|v| fused.defined[v.index()] = at);
    }
    (fused.steps, nodes)
}

fn epilogue_of(step: &mut Step) -> Option<(&mut Value, &mut Epilogue)> {
    match step {
        Step::Conv { out, epilogue, .. } | Step::ConvAdjoint { out, epilogue, .. } => Some((out, epilogue)),
        _ => None,
    }
}

impl Fused {
    /// The step that defines `x`, if it is a convolution whose result is `x`.
    fn convolution(&mut self, x: Value) -> Option<(usize, &mut Value, &mut Epilogue)> {
        let at = self.defined[x.index()];
        let (target, epilogue) = self.steps.get_mut(at).and_then(epilogue_of)?;
        (*target == x).then_some((at, target, epilogue))
    }

    /// The later and the earlier of two operands, if nobody else reads the later one.
    fn in_order(&self, a: Value, b: Value, readers: &Readers<'_>) -> Option<(Value, Value)> {
        let [at_a, at_b] = [a, b].map(|v| self.defined[v.index()]);
        let (late, early) = if at_a > at_b { (a, b) } else { (b, a) };
        (at_a != at_b && readers.count[late.index()] == 1).then_some((late, early))
    }

    /// Position of the earlier convolution whose epilogue now includes `step`, if there is one.
    fn merge(&mut self, step: &Step, position: usize, readers: &Readers<'_>) -> Option<usize> {
        let read_once = |v: Value| readers.count[v.index()] == 1;
        match step {
            Step::Add { a, b, out } => {
                let (late, early) = self.in_order(*a, *b, readers)?;
                let (at, target, epilogue) = self.convolution(late)?;
                if *epilogue != Epilogue::default() {
                    return None;
                }
                epilogue.add = Some(early);
                *target = *out;
                Some(at)
            }
            Step::Clamp { x, range, out } => {
                let (at, target, epilogue) = self.convolution(*x)?;
                if !read_once(*x) || epilogue.clamp.is_some() || epilogue.is_closed() {
                    return None;
                }
                epilogue.clamp = Some(*range);
                *target = *out;
                Some(at)
            }
            Step::Inside { x, range, out } => {
                let (at, _, epilogue) = self.convolution(*x)?;
                // Bits are taken before clamping; the clamp must not change their meaning.
                let same = epilogue.clamp.is_none_or(|c| c == *range);
                if !same || epilogue.is_closed() || epilogue.bits.is_some() {
                    return None;
                }
                epilogue.bits = Some((*out, *range));
                Some(at)
            }
            Step::Gate { s, bits, out } => {
                let defined = self.defined[bits.index()];
                let (at, target, epilogue) = self.convolution(*s)?;
                if !read_once(*s) || epilogue.is_closed() || defined >= at {
                    return None;
                }
                epilogue.gate = Some(*bits);
                *target = *out;
                Some(at)
            }
            Step::Elementwise { op: Elementwise::Mul, xs, out } => {
                // A signal times what an earlier step stored.
                let &[a, b] = &xs[..] else { return None };
                let (late, early) = self.in_order(a, b, readers)?;
                let forms = [late, early].map(|v| readers.forms[v.index()]);
                let few = forms[0].shape().c <= FEW_CHANNELS;
                let adjoint = matches!(self.steps.get(self.defined[late.index()]), Some(Step::ConvAdjoint { .. }));
                let (at, target, epilogue) = self.convolution(late)?;
                if forms[0] != forms[1] || few || !adjoint || !epilogue.is_sum() {
                    return None;
                }
                epilogue.times = Some(early);
                *target = *out;
                Some(at)
            }
            Step::Elementwise { op: Elementwise::Smooth(f), xs, out } => {
                let &[x] = &xs[..] else { return None };
                // The input is not stored: nothing may read it but one later slope of this activation.
                let slopes = &readers.slopes[x.index()];
                let alone = slopes.len() <= 1 && readers.count[x.index()] == 1 + slopes.len();
                if !alone || slopes.iter().any(|(at, of)| *at < position || of != f) {
                    return None;
                }
                let forward = matches!(self.steps.get(self.defined[x.index()]), Some(Step::Conv { .. }));
                let (at, target, epilogue) = self.convolution(x)?;
                if !forward || !epilogue.is_sum() {
                    return None;
                }
                epilogue.smooth = Some((*f, None));
                *target = *out;
                self.activated.insert(at, x);
                Some(at)
            }
            Step::Elementwise { op: Elementwise::Slope(_), xs, out } => {
                let &[x] = &xs[..] else { return None };
                let at = self.defined[x.index()];
                if self.activated.get(&at) != Some(&x) {
                    return None;
                }
                let (_, epilogue) = self.steps.get_mut(at).and_then(epilogue_of)?;
                let (_, slope) = epilogue.smooth.as_mut()?;
                *slope = Some(*out);
                Some(at)
            }
            _ => None,
        }
    }
}
