//! Divides steps into tasks, one function per family.

use super::conv::PassDirection;
use super::isa::Isa;
use super::memory::Shared;
use super::pointwise::{self, Pointwise, bounds};
use super::standardise::{AllPositions, EachPosition, NormWay, Normed};
use super::{Cpu, CpuValues, PIECE, arrange, pool, quantile, repeated, source};
use crate::device::{Chunk, Harvest};
use crate::error::{Error, Result};
use crate::graph::{Link, NodeId, Standardise};
use crate::program::{Elementwise, Form, PoolLayer, Range, Role, Score, Statistic, Step, Value, WinnerWidth};
use crate::tensor::Scalar;

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
            Step::Perturb { out } => self.perturb(*out, v, chunk, &mut harvest.spare),
            Step::Load { slot, out } => self.load(*slot, *out, v, chunk)?,
            Step::LoadDecisions { node, out } => self.load_all_decisions(*node, *out, v, chunk)?,
            Step::Conv { layer, x, out, epilogue } => {
                self.conv((layer, PassDirection::Forward), *x, *out, epilogue, v, &mut harvest.spare);
            }
            Step::ConvAdjoint { layer, s, out, epilogue } => {
                self.conv((layer, PassDirection::Adjoint), *s, *out, epilogue, v, &mut harvest.spare);
            }
            Step::Linear { layer, x, out } => self.linear(layer, *x, *out, v, &mut harvest.spare),
            Step::LinearAdjoint { layer, s, out } => self.linear_adjoint(layer, *s, *out, v),
            Step::ConvWeightAdjoint { layer, x, s, out } => self.conv_weight_adjoint(layer, *x, *s, *out, v),
            Step::LinearWeightAdjoint { x, s, out, .. } => self.linear_weight_adjoint(*x, *s, *out, v),
            Step::Add { a, b, out } => self.pointwise(*out, v, |n| Pointwise::Add(v.at(*a, n), v.at(*b, n))),
            Step::Clamp { x, range, out } => {
                let bounds = bounds::<I::T>(*range);
                let infinity = &self.clamped_infinity;
                self.pointwise(*out, v, |n| Pointwise::Clamp(v.at(*x, n), bounds, infinity));
            }
            Step::Gate { s, bits, out } => self.pointwise(*out, v, |n| Pointwise::Gate(v.at(*s, n), v.at(*bits, n))),
            Step::Elementwise { op, xs, out } => self.elementwise(*op, xs, *out, v)?,
            Step::Contract { xs, out } => self.contract(xs, *out, v)?,
            Step::Inside { x, range, out } => self.inside(*x, *range, *out, v),
            Step::AboveQuantile { x, q, out } => self.each_listing(v.copies, |n, _, lists| {
                // SAFETY: every task writes its own copy's bits, one per number.
                unsafe { quantile::above(v.slice(*x, n), v.shape(*x), I::LANES, *q, v.at(*out, n), lists) };
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
            Step::Softmax { groups, x, out } => {
                let shape = v.shape(*x);
                self.each_listing(v.copies, |n, _, lists| {
                    // SAFETY: `x` was written by an earlier step; every task writes its own copy.
                    let (x, to) = unsafe { (v.slice(*x, n), v.slice_mut(*out, n)) };
                    arrange::softmax(x, shape, *groups, I::LANES, to, lists);
                });
            }
            Step::Standardise { norm, x, out, scale } => {
                let scale = |n: usize| scale.map_or(std::ptr::null_mut(), |scale| v.at(scale, n));
                self.standardise(*norm, [*x, *out], v, |n| NormWay::Forward { scale: scale(n) });
            }
            Step::StandardiseAdjoint { norm, s, y, scale, out } => {
                let y = |n: usize| y.map_or(std::ptr::null(), |y| v.at::<I::T>(y, n).cast_const());
                let way = |n: usize| NormWay::Adjoint { y: y(n), scale: v.at::<I::T>(*scale, n).cast_const() };
                self.standardise(*norm, [*s, *out], v, way);
            }
            Step::SpatialMean { x, out } => self.spatial_mean(*x, *out, v),
            Step::WeightedChannelSum { weights, x, out } => self.copies(*out, v, |n, out| {
                // SAFETY: both values were written by earlier steps.
                let (weights, numbers) = unsafe { (v.slice(*weights, n), v.slice(*x, n)) };
                arrange::weighted_channel_sum(weights, numbers, v.shape(*x), I::LANES, out);
            }),
            Step::Fill { values, out } => {
                let values = harvest.spare.of(values.iter().map(|&x| I::T::from_f64(x)));
                let shape = v.shape(*out);
                self.copies(*out, v, |_, to| arrange::fill(&values, shape, I::LANES, to));
                harvest.spare.keep(values);
            }
            Step::Flatten { x, out } => self.copies(*out, v, |n, out| {
                let shape = v.shape(*x);
                out.fill(I::T::ZERO);
                // SAFETY: the value read was written by an earlier step.
                arrange::unblock(unsafe { v.slice(*x, n) }, shape, I::LANES, &mut out[..shape.len()], |x| x);
            }),
            Step::Unflatten { s, out } => self.copies(*out, v, |n, to| {
                let shape = v.shape(*out);
                // SAFETY: as above.
                let s = unsafe { v.slice(*s, n) };
                arrange::block(&s[..shape.len()], shape, I::LANES, to);
            }),
            Step::Concat { xs, out } => self.concat(xs, *out, v),
            Step::Resample { x, blends, out } => {
                let (from, to) = (v.shape(*x), v.shape(*out));
                self.blocks_listing(*out, v, |n, b, lists| {
                    // SAFETY: block `b` lies inside the values; features were detected.
                    unsafe {
                        I::run(pool::Resample::<I> {
                            blends,
                            lists,
                            from_columns: from.w,
                            from: v.at::<I::T>(*x, n).add(b * from.plane() * I::LANES),
                            to: v.at::<I::T>(*out, n).add(b * to.plane() * I::LANES),
                        });
                    }
                });
            }
            Step::Move { x, moves, out } => {
                let (from, to) = (v.shape(*x), v.shape(*out));
                let len = to.plane() * I::LANES;
                self.blocks_listing(*out, v, |n, b, lists| {
                    // SAFETY: `x` was written by an earlier step; every task writes its own block of `out`.
                    let (x, out) = unsafe {
                        (v.slice(*x, n), std::slice::from_raw_parts_mut(v.at::<I::T>(*out, n).add(b * len), len))
                    };
                    arrange::moved(x, from, *moves, (out, b), to, I::LANES, lists);
                });
            }
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
            step.operands(|role, out| {
                if role == Role::Written && matches!(v.plan.form(out), Form::Dense(_)) {
                    self.copies(out, v, |_, to| arrange::zero_unused(v.shape(out), I::LANES, to));
                }
            });
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
        if xs.iter().any(|&x| v.shape(x) != v.shape(out)) {
            return self.repeated(op, [a, b, c], out, v);
        }
        self.vectors(out, v, |n, first, count| {
            let (first, count) = (first * I::LANES, count * I::LANES);
            let (a, b, c, out) = (v.at(a, n), v.at(b, n), v.at(c, n), v.at(out, n));
            // SAFETY: the elements lie inside all values; features were detected.
            unsafe { I::run(pointwise::ElementwiseTask::<I> { op, a, b, c, out, first, count, repeated: None }) };
        });
        Ok(())
    }

    /// An elementwise function of which some operands are repeated to fill `out`.
    fn repeated(&self, op: Elementwise, xs: [Value; 3], out: Value, v: &CpuValues<'_, I>) -> Result<()> {
        let whole = v.shape(out);
        let repeat = |x: Value| v.shape(x).repeated_in(whole);
        let [Some(a), Some(b), Some(c)] = xs.map(repeat) else {
            return Err(Error::device("an operand does not fill the result"));
        };
        let (repeats, plane) = ([a, b, c], whole.plane());
        self.blocks(out, v, |n, block| {
            let at = |i: usize| repeated::Operand::new::<I>(v.at(xs[i], n), v.shape(xs[i]), repeats[i], block);
            let operands = [at(0), at(1), at(2)];
            let used = I::LANES.min(whole.c - block * I::LANES);
            // SAFETY: block `block` lies inside `out`, and operands fill it; features were detected.
            unsafe {
                let [a, b, c] = operands.map(|operand| operand.at);
                let out = v.at::<I::T>(out, n).add(block * plane * I::LANES);
                let repeated = Some(pointwise::RepeatedBlock { operands, used });
                let task = pointwise::ElementwiseTask { op, a, b, c, out, first: 0, count: plane, repeated };
                I::run::<pointwise::ElementwiseTask<I>>(task);
            }
        });
        Ok(())
    }

    fn standardise(
        &self,
        norm: Standardise,
        [x, out]: [Value; 2],
        v: &CpuValues<'_, I>,
        way: impl Fn(usize) -> NormWay<I::T> + Sync,
    ) {
        let shape = v.shape(x);
        let of =
            |n: usize| Normed::<I> { norm, shape, x: v.at::<I::T>(x, n).cast_const(), way: way(n), out: v.at(out, n) };
        if norm.across_positions {
            let together = AllPositions::<I>::together(norm, shape);
            let pieces = norm.groups.div_ceil(together);
            self.each_listing(v.copies * pieces, |t, _, lists| {
                let first = t % pieces * together;
                let groups = first..norm.groups.min(first + together);
                // SAFETY: values have this shape and its moments; features were detected; a task has whole vectors of channels.
                unsafe { I::run(AllPositions { of: of(t / pieces), groups, lists }) };
            });
            return;
        }
        let piece = (PIECE / shape.c.div_ceil(I::LANES)).max(1);
        let pieces = shape.plane().div_ceil(piece);
        self.each(v.copies * pieces, |t, _| {
            let first = t % pieces * piece;
            let pixels = first..shape.plane().min(first + piece);
            // SAFETY: as above; a task has some positions.
            unsafe { I::run(EachPosition { of: of(t / pieces), pixels }) };
        });
    }

    /// Sums over the channels and positions that each number of `out` stands for.
    fn contract(&self, xs: &[Value], out: Value, v: &CpuValues<'_, I>) -> Result<()> {
        let (Some(&x), to) = (xs.first(), v.shape(out)) else { return Err(Error::device("a sum of nothing")) };
        let whole = v.shape(x);
        let repeat = to.repeated_in(whole).ok_or_else(|| Error::device("a sum that does not fill its terms"))?;
        let y = xs.get(1).copied();
        let sum = |n: usize| repeated::Contract::<I> {
            x: v.at::<I::T>(x, n).cast_const(),
            y: y.map_or(std::ptr::null(), |y| v.at::<I::T>(y, n).cast_const()),
            whole,
            to,
            out: v.at(out, n),
        };
        if repeat.positions {
            let pieces = whole.plane().div_ceil(PIECE);
            self.each(v.copies * pieces, |t, _| {
                let (n, first) = (t / pieces, t % pieces * PIECE);
                let pixels = first..whole.plane().min(first + PIECE);
                // SAFETY: values have these shapes; a task has some positions; features were detected.
                unsafe { I::run(repeated::OverChannels { of: sum(n), group: repeat.group, pixels }) };
            });
            return Ok(());
        }
        let blocks = whole.c.div_ceil(I::LANES);
        if repeat.group == 1 {
            self.each(v.copies * blocks, |t, _| {
                let (n, block) = (t / blocks, t % blocks);
                // SAFETY: values have these shapes; a task has a block of channels; features were detected.
                unsafe { I::run(repeated::OverPositions { of: sum(n), group: 1, blocks: block..block + 1 }) };
            });
        } else {
            self.each(v.copies, |n, _| {
                // SAFETY: values have these shapes; a task has a copy; features were detected.
                unsafe { I::run(repeated::OverPositions { of: sum(n), group: repeat.group, blocks: 0..blocks }) };
            });
        }
        Ok(())
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
        self.blocks_listing(out, v, |n, b, lists| {
            let small = b * layer.output.plane() * I::LANES;
            // SAFETY: block `b` lies inside the values; features were detected.
            unsafe {
                I::run(pool::MaxAdjoint::<I> {
                    layer,
                    lists,
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
        let to = v.shape(out);
        let len = to.plane() * I::LANES;
        self.blocks(out, v, |n, b| {
            // SAFETY: values read were written by earlier steps; every task writes its own block of `out`.
            unsafe {
                let parts = xs.iter().map(|&x| (v.slice(x, n), v.shape(x)));
                let block = std::slice::from_raw_parts_mut(v.at::<I::T>(out, n).add(b * len), len);
                arrange::concatenated(parts, (block, b), to, I::LANES);
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
            let l = harvest.spare.of(unsafe { &v.slice(logits, n)[..classes] }.iter().map(|x| x.to_f64()));
            if slot.target >= classes {
                return Err(Error::settings(format!("class {} of a net with {classes} classes", slot.target)));
            }
            let mut gradient = harvest.spare.take(classes);
            harvest.scores[n] = score.linked_into(link, &l, slot.target, &mut gradient);
            harvest.spare.keep(std::mem::replace(&mut harvest.logits[n], l));
            if let Some(seed) = seed {
                // SAFETY: no other task runs.
                let out = unsafe { v.slice_mut(seed, n) };
                out.fill(I::T::ZERO);
                out.iter_mut().zip(&gradient).for_each(|(o, &g)| *o = I::T::from_f64(g));
            }
            harvest.spare.keep(gradient);
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
        let mut folds: Vec<(usize, source::Fold)> = harvest.spare.take(v.copies);
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
        harvest.spare.keep(folds);
        Ok(())
    }

    fn store(&self, x: Value, slot: usize, v: &CpuValues<'_, I>, harvest: &mut Harvest) -> Result<()> {
        let shape = v.shape(x);
        for n in 0..v.copies {
            let mut dense = harvest.spare.zeros(shape.len());
            // SAFETY: no other task runs.
            arrange::unblock(unsafe { v.slice(x, n) }, shape, I::LANES, &mut dense, I::T::to_f64);
            harvest.stores[slot].push(harvest.spare.round(&shape.dims(), dense, I::T::PRECISION)?);
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
