//! Turns steps into launches, one function per family.

use std::sync::Arc;

use super::arguments::{
    Address, AggregateArgs, ContractArgs, ConvArgs, EpilogueArgs, FirstArgs, HeadArgs, LastArgs, MoveArgs, NormArgs,
    PerturbArgs, PixelsArgs, PointwiseArgs, PoolArgs, ReduceArgs, ResampleArgs, SumArgs, WeightArgs,
};
use super::choice::{self, Family, StepWay};
use super::constants::{DEPTH, TILE, VectorKind, WeightOrder, channels};
use super::device::{CudaDevice, CudaValues};
use super::geometry::{Axis, PassDirection, launches};
use super::layout;
use crate::device::{Chunk, Harvest};
use crate::error::{Error, Result};
use crate::graph::{Link, NodeId, Standardise, Weight};
use crate::program::{
    ConvLayer, Elementwise, Epilogue, Form, LinearLayer, PoolLayer, Range, Score, Step, Value, WinnerWidth,
};
use crate::tensor::{Blend, Precision, Shape, Tensor};

/// Axes of a map of one position.
const POINT: Axis = Axis { grid: 1, mul: 1, add: 0, step: 1, taps: 1, first: 0, every: 1, out_mul: 1, out_add: 0 };

fn pair(axes: [Axis; 2], of: impl Fn(Axis) -> i32) -> [i32; 2] {
    axes.map(of)
}

fn extents(shape: Shape) -> [i32; 3] {
    [shape.c as i32, shape.h as i32, shape.w as i32]
}

/// The null address.
const NOWHERE: Address = Address::NULL;

/// A matrix of a convolution or a linear layer and what it multiplies.
struct Product<'a> {
    weight: &'a Weight,
    groups: usize,
    direction: PassDirection,
    family: Family,
    from: Shape,
    to: Shape,
}

impl CudaDevice {
    /// Queues the kernels that run a step for all copies.
    pub(super) fn step(
        &mut self,
        step: &Step,
        way: StepWay,
        v: &CudaValues<'_>,
        chunk: &Chunk<'_>,
        harvest: &mut Harvest,
    ) -> Result<()> {
        let kernel = choice::kernel(step, &self.products);
        match step {
            _ if way == StepWay::Elsewhere => Ok(()),
            Step::Perturb { out } => {
                let arguments =
                    PixelsArgs { perturb: self.tables.perturb()?, out: v.at(*out).into(), out_stride: v.stride(*out) };
                self.each(kernel, v.shape(*out).len().div_ceil(4), v.copies, &arguments)
            }
            Step::Load { slot, out } => self.load(*slot, *out, v, chunk),
            Step::LoadDecisions { node, out } => self.load_decisions(*node, *out, v, chunk),
            Step::Conv { layer, x, out, epilogue } => {
                self.conv(layer, PassDirection::Forward, way, [*x, *out], epilogue, v)
            }
            Step::ConvAdjoint { layer, s, out, epilogue } => {
                self.conv(layer, PassDirection::Adjoint, way, [*s, *out], epilogue, v)
            }
            Step::Linear { layer, x, out } => self.linear(layer, PassDirection::Forward, *x, *out, v),
            Step::LinearAdjoint { layer, s, out } => self.linear(layer, PassDirection::Adjoint, *s, *out, v),
            Step::ConvWeightAdjoint { layer, x, s, out } => {
                let pads = layer.window.pads(layer.input.h, layer.input.w);
                let window =
                    [layer.window.kernel, layer.window.stride, layer.window.dilation, [pads[0][0], pads[1][0]]];
                self.weight_adjoint(layer.groups, [*x, *s, *out], window, v)
            }
            Step::LinearWeightAdjoint { x, s, out, .. } => {
                self.weight_adjoint(1, [*x, *s, *out], [[1; 2], [1; 2], [1; 2], [0; 2]], v)
            }
            Step::Add { a, b, out } => self.pointwise(kernel, &[*a, *b], *out, [0.0; 3], v),
            Step::Clamp { x, range, out } => self.pointwise(kernel, &[*x], *out, [range.lo, range.hi, 0.0], v),
            Step::Elementwise { op, xs, out } => self.pointwise(kernel, xs, *out, op.parameters(), v),
            Step::Contract { xs, out } => self.contract(kernel, xs, *out, v),
            Step::Inside { x, range, out } => self.inside(kernel, *x, *range, *out, v),
            Step::Gate { s, bits, out } => self.gate(kernel, *s, *bits, *out, v),
            Step::Fill { values, out } => self.fill(kernel, values, *out, v),
            Step::AboveQuantile { x, q, out } => {
                let (bits, bits_stride) = (v.at(*out).into(), v.stride(*out));
                let arguments = ReduceArgs { bits, bits_stride, q: *q, ..reduce_arguments(*x, None, v) };
                self.launch(kernel, [1, v.copies, 1], None, &arguments)
            }
            Step::Softmax { groups, x, out } => {
                let norm = Standardise { groups: *groups, across_positions: false, eps: 0.0 };
                self.each(kernel, norm.moments(v.shape(*x)).len(), v.copies, &norm_arguments(norm, *x, *out, v))
            }
            Step::Standardise { norm, x, out, scale } => {
                let mut arguments = norm_arguments(*norm, *x, *out, v);
                if let Some(scale) = scale {
                    (arguments.scales, arguments.scale_stride) = (v.at(*scale).into(), v.stride(*scale));
                }
                self.launch(kernel, [norm.moments(v.shape(*x)).len(), v.copies, 1], None, &arguments)
            }
            Step::StandardiseAdjoint { norm, s, y, scale, out } => {
                let mut arguments = norm_arguments(*norm, *s, *out, v);
                (arguments.scale, arguments.scale_stride) = (v.at(*scale).into(), v.stride(*scale));
                if let Some(y) = y {
                    (arguments.y, arguments.y_stride) = (v.at(*y).into(), v.stride(*y));
                }
                self.launch(kernel, [norm.moments(v.shape(*s)).len(), v.copies, 1], None, &arguments)
            }
            Step::SpatialMean { x, out } => {
                let arguments = reduce_arguments(*x, Some(*out), v);
                self.launch(kernel, [v.shape(*x).c.div_ceil(32), v.copies, 1], None, &arguments)
            }
            Step::WeightedChannelSum { weights, x, out } => {
                let (weights, weights_stride) = (v.at(*weights).into(), v.stride(*weights));
                let arguments = ReduceArgs { weights, weights_stride, ..reduce_arguments(*x, Some(*out), v) };
                self.launch(kernel, [v.shape(*x).plane().div_ceil(4), v.copies, 1], None, &arguments)
            }
            Step::MaxPool { layer, x, out, winners } => self.max_pool(kernel, *layer, [*x, *out], *winners, v),
            Step::PreferWinners { layer, x, winners, preferred, out } => {
                self.prefer_winners(kernel, *layer, *x, [*winners, *preferred, *out], v)
            }
            Step::MaxPoolAdjoint { layer, s, winners, out } => {
                let arguments = PoolArgs {
                    won: v.at(*winners).into(),
                    won_stride: v.bytes(*winners),
                    width: width(*winners, v)?,
                    ..pool_arguments(*layer, *s, *out, v)
                };
                self.each(kernel, v.shape(*out).len(), v.copies, &arguments)
            }
            Step::AvgPool { layer, count_padding, x: from, out }
            | Step::AvgPoolAdjoint { layer, count_padding, s: from, out } => {
                let arguments =
                    PoolArgs { count_padding: i32::from(*count_padding), ..pool_arguments(*layer, *from, *out, v) };
                self.each(kernel, v.shape(*out).len(), v.copies, &arguments)
            }
            Step::AdaptiveAvgPool { x: from, out } => self.adaptive(kernel, [*from, *out], [*from, *out], v),
            Step::AdaptiveAvgPoolAdjoint { s: from, out } => self.adaptive(kernel, [*from, *out], [*out, *from], v),
            Step::Flatten { x, out } | Step::Unflatten { s: x, out } => {
                self.each(kernel, v.shape(*out).len(), v.copies, &move_arguments(*x, *out, v))
            }
            Step::Resample { x, blends, out } => {
                let [rows, columns] = &**blends;
                let (from, to) = (v.shape(*x), v.shape(*out));
                let mut table =
                    |blend: &Blend| self.constants.vector(self.runtime.as_mut(), blend.table(), VectorKind::Channels);
                let arguments = ResampleArgs {
                    x: v.at(*x).into(),
                    out: v.at(*out).into(),
                    rows: table(rows)?.into(),
                    columns: table(columns)?.into(),
                    x_stride: v.stride(*x),
                    out_stride: v.stride(*out),
                    channels: to.c as i32,
                    from_columns: from.w as i32,
                    extent: [to.h as i32, to.w as i32],
                };
                self.each(kernel, to.len(), v.copies, &arguments)
            }
            Step::Move { x, moves, out } => {
                let arguments = MoveArgs {
                    step: moves.axes.map(|a| a.step as i32),
                    first: moves.axes.map(|a| a.first as i32),
                    every: moves.axes.map(|a| a.every as i32),
                    groups: moves.groups as i32,
                    ..move_arguments(*x, *out, v)
                };
                self.each(kernel, v.shape(*out).len(), v.copies, &arguments)
            }
            Step::Concat { xs, out } => self.concat(kernel, xs, *out, v),
            Step::Head { logits, score, link, seed } => self.head(*logits, (*score, *link), *seed, v, chunk),
            Step::Aggregate { x, .. } => self.aggregate(kernel, *x, v),
            Step::Store { x, slot } => self.store(*x, *slot, v, harvest),
            Step::StoreDecisions { x, node } => self.store_decisions(*x, *node, v, harvest),
        }
    }
}

/// Convolutions, linear layers, their adjoints.
impl CudaDevice {
    fn conv(
        &mut self,
        layer: &ConvLayer,
        direction: PassDirection,
        way: StepWay,
        [x, out]: [Value; 2],
        epilogue: &Epilogue,
        v: &CudaValues<'_>,
    ) -> Result<()> {
        let family = choice::family(layer, direction, epilogue);
        if family == Family::Last {
            return self.last(layer, way, x, out, v);
        }
        let (from, to) = match direction {
            PassDirection::Forward => (layer.input, layer.output),
            PassDirection::Adjoint => (layer.output, layer.input),
        };
        let product = Product { weight: &layer.weight, groups: layer.groups, direction, family, from, to };
        let source = if way == StepWay::Making { NOWHERE } else { v.at(x) };
        let mut arguments = self.product_arguments(&product, source, v.stride(x), out, v)?;
        arguments.kernel = layer.window.kernel.map(|k| k as i32);
        let bias = layer.bias.as_ref().filter(|_| direction == PassDirection::Forward);
        if let Some(bias) = bias {
            let elements = bias.len() != layer.output.c;
            let kind = if elements { VectorKind::Elements(layer.output) } else { VectorKind::Channels };
            arguments.epilogue.bias = self.constants.vector(self.runtime.as_mut(), bias, kind)?.into();
            arguments.epilogue.bias_elements = i32::from(elements);
        }
        self.finish_epilogue(&mut arguments.epilogue, epilogue, v);
        for axes in launches(layer, direction) {
            self.launch_product(&product, axes, arguments, layer)?;
        }
        if let Some((f, slope)) = epilogue.smooth {
            if let Some(slope) = slope {
                self.after(Elementwise::Slope(f), &[out], slope, v)?;
            }
            self.after(Elementwise::Smooth(f), &[out], out, v)?;
        }
        Ok(())
    }

    /// An elementwise function after a convolution, by a kernel of its own.
    fn after(&mut self, op: Elementwise, xs: &[Value], out: Value, v: &CudaValues<'_>) -> Result<()> {
        self.pointwise(choice::named(op.name()), xs, out, op.parameters(), v)
    }

    fn linear(
        &mut self,
        layer: &LinearLayer,
        direction: PassDirection,
        x: Value,
        out: Value,
        v: &CudaValues<'_>,
    ) -> Result<()> {
        let point = |v: &CudaValues<'_>, value| Shape::new(v.shape(value).len(), 1, 1);
        let product = Product {
            weight: &layer.weight,
            groups: 1,
            direction,
            family: Family::Tensor,
            from: point(v, x),
            to: point(v, out),
        };
        let mut arguments = self.product_arguments(&product, v.at(x), v.stride(x), out, v)?;
        if let Some(bias) = layer.bias.as_ref().filter(|_| direction == PassDirection::Forward) {
            let at = self.constants.vector(self.runtime.as_mut(), bias, VectorKind::Channels)?;
            arguments.epilogue.bias = at.into();
        }
        self.launch_tiles(&product, [POINT; 2], arguments)
    }

    /// Everything about a product but its positions and what happens after the sums.
    fn product_arguments(
        &mut self,
        p: &Product<'_>,
        source: Address,
        x_stride: i32,
        out: Value,
        v: &CudaValues<'_>,
    ) -> Result<ConvArgs> {
        let order = p.family.order(p.direction);
        let weight = self.constants.weight(self.runtime.as_mut(), p.weight, p.groups, order)?;
        let [k, c] = channels(p.weight, p.groups, p.direction);
        let aligned = p.from.c.is_multiple_of(4) && c.is_multiple_of(4);
        Ok(ConvArgs {
            x: source.into(),
            weight: weight.into(),
            out: v.at(out).into(),
            x_stride,
            out_stride: v.stride(out),
            copies: v.copies as i32,
            extent: [p.from.h as i32, p.from.w as i32],
            channels: p.from.c as i32,
            c: c as i32,
            c_padded: c.next_multiple_of(DEPTH) as i32,
            out_channels: p.to.c as i32,
            k: k as i32,
            k_padded: k.next_multiple_of(TILE) as i32,
            out_extent: [p.to.h as i32, p.to.w as i32],
            kernel: [1; 2],
            aligned: i32::from(aligned),
            ..ConvArgs::default()
        })
    }

    fn finish_epilogue(&self, to: &mut EpilogueArgs, from: &Epilogue, v: &CudaValues<'_>) {
        if let Some(add) = from.add {
            (to.add, to.add_stride) = (v.at(add).into(), v.stride(add));
        }
        if let Some((bits, range)) = from.bits {
            (to.bits, to.bits_stride) = (v.at(bits).into(), v.stride(bits));
            to.inside = [range.lo as f32, range.hi as f32];
        }
        if let Some(clamp) = from.clamp {
            (to.clamps, to.clamp) = (1, [clamp.lo as f32, clamp.hi as f32]);
        }
        if let Some(gate) = from.gate {
            (to.gate, to.gate_stride) = (v.at(gate).into(), v.stride(gate));
        }
        if let Some(times) = from.times {
            (to.times, to.times_stride) = (v.at(times).into(), v.stride(times));
        }
    }

    /// Queues the part of a convolution that `axes` describe.
    fn launch_product(
        &mut self,
        p: &Product<'_>,
        axes: [Axis; 2],
        mut arguments: ConvArgs,
        layer: &ConvLayer,
    ) -> Result<()> {
        set_axes(&mut arguments, axes);
        let copies = arguments.copies as usize;
        let positions = arguments.grid.iter().product::<i32>() as usize;
        match p.family {
            Family::Tensor => self.launch_tiles(p, axes, arguments),
            Family::Direct => {
                let channels = (arguments.out_channels as usize).next_multiple_of(32);
                self.each("conv_direct", copies * positions * channels, 1, &arguments)
            }
            Family::First => {
                let perturb = if arguments.x.is_null() { self.tables.perturb()? } else { PerturbArgs::default() };
                let tiles = arguments.grid.iter().map(|&g| (g as usize).div_ceil(8)).product();
                let grid = [tiles, (arguments.out_channels as usize).div_ceil(64), copies];
                self.launch(
                    "conv_first",
                    grid,
                    Some(choice::tile_bytes(layer)),
                    &FirstArgs { perturb, conv: arguments },
                )
            }
            Family::Last => Err(Error::device("the first layer's adjoint has launches of its own")),
        }
    }

    fn launch_tiles(&mut self, p: &Product<'_>, axes: [Axis; 2], mut arguments: ConvArgs) -> Result<()> {
        set_axes(&mut arguments, axes);
        let rows = arguments.copies as usize * arguments.grid.iter().product::<i32>() as usize;
        let columns = arguments.k_padded as usize;
        let blocks = |tile: usize| [rows.div_ceil(tile), columns / tile, p.groups];
        // The same sums in the same order, so that the choice may depend on how much there is to do.
        let wide = self.products.wide(p.direction).filter(|_| columns.is_multiple_of(2 * TILE));
        match wide.filter(|_| blocks(2 * TILE).iter().product::<usize>() >= self.processors) {
            Some(kernel) => self.launch(kernel, blocks(2 * TILE), None, &arguments),
            None => self.launch(self.products.conv(p.direction), blocks(TILE), None, &arguments),
        }
    }

    fn last(&mut self, layer: &ConvLayer, way: StepWay, s: Value, out: Value, v: &CudaValues<'_>) -> Result<()> {
        let weight = self.constants.weight(
            self.runtime.as_mut(),
            &layer.weight,
            1,
            WeightOrder::Rows(PassDirection::Forward),
        )?;
        let pads = layer.window.pads(layer.input.h, layer.input.w);
        let folds = matches!(way, StepWay::Folding(_));
        let sum = if folds { self.tables.sum()? } else { SumArgs { count: v.copies as i32, ..SumArgs::default() } };
        let arguments = LastArgs {
            s: v.at(s).into(),
            weight: weight.into(),
            out: if folds { NOWHERE } else { v.at(out) }.into(),
            sum,
            s_stride: v.stride(s),
            out_stride: v.stride(out),
            extent: [layer.output.h as i32, layer.output.w as i32],
            k: layer.output.c as i32,
            c: layer.input.c as i32,
            out_extent: [layer.input.h as i32, layer.input.w as i32],
            kernel: layer.window.kernel.map(|k| k as i32),
            stride: layer.window.stride.map(|k| k as i32),
            dilation: layer.window.dilation.map(|k| k as i32),
            pad: [pads[0][0] as i32, pads[1][0] as i32],
        };
        let copies = if folds { 1 } else { v.copies };
        self.launch("last", [layer.input.plane().div_ceil(4), copies, 1], None, &arguments)
    }

    fn weight_adjoint(
        &mut self,
        groups: usize,
        [x, s, out]: [Value; 3],
        window: [[usize; 2]; 4],
        v: &CudaValues<'_>,
    ) -> Result<()> {
        let (input, output) = (v.shape(x), v.shape(s));
        let [kernel, stride, dilation, pad] = window.map(|w| w.map(|n| n as i32));
        let arguments = WeightArgs {
            x: v.at(x).into(),
            s: v.at(s).into(),
            out: v.at(out).into(),
            x_stride: v.stride(x),
            s_stride: v.stride(s),
            out_stride: v.stride(out),
            extent: [input.h as i32, input.w as i32],
            channels: input.c as i32,
            c: (input.c / groups) as i32,
            out_channels: output.c as i32,
            k: (output.c / groups) as i32,
            out_extent: [output.h as i32, output.w as i32],
            kernel,
            stride,
            dilation,
            pad,
        };
        self.each("weight_adjoint", v.shape(out).len(), v.copies, &arguments)
    }
}

/// Elementwise steps.
impl CudaDevice {
    fn pointwise(
        &mut self,
        kernel: &'static str,
        xs: &[Value],
        out: Value,
        p: [f64; 3],
        v: &CudaValues<'_>,
    ) -> Result<()> {
        let arguments = pointwise_arguments(xs, Some(out), p, v);
        self.each(kernel, v.shape(out).len(), v.copies, &arguments)
    }

    /// Sums over the channels and positions that each number of `out` stands for.
    fn contract(&mut self, kernel: &'static str, xs: &[Value], out: Value, v: &CudaValues<'_>) -> Result<()> {
        let Some(&x) = xs.first() else { return Err(Error::device("a sum of nothing")) };
        let (whole, to) = (v.shape(x), v.shape(out));
        let repeat = to.repeated_in(whole).ok_or_else(|| Error::device("a sum that does not fill its terms"))?;
        let y = xs.get(1).copied();
        let arguments = ContractArgs {
            x: v.at(x).into(),
            y: y.map_or(NOWHERE, |y| v.at(y)).into(),
            out: v.at(out).into(),
            x_stride: v.stride(x),
            y_stride: y.map_or(0, |y| v.stride(y)),
            out_stride: v.stride(out),
            channels: whole.c as i32,
            group: repeat.group as i32,
            // Positions that one number stands for.
            plane: if repeat.positions { 1 } else { whole.plane() as i32 },
            out_channels: to.c as i32,
        };
        self.launch(kernel, [to.len(), v.copies, 1], None, &arguments)
    }

    fn inside(&mut self, kernel: &'static str, x: Value, range: Range, out: Value, v: &CudaValues<'_>) -> Result<()> {
        let mut arguments = pointwise_arguments(&[x], None, [range.lo, range.hi, 0.0], v);
        (arguments.bits, arguments.bits_stride) = (v.at(out).into(), v.stride(out));
        self.each(kernel, layout::words(v.shape(x)) * 32, v.copies, &arguments)
    }

    fn gate(&mut self, kernel: &'static str, s: Value, bits: Value, out: Value, v: &CudaValues<'_>) -> Result<()> {
        let mut arguments = pointwise_arguments(&[s], Some(out), [0.0; 3], v);
        (arguments.gate, arguments.gate_stride) = (v.at(bits).into(), v.stride(bits));
        self.each(kernel, v.shape(s).len(), v.copies, &arguments)
    }

    fn fill(&mut self, kernel: &'static str, values: &Arc<[f64]>, out: Value, v: &CudaValues<'_>) -> Result<()> {
        let shape = v.shape(out);
        let at = self.constants.vector(self.runtime.as_mut(), values, VectorKind::Filled(shape))?;
        let mut arguments = pointwise_arguments(&[out], Some(out), [0.0; 3], v);
        arguments.x = at.into();
        self.each(kernel, shape.len(), v.copies, &arguments)
    }
}

/// Pools and moves.
impl CudaDevice {
    fn max_pool(
        &mut self,
        kernel: &'static str,
        layer: PoolLayer,
        [x, out]: [Value; 2],
        winners: Option<Value>,
        v: &CudaValues<'_>,
    ) -> Result<()> {
        let mut arguments = pool_arguments(layer, x, out, v);
        if let Some(w) = winners {
            (arguments.winners, arguments.winners_stride) = (v.at(w).into(), v.bytes(w));
            arguments.width = width(w, v)?;
        }
        self.each(kernel, v.shape(out).len(), v.copies, &arguments)
    }

    fn prefer_winners(
        &mut self,
        kernel: &'static str,
        layer: PoolLayer,
        x: Value,
        [winners, preferred, out]: [Value; 3],
        v: &CudaValues<'_>,
    ) -> Result<()> {
        let arguments = PoolArgs {
            out: NOWHERE.into(),
            winners: v.at(out).into(),
            winners_stride: v.bytes(out),
            won: v.at(winners).into(),
            won_stride: v.bytes(winners),
            preferred: v.at(preferred).into(),
            preferred_stride: v.bytes(preferred),
            width: width(out, v)?,
            ..pool_arguments(layer, x, out, v)
        };
        self.each(kernel, v.shape(out).len(), v.copies, &arguments)
    }

    /// A pool over bins, or its adjoint: from `read` to `written`, between the pool's `input` and `output`.
    fn adaptive(
        &mut self,
        kernel: &'static str,
        [read, written]: [Value; 2],
        [input, output]: [Value; 2],
        v: &CudaValues<'_>,
    ) -> Result<()> {
        let window = crate::tensor::Window::square(1, 1, 0);
        let layer = PoolLayer { window, input: v.shape(input), output: v.shape(output) };
        self.each(kernel, v.shape(written).len(), v.copies, &pool_arguments(layer, read, written, v))
    }

    fn concat(&mut self, kernel: &'static str, xs: &[Value], out: Value, v: &CudaValues<'_>) -> Result<()> {
        let mut at = 0;
        for &x in xs {
            let arguments = MoveArgs { at, ..move_arguments(x, out, v) };
            self.each(kernel, v.shape(x).len(), v.copies, &arguments)?;
            at += v.shape(x).c as i32;
        }
        Ok(())
    }
}

/// Transfers from and to the host.
impl CudaDevice {
    fn load(&mut self, slot: usize, out: Value, v: &CudaValues<'_>, chunk: &Chunk<'_>) -> Result<()> {
        let missing = || Error::device(format!("nothing was given to load {slot}"));
        let tensors = chunk.loads.get(slot).ok_or_else(missing)?;
        let shape = v.shape(out);
        let one = |item: usize| {
            let mut dense = vec![0f32; shape.len()];
            tensors[item].write_to(&mut dense);
            layout::interleave(&dense, shape).flat_map(f32::to_ne_bytes).collect()
        };
        let copies: Vec<Vec<u8>> = chunk.slots.iter().map(|s| one(s.item)).collect();
        self.write_value(out, v, &copies)
    }

    fn load_decisions(&mut self, node: NodeId, out: Value, v: &CudaValues<'_>, chunk: &Chunk<'_>) -> Result<()> {
        let form = v.plan.form(out);
        let mut copies = Vec::with_capacity(v.copies);
        for slot in chunk.slots {
            let given = chunk.decisions.get(slot.item).and_then(|d| d.nodes.get(&node));
            let given = given.filter(|d| d.len() == form.shape().len());
            let given =
                given.ok_or_else(|| Error::device(format!("no decisions were given for node {}", node.index())))?;
            copies.push(layout::encode_decisions(given, form));
        }
        self.write_value(out, v, &copies)
    }

    fn store(&mut self, x: Value, slot: usize, v: &CudaValues<'_>, harvest: &mut Harvest) -> Result<()> {
        let shape = v.shape(x);
        for raw in self.read_value(x, v)? {
            let numbers: Vec<f64> = raw.as_chunks().0.iter().map(|b| f64::from(f32::from_ne_bytes(*b))).collect();
            let dense = layout::separate(&numbers, shape).collect();
            harvest.stores[slot].push(Tensor::rounded(shape.dims(), dense, Precision::F32)?);
        }
        Ok(())
    }

    fn store_decisions(&mut self, x: Value, node: NodeId, v: &CudaValues<'_>, harvest: &mut Harvest) -> Result<()> {
        let form = v.plan.form(x);
        for (n, raw) in self.read_value(x, v)?.into_iter().enumerate() {
            harvest.decisions[n].nodes.insert(node, layout::decode_decisions(&raw, form));
        }
        Ok(())
    }

    fn aggregate(&mut self, kernel: &'static str, x: Value, v: &CudaValues<'_>) -> Result<()> {
        let shape = v.shape(x);
        let arguments = AggregateArgs {
            x: v.at(x).into(),
            sum: self.tables.sum()?,
            x_stride: v.stride(x),
            channels: shape.c as i32,
            plane: shape.plane() as i32,
        };
        self.each(kernel, shape.len(), 1, &arguments)
    }

    fn head(
        &mut self,
        logits: Value,
        (score, link): (Score, Link),
        seed: Option<Value>,
        v: &CudaValues<'_>,
        chunk: &Chunk<'_>,
    ) -> Result<()> {
        let classes = v.shape(logits).c;
        if let Some(slot) = chunk.slots.iter().find(|s| s.target >= classes) {
            return Err(Error::settings(format!("class {} of a net with {classes} classes", slot.target)));
        }
        let [scores, all] = self.tables.answers();
        let arguments = HeadArgs {
            logits: v.at(logits).into(),
            copies: self.tables.copies().into(),
            scores: scores.into(),
            all: all.into(),
            seed: seed.map_or(NOWHERE, |s| v.at(s)).into(),
            logits_stride: v.stride(logits),
            seed_stride: seed.map_or(0, |s| v.stride(s)),
            classes: classes as i32,
            score: match score {
                Score::Logit => 0,
                Score::Prob => 1,
                Score::LogProb => 2,
                Score::LogOthers => 3,
            },
            sigmoid: i32::from(link == Link::Sigmoid),
        };
        self.launch("head", [v.copies, 1, 1], None, &arguments)
    }
}

fn pointwise_arguments(xs: &[Value], out: Option<Value>, p: [f64; 3], v: &CudaValues<'_>) -> PointwiseArgs {
    let at = |i: usize| xs.get(i).map_or(NOWHERE, |&x| v.at(x));
    let stride = |i: usize| xs.get(i).map_or(0, |&x| v.stride(x));
    let shape = out.or(xs.first().copied()).map_or(Shape::new(1, 1, 1), |x| v.shape(x));
    let repeat = |i: usize| xs.get(i).and_then(|&x| v.shape(x).repeated_in(shape)).filter(|r| !r.is_whole());
    let repeats = [0, 1, 2].map(repeat);
    PointwiseArgs {
        x: at(0).into(),
        y: at(1).into(),
        z: at(2).into(),
        out: out.map_or(NOWHERE, |o| v.at(o)).into(),
        x_stride: stride(0),
        y_stride: stride(1),
        z_stride: stride(2),
        out_stride: out.map_or(0, |o| v.stride(o)),
        count: shape.len() as i32,
        channels: shape.c as i32,
        group: repeats.map(|r| r.map_or(0, |r| r.group as i32)),
        positions: repeats.map(|r| r.map_or(0, |r| i32::from(r.positions))),
        p,
        ..PointwiseArgs::default()
    }
}

fn reduce_arguments(x: Value, out: Option<Value>, v: &CudaValues<'_>) -> ReduceArgs {
    let shape = v.shape(x);
    ReduceArgs {
        x: v.at(x).into(),
        out: out.map_or(NOWHERE, |o| v.at(o)).into(),
        x_stride: v.stride(x),
        out_stride: out.map_or(0, |o| v.stride(o)),
        channels: shape.c as i32,
        plane: shape.plane() as i32,
        ..ReduceArgs::default()
    }
}

fn norm_arguments(norm: Standardise, x: Value, out: Value, v: &CudaValues<'_>) -> NormArgs {
    let shape = v.shape(x);
    NormArgs {
        x: v.at(x).into(),
        out: v.at(out).into(),
        x_stride: v.stride(x),
        out_stride: v.stride(out),
        channels: shape.c as i32,
        group: (shape.c / norm.groups) as i32,
        groups: norm.groups as i32,
        plane: if norm.across_positions { shape.plane() as i32 } else { 1 },
        means: norm.moments(shape).len() as i32,
        eps: norm.eps,
        ..NormArgs::default()
    }
}

fn set_axes(arguments: &mut ConvArgs, axes: [Axis; 2]) {
    arguments.grid = pair(axes, |a| a.grid);
    arguments.mul = pair(axes, |a| a.mul);
    arguments.add = pair(axes, |a| a.add);
    arguments.step = pair(axes, |a| a.step);
    arguments.taps = pair(axes, |a| a.taps);
    arguments.first = pair(axes, |a| a.first);
    arguments.every = pair(axes, |a| a.every);
    arguments.out_mul = pair(axes, |a| a.out_mul);
    arguments.out_add = pair(axes, |a| a.out_add);
}

fn pool_arguments(layer: PoolLayer, x: Value, out: Value, v: &CudaValues<'_>) -> PoolArgs {
    let pads = layer.window.pads(layer.input.h, layer.input.w);
    let w = &layer.window;
    let numbers = |of: [usize; 2]| of.map(|n| n as i32);
    PoolArgs {
        x: v.at(x).into(),
        out: v.at(out).into(),
        x_stride: v.stride(x),
        out_stride: v.stride(out),
        width: 1,
        channels: layer.input.c as i32,
        extent: [layer.input.h as i32, layer.input.w as i32],
        out_extent: [layer.output.h as i32, layer.output.w as i32],
        kernel: numbers(w.kernel),
        stride: numbers(w.stride),
        dilation: numbers(w.dilation),
        pad: numbers([pads[0][0], pads[1][0]]),
        pad_after: numbers([pads[0][1], pads[1][1]]),
        ..PoolArgs::default()
    }
}

fn move_arguments(x: Value, out: Value, v: &CudaValues<'_>) -> MoveArgs {
    MoveArgs {
        x: v.at(x).into(),
        out: v.at(out).into(),
        x_stride: v.stride(x),
        out_stride: v.stride(out),
        from: extents(v.shape(x)),
        to: extents(v.shape(out)),
        ..MoveArgs::default()
    }
}

/// Bytes of one of the value's winners.
fn width(v: Value, values: &CudaValues<'_>) -> Result<i32> {
    match values.plan.form(v) {
        Form::Winners(_, WinnerWidth::One) => Ok(1),
        Form::Winners(_, WinnerWidth::Two) => Ok(2),
        _ => Err(Error::device("winners were expected")),
    }
}
