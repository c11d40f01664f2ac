//! Removes steps nobody needs and merges pointwise steps into the convolutions before them.

use std::collections::HashSet;

use super::{Epilogue, Program, Step, Value};

pub(super) fn lower(program: Program) -> Program {
    fuse(without_dead_steps(program))
}

fn without_dead_steps(mut program: Program) -> Program {
    let mut needed: HashSet<Value> = HashSet::new();
    let mut kept: Vec<Step> = Vec::with_capacity(program.steps.len());
    for mut step in program.steps.into_iter().rev() {
        if !step.has_effect() && !step.writes().iter().any(|v| needed.contains(v)) {
            continue;
        }
        if let Step::MaxPool { winners, .. } = &mut step {
            *winners = winners.filter(|w| needed.contains(w));
        }
        needed.extend(step.reads());
        kept.push(step);
    }
    kept.reverse();
    program.steps = kept;
    program
}

/// Merges `Add`, `Clamp`, `Inside` and `Gate` into the epilogue of the convolution that computed their input.
fn fuse(program: Program) -> Program {
    let mut uses = vec![0usize; program.forms.len()];
    program.steps.iter().flat_map(Step::reads).for_each(|v| uses[v.index()] += 1);
    // Position in `steps` of the step that defines a value; values given by merged steps move to their convolution.
    let mut defined = vec![usize::MAX; program.forms.len()];
    let mut steps: Vec<Step> = Vec::with_capacity(program.steps.len());
    for step in program.steps {
        if !merge(&step, &mut steps, &defined, &uses) {
            steps.push(step.clone());
        }
        for v in step.writes() {
            // A merged step's result is now defined where its convolution is.
            let at = steps.iter().rposition(|s| s.writes().contains(&v));
            defined[v.index()] = at.unwrap_or(usize::MAX);
        }
    }
    Program { steps, forms: program.forms }
}

fn epilogue_of(step: &mut Step) -> Option<(&mut Value, &mut Epilogue)> {
    match step {
        Step::Conv { out, epilogue, .. } | Step::ConvAdjoint { out, epilogue, .. } => Some((out, epilogue)),
        _ => None,
    }
}

/// Whether `step` now happens in an earlier convolution's epilogue.
fn merge(step: &Step, steps: &mut [Step], defined: &[usize], uses: &[usize]) -> bool {
    match *step {
        Step::Add { a, b, out } => {
            // The later of the two operands must come from a convolution whose result nobody else reads.
            let (late, early) = if defined[a.index()] > defined[b.index()] { (a, b) } else { (b, a) };
            if a == b || uses[late.index()] != 1 || defined[early.index()] == defined[late.index()] {
                return false;
            }
            let Some((target, epilogue)) = steps.get_mut(defined[late.index()]).and_then(epilogue_of) else {
                return false;
            };
            if *epilogue != Epilogue::default() {
                return false;
            }
            epilogue.add = Some(early);
            *target = out;
            true
        }
        Step::Clamp { x, range, out } => {
            let Some((target, epilogue)) = steps.get_mut(defined[x.index()]).and_then(epilogue_of) else {
                return false;
            };
            if uses[x.index()] != 1 || *target != x || epilogue.clamp.is_some() || epilogue.gate.is_some() {
                return false;
            }
            epilogue.clamp = Some(range);
            *target = out;
            true
        }
        Step::Inside { x, range, out } => {
            let Some((target, epilogue)) = steps.get_mut(defined[x.index()]).and_then(epilogue_of) else {
                return false;
            };
            // Bits are taken before clamping; the clamp must not change what they say.
            let same = epilogue.clamp.is_none_or(|c| c == range);
            if *target != x || !same || epilogue.gate.is_some() || epilogue.bits.is_some() {
                return false;
            }
            epilogue.bits = Some((out, range));
            true
        }
        Step::Gate { s, bits, out } => {
            let at = defined[s.index()];
            let Some((target, epilogue)) = steps.get_mut(at).and_then(epilogue_of) else { return false };
            if uses[s.index()] != 1 || *target != s || epilogue.gate.is_some() || defined[bits.index()] >= at {
                return false;
            }
            epilogue.gate = Some(bits);
            *target = out;
            true
        }
        _ => false,
    }
}
