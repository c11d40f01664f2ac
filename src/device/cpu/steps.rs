//! Divides steps into tasks, one function per family.

use super::conv::PassDirection;
use super::isa::Isa;
use super::memory::Shared;
use super::pointwise::{self, Pointwise, bounds};
use super::{Cpu, CpuValues, PIECE, arrange, pool, quantile, source};
use crate::device::{Chunk, Harvest};
use crate::error::{Error, Result};
use crate::graph::{Link, NodeId};
use crate::program::{Elementwise, Form, PoolLayer, Range, Score, Statistic, Step, Value, WinnerWidth};
use crate::tensor::{Scalar, Tensor};

impl<I: Isa> Cpu<I> {
    /// Runs a step for all copies. Unused lanes of its results are zero.
    pub(super) fn step(
        &mut self,
        step: &Step,
        v: &CpuValues<'_, I>,
        chunk: &Chunk<'_>,
        harvest: &mut Harvest,
    ) -> Result<()> {
        match step {
            Step::Perturb { out } => self.perturb(*out, v, chunk),
            Step::Load { slot, out } => self.load(*slot, *out, v, chunk)?,
            Step::LoadDecisions { node, out } => self.load_all_decisions(*node, *out, v, chunk)?,
            Step::Conv { layer, x, out, epilogue } => self.conv(layer, PassDirection::Forward, *x, *out, epilogue, v),
            Step::ConvAdjoint { layer, s, out, epilogue } => {
                self.conv(layer, PassDirection::Adjoint, *s, *out, epilogue, v);
            }
            Step::Linear { layer, x, out } => self.linear(layer, *x, *out, v),
            Step::LinearAdjoint { layer, s, out } => self.linear_adjoint(layer, *s, *out, v),
            Step::ConvWeightAdjoint { layer, x, s, out } => self.conv_weight_adjoint(layer, *x, *s, *out, v),
            Step::LinearWeightAdjoint { x, s, out, .. } => self.linear_weight_adjoint(*x, *s, *out, v),
            Step::Add { a, b, out } => self.pointwise(*out, v, |n| Pointwise::Add(v.at(*a, n), v.at(*b, n))),
            Step::Clamp { x, range, out } => {
                let bounds = bounds::<I::T>(*range);
                self.pointwise(*out, v, |n| Pointwise::Clamp(v.at(*x, n), bounds));
            }
            Step::Gate { s, bits, out } => self.pointwise(*out, v, |n| Pointwise::Gate(v.at(*s, n), v.at(*bits, n))),
            Step::Elementwise { op, xs, out } => self.elementwise(*op, xs, *out, v)?,
            Step::ScaleChannels { weights, x, out } => self.scale_channels(*weights, *x, *out, v),
            Step::Inside { x, range, out } => self.inside(*x, *range, *out, v),
            Step::AboveQuantile { x, q, out } => self.each(v.copies, |n, _| {
                // SAFETY: every task writes its own copy's bits, one per number.
                unsafe { quantile::above(v.slice(*x, n), v.shape(*x), I::LANES, *q, v.at(*out, n)) };
            }),
            Step::MaxPool { layer, x, out, winners } => self.max_pool(*layer, [*x, *out], *winners, v),
            Step::PreferWinners { layer, x, winners, preferred, out } => {
                self.prefer_winners(*layer, *x, [*winners, *preferred, *out], v)?;
            }
            Step::MaxPoolAdjoint { layer, s, winners, out } => {
                self.max_pool_adjoint(*layer, [*s, *out], *winners, v)?;
            }
            Step::AvgPool { layer, count_padding, x, out } => {
                self.avg_pool((*layer, *count_padding), PassDirection::Forward, [*x, *out], v);
            }
            Step::AvgPoolAdjoint { layer, count_padding, s, out } => {
                self.avg_pool((*layer, *count_padding), PassDirection::Adjoint, [*s, *out], v);
            }
            Step::AdaptiveAvgPool { x, out } => self.adaptive(PassDirection::Forward, [*x, *out], v),
            Step::AdaptiveAvgPoolAdjoint { s, out } => self.adaptive(PassDirection::Adjoint, [*s, *out], v),
            Step::SpatialMean { x, out } => self.spatial_mean(*x, *out, v),
            Step::WeightedChannelSum { weights, x, out } => self.copies(*out, v, |n, out| {
                // SAFETY: both values were written by earlier steps.
                let (weights, numbers) = unsafe { (v.slice(*weights, n), v.slice(*x, n)) };
                arrange::weighted_channel_sum(weights, numbers, v.shape(*x), I::LANES, out);
            }),
            Step::Fill { values, out } => {
                let values: Vec<I::T> = values.iter().map(|&x| I::T::from_f64(x)).collect();
                let shape = v.shape(*out);
                self.copies(*out, v, |_, to| arrange::fill(&values, shape, I::LANES, to));
            }
            Step::Flatten { x, out } => self.copies(*out, v, |n, out| {
                let shape = v.shape(*x);
                out.fill(I::T::ZERO);
                // SAFETY: the value read was written by an earlier step.
                arrange::unblock(unsafe { v.slice(*x, n) }, shape, I::LANES, &mut out[..shape.len()]);
            }),
            Step::Unflatten { s, out } => self.copies(*out, v, |n, to| {
                let shape = v.shape(*out);
                // SAFETY: as above.
                let s = unsafe { v.slice(*s, n) };
                arrange::block(&s[..shape.len()], shape, I::LANES, to);
            }),
            Step::Concat { xs, out } => self.concat(xs, *out, v),
            Step::Channels { x, first, out } => self.copies(*out, v, |n, to| {
                // SAFETY: as above.
                arrange::channels(unsafe { v.slice(*x, n) }, v.shape(*x), *first, to, v.shape(*out), I::LANES);
            }),
            Step::Subsample { x, stride, out } => self.copies(*out, v, |n, to| {
                // SAFETY: as above.
                arrange::subsample(unsafe { v.slice(*x, n) }, v.shape(*x), *stride, to, v.shape(*out), I::LANES);
            }),
            Step::SubsampleAdjoint { s, stride, out } => self.copies(*out, v, |n, to| {
                // SAFETY: as above.
                arrange::spread(unsafe { v.slice(*s, n) }, v.shape(*s), *stride, to, v.shape(*out), I::LANES);
            }),
            Step::Head { logits, score, link, seed } => {
                self.head(*logits, (*score, *link), *seed, v, chunk, harvest)?
            }
            Step::Aggregate { x, statistic } => self.aggregate(*x, *statistic, v, chunk, harvest)?,
            Step::Store { x, slot } => self.store(*x, *slot, v, harvest)?,
            Step::StoreDecisions { x, node } => {
                for n in 0..v.copies {
                    let decisions = self.read_decisions(*x, n, v);
                    harvest.decisions[n].nodes.insert(*node, decisions);
                }
            }
        }
        if !step.keeps_zero() {
            for out in step.writes().into_iter().filter(|&out| matches!(v.plan.form(out), Form::Dense(_))) {
                self.copies(out, v, |_, to| arrange::zero_unused(v.shape(out), I::LANES, to));
            }
        }
        Ok(())
    }
}

/// Elementwise steps.
impl<I: Isa> Cpu<I> {
    fn pointwise(&self, out: Value, v: &CpuValues<'_, I>, what: impl Fn(usize) -> Pointwise<I::T> + Sync) {
        self.vectors(out, v, |n, first, count| {
            let kernel = pointwise::Apply::<I> { what: what(n), out: v.at(out, n), first, count };
            // SAFETY: the vectors lie inside all values; features were detected.
            unsafe { I::run(kernel) };
        });
    }

    fn elementwise(&self, op: Elementwise, xs: &[Value], out: Value, v: &CpuValues<'_, I>) -> Result<()> {
        let (Some(&a), Some(&c)) = (xs.first(), xs.last()) else {
            return Err(Error::device("a function of nothing"));
        };
        let b = xs.get(1).copied().unwrap_or(a);
        self.vectors(out, v, |n, first, count| {
            let (first, count) = (first * I::LANES, count * I::LANES);
            let (a, b, c, out) = (v.at(a, n), v.at(b, n), v.at(c, n), v.at(out, n));
            // SAFETY: the elements lie inside all values; features were detected.
            unsafe { I::run(pointwise::ElementwiseTask::<I> { op, a, b, c, out, first, count }) };
        });
        Ok(())
    }

    fn scale_channels(&self, weights: Value, x: Value, out: Value, v: &CpuValues<'_, I>) {
        let plane = v.shape(x).plane();
        self.blocks(out, v, |n, b| {
            // SAFETY: block `b` lies inside the values; features were detected.
            unsafe {
                I::run(pointwise::ScaleBlock::<I> {
                    weights: v.at::<I::T>(weights, n).add(b * I::LANES),
                    x: v.at::<I::T>(x, n).add(b * plane * I::LANES),
                    out: v.at::<I::T>(out, n).add(b * plane * I::LANES),
                    plane,
                });
            }
        });
    }

    fn inside(&self, x: Value, range: Range, out: Value, v: &CpuValues<'_, I>) {
        let range = bounds::<I::T>(range);
        self.vectors(out, v, |n, first, count| {
            let kernel = pointwise::Inside::<I> { x: v.at(x, n), range, bits: v.at(out, n), first, count };
            // SAFETY: the vectors lie inside both values; features were detected.
            unsafe { I::run(kernel) };
        });
    }
}

/// Pools and their adjoints, one task per block of channels.
impl<I: Isa> Cpu<I> {
    fn max_pool(&self, layer: PoolLayer, [x, out]: [Value; 2], winners: Option<Value>, v: &CpuValues<'_, I>) {
        let width = match winners.map(|w| v.plan.form(w)) {
            Some(Form::Winners(_, width)) => width,
            _ => WinnerWidth::One,
        };
        self.blocks(out, v, |n, b| {
            let (large, small) = (b * layer.input.plane() * I::LANES, b * layer.output.plane() * I::LANES);
            // SAFETY: block `b` lies inside the values; features were detected.
            unsafe {
                I::run(pool::Max::<I> {
                    layer,
                    x: v.at::<I::T>(x, n).add(large),
                    out: v.at::<I::T>(out, n).add(small),
                    winners: winners.map_or(std::ptr::null_mut(), |w| v.at::<u8>(w, n).add(small * width.bytes())),
                    width,
                });
            }
        });
    }

    fn prefer_winners(
        &self,
        layer: PoolLayer,
        x: Value,
        [winners, preferred, out]: [Value; 3],
        v: &CpuValues<'_, I>,
    ) -> Result<()> {
        let width = width(out, v)?;
        self.blocks(out, v, |n, b| {
            let small = b * layer.output.plane() * I::LANES * width.bytes();
            // SAFETY: block `b` lies inside the values; features were detected.
            unsafe {
                I::run(pool::Prefer::<I> {
                    layer,
                    x: v.at::<I::T>(x, n).add(b * layer.input.plane() * I::LANES),
                    winners: v.at::<u8>(winners, n).add(small),
                    preferred: v.at::<u8>(preferred, n).add(small),
                    width,
                    out: v.at::<u8>(out, n).add(small),
                });
            }
        });
        Ok(())
    }

    fn max_pool_adjoint(
        &self,
        layer: PoolLayer,
        [s, out]: [Value; 2],
        winners: Value,
        v: &CpuValues<'_, I>,
    ) -> Result<()> {
        let width = width(winners, v)?;
        self.blocks(out, v, |n, b| {
            let small = b * layer.output.plane() * I::LANES;
            // SAFETY: block `b` lies inside the values; features were detected.
            unsafe {
                I::run(pool::MaxAdjoint::<I> {
                    layer,
                    s: v.at::<I::T>(s, n).add(small),
                    winners: v.at::<u8>(winners, n).add(small * width.bytes()),
                    width,
                    out: v.at::<I::T>(out, n).add(b * layer.input.plane() * I::LANES),
                });
            }
        });
        Ok(())
    }

    fn avg_pool(
        &self,
        (layer, count_padding): (PoolLayer, bool),
        direction: PassDirection,
        [from, to]: [Value; 2],
        v: &CpuValues<'_, I>,
    ) {
        self.blocks(to, v, |n, b| {
            // SAFETY: block `b` lies inside the values; features were detected.
            unsafe {
                I::run(pool::Average::<I> {
                    layer,
                    count_padding,
                    adjoint: direction == PassDirection::Adjoint,
                    from: v.at::<I::T>(from, n).add(b * v.shape(from).plane() * I::LANES),
                    to: v.at::<I::T>(to, n).add(b * v.shape(to).plane() * I::LANES),
                });
            }
        });
    }

    fn adaptive(&self, direction: PassDirection, [from, to]: [Value; 2], v: &CpuValues<'_, I>) {
        let adjoint = direction == PassDirection::Adjoint;
        let (input, output) = if adjoint { (to, from) } else { (from, to) };
        self.blocks(to, v, |n, b| {
            // SAFETY: block `b` lies inside the values; features were detected.
            unsafe {
                I::run(pool::Adaptive::<I> {
                    input: v.shape(input),
                    output: v.shape(output),
                    adjoint,
                    from: v.at::<I::T>(from, n).add(b * v.shape(from).plane() * I::LANES),
                    to: v.at::<I::T>(to, n).add(b * v.shape(to).plane() * I::LANES),
                });
            }
        });
    }

    fn spatial_mean(&self, x: Value, out: Value, v: &CpuValues<'_, I>) {
        let plane = v.shape(x).plane();
        self.blocks(out, v, |n, b| {
            // SAFETY: block `b` lies inside the values; features were detected.
            unsafe {
                let x = v.at::<I::T>(x, n).add(b * plane * I::LANES);
                I::run(pool::PlaneMean::<I> { x, plane, out: v.at::<I::T>(out, n).add(b * I::LANES) });
            }
        });
    }

    fn concat(&self, xs: &[Value], out: Value, v: &CpuValues<'_, I>) {
        self.copies(out, v, |n, to| {
            to.fill(I::T::ZERO);
            let mut at = 0;
            for &x in xs {
                let from = v.shape(x);
                // SAFETY: the value read was written by an earlier step.
                arrange::append(unsafe { v.slice(x, n) }, from, to, v.shape(out), at, I::LANES);
                at += from.c;
            }
        });
    }
}

/// Transfers from and to the host.
impl<I: Isa> Cpu<I> {
    fn load(&self, slot: usize, out: Value, v: &CpuValues<'_, I>, chunk: &Chunk<'_>) -> Result<()> {
        let missing = || Error::device(format!("nothing was given to load {slot}"));
        let tensors = chunk.loads.get(slot).ok_or_else(missing)?;
        let shape = v.shape(out);
        self.copies(out, v, |n, to| {
            arrange::block(&tensors[chunk.slots[n].item].numbers(), shape, I::LANES, to);
        });
        Ok(())
    }

    fn load_all_decisions(&self, node: NodeId, out: Value, v: &CpuValues<'_, I>, chunk: &Chunk<'_>) -> Result<()> {
        for (n, s) in chunk.slots.iter().enumerate() {
            let given = chunk.decisions.get(s.item).and_then(|d| d.nodes.get(&node));
            let given = given.filter(|d| d.len() == v.shape(out).len());
            let given =
                given.ok_or_else(|| Error::device(format!("no decisions were given for node {}", node.index())))?;
            self.load_decisions(given, out, n, v);
        }
        Ok(())
    }

    fn head(
        &self,
        logits: Value,
        (score, link): (Score, Link),
        seed: Option<Value>,
        v: &CpuValues<'_, I>,
        chunk: &Chunk<'_>,
        harvest: &mut Harvest,
    ) -> Result<()> {
        let classes = v.shape(logits).c;
        for (n, slot) in chunk.slots.iter().enumerate() {
            // SAFETY: no other task runs.
            let l: Vec<f64> = unsafe { &v.slice(logits, n)[..classes] }.iter().map(|x| x.to_f64()).collect();
            if slot.target >= classes {
                return Err(Error::settings(format!("class {} of a net with {classes} classes", slot.target)));
            }
            let (value, gradient) = score.linked(link, &l, slot.target);
            harvest.scores[n] = value;
            harvest.logits[n] = l;
            if let Some(seed) = seed {
                // SAFETY: no other task runs.
                let out = unsafe { v.slice_mut(seed, n) };
                out.fill(I::T::ZERO);
                out.iter_mut().zip(&gradient).for_each(|(o, &g)| *o = I::T::from_f64(g));
            }
        }
        Ok(())
    }

    fn aggregate(
        &self,
        x: Value,
        statistic: Statistic,
        v: &CpuValues<'_, I>,
        chunk: &Chunk<'_>,
        harvest: &mut Harvest,
    ) -> Result<()> {
        let shape = v.shape(x);
        let mut folds = Vec::with_capacity(v.copies);
        for (n, slot) in chunk.slots.iter().enumerate() {
            let sum = harvest.sums.get_mut(slot.item).filter(|s| s.first.len() == shape.len());
            let sum = sum.ok_or_else(|| Error::device("no statistic was started for a picture"))?;
            sum.count += 1;
            let (first, second) = (Shared(sum.first.as_mut_ptr()), Shared(sum.second.as_mut_ptr()));
            folds.push((n, source::Fold { first, second, count: sum.count, weight: slot.weight }));
        }
        // Copies of a picture are consecutive; tasks have disjoint pixels.
        self.each(shape.plane().div_ceil(PIECE), |piece, _| {
            let pixels = piece * PIECE..shape.plane().min((piece + 1) * PIECE);
            for (n, fold) in &folds {
                for channel in 0..shape.c {
                    let pixels = pixels.clone();
                    // SAFETY: the signal was written by an earlier step; a task has some pixels of every statistic.
                    unsafe { fold.pixels(v.slice(x, *n), shape, I::LANES, channel, pixels, statistic) };
                }
            }
        });
        Ok(())
    }

    fn store(&self, x: Value, slot: usize, v: &CpuValues<'_, I>, harvest: &mut Harvest) -> Result<()> {
        let shape = v.shape(x);
        harvest.stores.resize(harvest.stores.len().max(slot + 1), Vec::new());
        for n in 0..v.copies {
            let mut dense = vec![I::T::ZERO; shape.len()];
            // SAFETY: no other task runs.
            arrange::unblock(unsafe { v.slice(x, n) }, shape, I::LANES, &mut dense);
            let dense = dense.iter().map(|x| x.to_f64()).collect();
            harvest.stores[slot].push(Tensor::rounded(shape.dims(), dense, I::T::PRECISION)?);
        }
        Ok(())
    }
}

/// Bytes of one of the value's winners.
fn width<I: Isa>(winners: Value, v: &CpuValues<'_, I>) -> Result<WinnerWidth> {
    match v.plan.form(winners) {
        Form::Winners(_, width) => Ok(width),
        Form::Dense(_) | Form::Bits(_) => Err(Error::device("winners were expected")),
    }
}
