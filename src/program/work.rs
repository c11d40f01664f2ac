//! Arithmetic and memory traffic of a step, independent of the algorithm that runs it.

use super::{Form, LinearLayer, Step, Value};
use crate::graph::Weight;

/// The work of a step, with which its time is compared.
///
/// Only multiply-adds count as arithmetic. Additions, comparisons, moves and random draws do not: steps made of them
/// are expected to be memory-bound. Every value counts once and in full, without the padding of a device's layout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Work {
    /// Floating-point operations per copy, two per multiply-add; taps in the padding count.
    pub flops: u64,
    /// Bytes of values read, per copy.
    pub read_bytes: u64,
    /// Bytes of values written, per copy.
    pub written_bytes: u64,
    /// Bytes of weights and biases, read once for all copies of a chunk. Each number counts with its stored or its
    /// computed size, whichever is smaller.
    pub weight_bytes: u64,
}

impl Work {
    /// The work of `step` in a program with values of `forms`, computed in numbers of `scalar_bytes`.
    pub fn of(step: &Step, forms: &[Form], scalar_bytes: usize) -> Self {
        let bytes = |v: &Value| value_bytes(forms[v.index()], scalar_bytes);
        let numbers = |v: &Value| forms[v.index()].shape().len() as u64;
        let mut reads = step.reads();
        reads.sort_unstable();
        reads.dedup();
        let mut work = Work {
            read_bytes: reads.iter().map(bytes).sum(),
            written_bytes: step.writes().iter().map(bytes).sum(),
            ..Work::default()
        };
        match step {
            Step::Conv { layer, .. } | Step::ConvAdjoint { layer, .. } => {
                work.flops = 2 * (layer.output.len() * layer.weight.row_len()) as u64;
                work.weight_bytes = weight_bytes(&layer.weight, scalar_bytes);
                if let (Step::Conv { .. }, Some(bias)) = (step, &layer.bias) {
                    work.weight_bytes += (bias.len() * scalar_bytes) as u64;
                }
            }
            Step::Linear { layer, .. } => {
                work.linear(layer, scalar_bytes);
                work.weight_bytes += layer.bias.as_ref().map_or(0, |b| b.len() * scalar_bytes) as u64;
            }
            Step::LinearAdjoint { layer, .. } => work.linear(layer, scalar_bytes),
            // No weight is read.
            Step::ConvWeightAdjoint { layer, .. } => {
                work.flops = 2 * (layer.output.len() * layer.weight.row_len()) as u64;
            }
            Step::WeightedChannelSum { x, .. } => work.flops = 2 * numbers(x),
            Step::Contract { xs, .. } if xs.len() == 2 => work.flops = 2 * numbers(&xs[0]),
            // Sums of numbers and of squares; of signals and of their products.
            Step::Standardise { x, .. } => work.flops = 4 * numbers(x),
            Step::StandardiseAdjoint { s, .. } => work.flops = 4 * numbers(s),
            Step::Fill { values, .. } => work.weight_bytes = (values.len() * scalar_bytes) as u64,
            // Numbers transferred from or to the host.
            Step::Perturb { .. } | Step::Load { .. } => work.read_bytes = work.written_bytes,
            Step::Store { .. } => work.written_bytes = work.read_bytes,
            Step::LoadDecisions { out, .. } => work.read_bytes = 2 * numbers(out),
            Step::StoreDecisions { x, .. } => work.written_bytes = 2 * numbers(x),
            // The running statistic is kept in double precision: the mean and, for a variance, the squared deviations.
            Step::Aggregate { x, statistic } => {
                let sums = if statistic.has_two() { 2 } else { 1 };
                work.flops = 2 * sums * numbers(x);
                work.read_bytes += 8 * sums * numbers(x);
                work.written_bytes = 8 * sums * numbers(x);
            }
            _ => {}
        }
        work
    }

    fn linear(&mut self, layer: &LinearLayer, scalar_bytes: usize) {
        self.flops = 2 * layer.weight.len() as u64;
        self.weight_bytes = weight_bytes(&layer.weight, scalar_bytes);
    }

    /// Floating-point operations of a chunk.
    pub fn chunk_flops(&self, copies: usize) -> u64 {
        self.flops * copies as u64
    }

    /// Bytes of values and weights of a chunk.
    pub fn chunk_bytes(&self, copies: usize) -> u64 {
        (self.read_bytes + self.written_bytes) * copies as u64 + self.weight_bytes
    }
}

fn value_bytes(form: Form, scalar_bytes: usize) -> u64 {
    let bytes = match form {
        Form::Dense(s) => s.len() * scalar_bytes,
        Form::Bits(s) => s.len().div_ceil(8),
        Form::Winners(s, width) => s.len() * width.bytes(),
    };
    bytes as u64
}

fn weight_bytes(weight: &Weight, scalar_bytes: usize) -> u64 {
    (weight.len() * weight.encoding().bytes().min(scalar_bytes)) as u64
}

/// The pass that a step belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StepPass {
    /// From the picture to the scores.
    Forward,
    /// From the scores, or from a given signal, to the map.
    Backward,
}

impl StepPass {
    /// `forward` or `backward`.
    pub const fn name(self) -> &'static str {
        match self {
            StepPass::Forward => "forward",
            StepPass::Backward => "backward",
        }
    }

    /// The pass of each step. The last score before the first adjoint ends the forward pass; without a score, the first
    /// adjoint, with the given signal, begins the backward pass. A program without adjoints has no backward pass.
    pub fn of(steps: &[Step]) -> Vec<StepPass> {
        let Some(adjoint) = steps.iter().position(|step| step.kind().ends_with("_adjoint")) else {
            return vec![StepPass::Forward; steps.len()];
        };
        let signals = steps[adjoint].reads();
        let given = |step: &Step| matches!(step, Step::Load { out, .. } if signals.contains(out));
        let scored = steps[..adjoint].iter().rposition(|step| matches!(step, Step::Head { .. }));
        let pass = |(i, step): (usize, &Step)| match scored {
            Some(scored) if i > scored => StepPass::Backward,
            None if i >= adjoint || given(step) => StepPass::Backward,
            _ => StepPass::Forward,
        };
        steps.iter().enumerate().map(pass).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::graph::{Conv, Graph, GraphBuilder, Linear, Op};
    use crate::program::Statistic;
    use crate::program::{Builder, ConvLayer, Decided, Epilogue, PoolLayer, Range, Score, WinnerWidth};
    use crate::tensor::{Shape, Window};

    fn weight(dims: [usize; 4]) -> Weight {
        Weight::owned(dims, &vec![0.5; dims.iter().product()]).unwrap()
    }

    fn conv() -> Arc<ConvLayer> {
        Arc::new(ConvLayer {
            name: "conv".into(),
            weight: weight([4, 3, 3, 3]),
            bias: Some(vec![0.0; 4].into()),
            window: Window::square(3, 2, 1),
            groups: 1,
            input: Shape::new(3, 5, 7),
            output: Shape::new(4, 3, 4),
        })
    }

    #[test]
    fn a_convolution_by_hand() {
        let forms = [
            Form::Dense(Shape::new(3, 5, 7)),
            Form::Dense(Shape::new(4, 3, 4)),
            Form::Bits(Shape::new(4, 3, 4)),
            Form::Dense(Shape::new(4, 3, 4)),
        ];
        let [x, out, bits, other] = [0, 1, 2, 3].map(Value);
        let plain = Step::Conv { layer: conv(), x, out, epilogue: Epilogue::default() };
        // 48 numbers, each a sum of 27 products; 105 numbers read, 48 written; 108 weights and 4 biases.
        let work = Work::of(&plain, &forms, 4);
        assert_eq!(
            work,
            Work { flops: 2 * 48 * 27, read_bytes: 4 * 105, written_bytes: 4 * 48, weight_bytes: 4 * 112 }
        );
        assert_eq!(work.chunk_bytes(3), 3 * 4 * 153 + 4 * 112);
        assert_eq!(work.chunk_flops(3), 3 * 2592);
        let epilogue = Epilogue {
            add: Some(other),
            bits: Some((bits, Range::POSITIVE)),
            clamp: Some(Range::POSITIVE),
            ..Epilogue::default()
        };
        let fused = Step::Conv { layer: conv(), x, out, epilogue };
        // 48 more numbers to read, 48 more bits to write.
        let work = Work::of(&fused, &forms, 4);
        assert_eq!((work.read_bytes, work.written_bytes), (4 * 153, 4 * 48 + 6));
        let adjoint = Step::ConvAdjoint { layer: conv(), s: out, out: x, epilogue: Epilogue::default() };
        let work = Work::of(&adjoint, &forms, 8);
        // Stored in single precision, so a double-precision run need not read more.
        let want = Work { flops: 2592, read_bytes: 8 * 48, written_bytes: 8 * 105, weight_bytes: 4 * 108 };
        assert_eq!(work, want);
    }

    #[test]
    fn a_linear_layer_by_hand() {
        let forms = [Form::Dense(Shape::vector(5)), Form::Dense(Shape::vector(3))];
        let [x, out] = [0, 1].map(Value);
        let bias: Option<Arc<[f64]>> = Some(vec![0.0; 3].into());
        let layer = Arc::new(LinearLayer { name: "fc".into(), weight: weight([3, 5, 1, 1]), bias });
        let forward = Work::of(&Step::Linear { layer: Arc::clone(&layer), x, out }, &forms, 4);
        assert_eq!(forward, Work { flops: 30, read_bytes: 20, written_bytes: 12, weight_bytes: 72 });
        let adjoint = Work::of(&Step::LinearAdjoint { layer, s: out, out: x }, &forms, 4);
        assert_eq!(adjoint, Work { flops: 30, read_bytes: 12, written_bytes: 20, weight_bytes: 60 });
    }

    #[test]
    fn steps_without_weights_by_hand() {
        let (large, small) = (Shape::new(2, 4, 4), Shape::new(2, 2, 2));
        let forms = [
            Form::Dense(large),
            Form::Dense(small),
            Form::Winners(small, WinnerWidth::One),
            Form::Bits(large),
            Form::Dense(large),
        ];
        let [x, out, winners, bits, y] = [0, 1, 2, 3, 4].map(Value);
        let layer = PoolLayer { window: Window::square(2, 2, 0), input: large, output: small };
        let of = |step: Step| {
            let w = Work::of(&step, &forms, 4);
            (w.flops, w.read_bytes, w.written_bytes)
        };
        assert_eq!(of(Step::MaxPool { layer, x, out, winners: Some(winners) }), (0, 128, 40));
        assert_eq!(of(Step::MaxPoolAdjoint { layer, s: out, winners, out: x }), (0, 40, 128));
        assert_eq!(of(Step::Gate { s: x, bits, out: y }), (0, 132, 128));
        // An operand that is read twice is loaded from memory once.
        assert_eq!(of(Step::Add { a: x, b: x, out: y }), (0, 128, 128));
        assert_eq!(of(Step::Perturb { out: x }), (0, 128, 128));
        assert_eq!(of(Step::Aggregate { x, statistic: Statistic::Sum }), (64, 128 + 256, 256));
        assert_eq!(of(Step::Aggregate { x, statistic: Statistic::Variance }), (128, 128 + 512, 512));
    }

    fn net() -> Graph {
        let mut b = GraphBuilder::new(Shape::new(3, 5, 7));
        let x = b.input();
        let conv = Conv { weight: weight([4, 3, 3, 3]), bias: None, window: Window::square(3, 2, 1), groups: 1 };
        let x = b.push("conv", Op::Conv(conv), &[x]).unwrap();
        let x = b.push("relu", Op::Relu, &[x]).unwrap();
        let x = b.push("flatten", Op::Flatten, &[x]).unwrap();
        let x = b.push("fc", Op::Linear(Linear { weight: weight([6, 48, 1, 1]), bias: None }), &[x]).unwrap();
        b.finish(x).unwrap()
    }

    #[test]
    fn a_forward_pass_has_the_graphs_multiplications() {
        let graph = net();
        let mut b = Builder::new(&graph, Decided::Here).unwrap();
        let seed = b.seed(Score::Logit);
        let fc = graph.output();
        let down = b.linear_adjoint(fc, seed).unwrap();
        b.aggregate(down, Statistic::Sum).unwrap();
        let program = b.finish();
        let passes = StepPass::of(&program.steps);
        let flops = |pass: StepPass| -> u64 {
            let steps = program.steps.iter().zip(&passes).filter(|(_, p)| **p == pass);
            steps.map(|(s, _)| Work::of(s, &program.forms, 4).flops).sum()
        };
        assert_eq!(flops(StepPass::Forward), 2 * graph.macs() as u64);
        // The adjoint of the linear layer, and the map's sum.
        assert_eq!(flops(StepPass::Backward), 2 * 6 * 48 + 2 * 48);
        assert!(passes.is_sorted());
        // The pictures' scores alone have no backward pass; a given signal begins one.
        let forward: Vec<Step> = program.steps[..program.steps.len() - 2].to_vec();
        assert!(StepPass::of(&forward).iter().all(|p| *p == StepPass::Forward));
        let (adjoint, aggregate) = (program.steps.len() - 2, program.steps.len() - 1);
        let given = vec![
            Step::Load { slot: 0, out: program.steps[adjoint].reads()[0] },
            program.steps[adjoint].clone(),
            program.steps[aggregate].clone(),
        ];
        assert!(StepPass::of(&given).iter().all(|p| *p == StepPass::Backward));
    }
}
