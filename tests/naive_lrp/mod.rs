//! Relevance rules in double precision on explicit matrices, straight from their definitions.

use verilume::graph::{Graph, Op};
use verilume::rule::Preset;

use crate::reference::{Dense, ReluRule, forward, op_forward, op_vjp, weight_f64};

/// A linear operation on one picture: `y[o] = Σ_i w[o][i] x[i] + b[o]`.
pub struct Matrix {
    pub w: Vec<Vec<f64>>,
    pub b: Vec<f64>,
    /// Whether tap (o, i) lies inside the picture, whatever its weight.
    pub tap: Vec<Vec<bool>>,
}

impl Matrix {
    /// What `op` does to a picture shaped like `x`, found by trying every unit vector.
    pub fn of(op: &Op, x: &Dense) -> Self {
        let (mut plain, mut ones) = (op.clone(), op.clone());
        for (op, make_ones) in [(&mut plain, false), (&mut ones, true)] {
            let (weight, bias) = match op {
                Op::Conv(conv) => (&mut conv.weight, &mut conv.bias),
                Op::Linear(linear) => (&mut linear.weight, &mut linear.bias),
                _ => continue,
            };
            *bias = None;
            if make_ones {
                *weight = weight_f64(weight.dims(), &vec![1.0; weight.len()]);
            }
        }
        let zero = Dense::zeros(1, x.shape);
        let b = op_forward(op, &[&zero]).data;
        let n = x.shape.len();
        let (mut w, mut tap) = (vec![vec![0.0; n]; b.len()], vec![vec![false; n]; b.len()]);
        for i in 0..n {
            let mut unit = zero.clone();
            unit.data[i] = 1.0;
            // A batch norm without its shift has no form of its own: the difference takes it away.
            let offset = op_forward(&plain, &[&zero]).data;
            for (o, y) in op_forward(&plain, &[&unit]).data.into_iter().enumerate() {
                w[o][i] = y - offset[o];
            }
            let offset = op_forward(&ones, &[&zero]).data;
            for (o, y) in op_forward(&ones, &[&unit]).data.into_iter().enumerate() {
                tap[o][i] = y != offset[o];
            }
        }
        Self { w, b, tap }
    }

    pub fn apply(&self, x: &[f64]) -> Vec<f64> {
        self.w.iter().zip(&self.b).map(|(w, b)| w.iter().zip(x).map(|(w, x)| w * x).sum::<f64>() + b).collect()
    }
}

/// A rule for one layer.
#[derive(Debug, Clone)]
pub enum Naive {
    Epsilon {
        epsilon: f64,
        bias: bool,
    },
    ZPlus {
        bias: bool,
    },
    AlphaBeta {
        alpha: f64,
        beta: f64,
        bias: bool,
    },
    Gamma {
        gamma: f64,
        bias: bool,
    },
    /// Bounds of each input.
    ZBox {
        low: Vec<f64>,
        high: Vec<f64>,
    },
    WSquare,
    Flat,
    Norm,
    Contrast,
}

const DELTA: f64 = 1e-6;

/// `R / (z + δ·sign(z))`, `sign(0) = +1`.
pub fn stabilised(r: f64, z: f64, delta: f64) -> f64 {
    let sign = if z >= 0.0 { 1.0 } else { -1.0 };
    let below = z + delta * sign;
    if below == 0.0 { 0.0 } else { r / below }
}

fn plus(v: f64) -> f64 {
    v.max(0.0)
}

fn minus(v: f64) -> f64 {
    v.min(0.0)
}

impl Naive {
    /// What each input adds to the output `o`, so that its relevance is divided in proportion.
    fn contributions(part: impl Fn(f64, f64) -> f64, m: &Matrix, o: usize, x: &[f64]) -> Vec<f64> {
        m.w[o].iter().zip(x).map(|(&w, &x)| part(w, x)).collect()
    }

    /// `R_in` for the relevance `r` at the outputs.
    pub fn relevance(&self, m: &Matrix, x: &[f64], r: &[f64]) -> Vec<f64> {
        let mut out = vec![0.0; x.len()];
        let y = m.apply(x);
        for (o, &r) in r.iter().enumerate() {
            let bias = |keep: bool| if keep { m.b[o] } else { 0.0 };
            // Pairs of contributions, the bias's part, the factor, δ.
            let raised = |w: f64, x: f64| plus(w) * plus(x) + minus(w) * minus(x);
            let lowered = |w: f64, x: f64| minus(w) * plus(x) + plus(w) * minus(x);
            let of = |part: &dyn Fn(f64, f64) -> f64| Self::contributions(part, m, o, x);
            let shares: Vec<(Vec<f64>, f64, f64, f64)> = match self {
                Naive::Epsilon { epsilon, bias: keep } => vec![(of(&|w, x| w * x), bias(*keep), 1.0, *epsilon)],
                Naive::ZPlus { bias: keep } => vec![(of(&raised), plus(bias(*keep)), 1.0, DELTA)],
                Naive::AlphaBeta { alpha, beta, bias: keep } => vec![
                    (of(&raised), plus(bias(*keep)), *alpha, DELTA),
                    (of(&lowered), minus(bias(*keep)), -beta, DELTA),
                ],
                Naive::Gamma { gamma, bias: keep } => {
                    let more = |w: f64| w + gamma * plus(w);
                    let less = |w: f64| w + gamma * minus(w);
                    let b = bias(*keep);
                    if y[o] > 0.0 {
                        vec![(of(&|w, x| more(w) * plus(x) + less(w) * minus(x)), b + gamma * plus(b), 1.0, DELTA)]
                    } else if y[o] < 0.0 {
                        vec![(of(&|w, x| less(w) * plus(x) + more(w) * minus(x)), b + gamma * minus(b), 1.0, DELTA)]
                    } else {
                        vec![]
                    }
                }
                Naive::ZBox { low, high } => {
                    let each = (0..x.len()).map(|i| {
                        let w = m.w[o][i];
                        w * x[i] - plus(w) * low[i] - minus(w) * high[i]
                    });
                    vec![(each.collect(), 0.0, 1.0, DELTA)]
                }
                Naive::WSquare => vec![(m.w[o].iter().map(|w| w * w).collect(), 0.0, 1.0, DELTA)],
                Naive::Flat => vec![(m.tap[o].iter().map(|&tap| f64::from(u8::from(tap))).collect(), 0.0, 1.0, DELTA)],
                Naive::Norm => vec![(of(&|w, x| w * x), 0.0, 1.0, DELTA)],
                Naive::Contrast => vec![(of(&raised), 0.0, 1.0, DELTA), (of(&lowered), 0.0, -1.0, DELTA)],
            };
            for (contributions, bias, factor, delta) in shares {
                let s = factor * stabilised(r, contributions.iter().sum::<f64>() + bias, delta);
                out.iter_mut().zip(contributions).for_each(|(out, c)| *out += c * s);
            }
        }
        out
    }
}

/// What a whole net does with relevance.
#[derive(Debug, Clone)]
pub struct Rules {
    pub first: Option<Naive>,
    pub last: Option<Naive>,
    pub convolution: Naive,
    pub linear: Naive,
    /// Of sums and averages: in proportion, or to positive parts only.
    pub sums: Naive,
}

impl Rules {
    /// A preset's, `low` and `high` for each number of the picture.
    pub fn of(preset: Preset, low: &[f64], high: &[f64], epsilon: f64, gamma: f64, bias: bool) -> Self {
        let linear = Naive::Epsilon { epsilon, bias };
        let convolution = match preset {
            Preset::Epsilon => linear.clone(),
            Preset::EpsilonPlus | Preset::EpsilonPlusFlat => Naive::ZPlus { bias },
            Preset::EpsilonAlpha2Beta1 | Preset::EpsilonAlpha2Beta1Flat => {
                Naive::AlphaBeta { alpha: 2.0, beta: 1.0, bias }
            }
            Preset::EpsilonGammaBox | Preset::Gamma => Naive::Gamma { gamma, bias },
        };
        let first = match preset {
            Preset::EpsilonPlusFlat | Preset::EpsilonAlpha2Beta1Flat => Some(Naive::Flat),
            Preset::EpsilonGammaBox => Some(Naive::ZBox { low: low.to_vec(), high: high.to_vec() }),
            _ => None,
        };
        Self { first, last: None, convolution, linear, sums: Naive::Norm }
    }
}

/// Relevance at every node of a net whose first layer reads the picture and whose output is its last layer, for one
/// picture and the relevance `r` at the logits.
pub fn relevance(graph: &Graph, x: &Dense, rules: &Rules, r: Dense) -> Vec<Dense> {
    let outputs = forward(graph, x);
    let mut at: Vec<Dense> = outputs.iter().map(|d| Dense::zeros(1, d.shape)).collect();
    at[graph.output().index()] = r;
    for id in graph.ids().skip(1).rev() {
        let node = graph.node(id);
        let inputs: Vec<&Dense> = node.inputs.iter().map(|i| &outputs[i.index()]).collect();
        let up = at[id.index()].clone();
        let by = |rule: &Naive| {
            let data = rule.relevance(&Matrix::of(&node.op, inputs[0]), &inputs[0].data, &up.data);
            vec![Dense::new(inputs[0].shape, data)]
        };
        let first = node.inputs[0] == graph.input() && !matches!(node.op, Op::BatchNorm(_));
        let down = match &node.op {
            Op::Conv(_) | Op::BatchNorm(_) | Op::Linear(_) => match (&rules.first, &rules.last) {
                (Some(rule), _) if first => by(rule),
                (_, Some(rule)) if id == graph.output() => by(rule),
                _ if matches!(node.op, Op::Linear(_)) => by(&rules.linear),
                _ => by(&rules.convolution),
            },
            Op::Relu | Op::Clamp { .. } => vec![up],
            Op::AvgPool { .. } | Op::AdaptiveAvgPool { .. } => by(&rules.sums),
            Op::Add => {
                let shares: Vec<Dense> = inputs
                    .iter()
                    .map(|x| if matches!(rules.sums, Naive::Norm) { (*x).clone() } else { x.map(plus) })
                    .collect();
                let z = shares[1..].iter().fold(shares[0].clone(), |z, x| z.zip(x, |a, b| a + b));
                let s = up.zip(&z, |r, z| stabilised(r, z, DELTA));
                shares.iter().map(|x| x.zip(&s, |x, s| x * s)).collect()
            }
            op => op_vjp(op, &inputs, &up, ReluRule::Vjp),
        };
        for (input, part) in node.inputs.iter().zip(down) {
            at[input.index()] = at[input.index()].zip(&part, |a, b| a + b);
        }
    }
    at
}

/// RectGrad's signal at every node, `up` at the logits.
pub fn rectified(graph: &Graph, x: &Dense, q: f64, up: Dense) -> Vec<Dense> {
    let outputs = forward(graph, x);
    let mut at: Vec<Dense> = outputs.iter().map(|d| Dense::zeros(1, d.shape)).collect();
    at[graph.output().index()] = up;
    for id in graph.ids().skip(1).rev() {
        let node = graph.node(id);
        let inputs: Vec<&Dense> = node.inputs.iter().map(|i| &outputs[i.index()]).collect();
        let up = at[id.index()].clone();
        let down = match &node.op {
            Op::Relu | Op::Clamp { .. } => {
                let cut = |y: f64| matches!(node.op, Op::Clamp { lo, hi } if !(lo < y && y < hi));
                let product = outputs[id.index()].zip(&up, |y, s| if cut(y) { 0.0 } else { y * s });
                let threshold = quantile(&product.data, q);
                vec![up.zip(&product, |s, p| if p > threshold { s } else { 0.0 })]
            }
            op => op_vjp(op, &inputs, &up, ReluRule::Vjp),
        };
        for (input, part) in node.inputs.iter().zip(down) {
            at[input.index()] = at[input.index()].zip(&part, |a, b| a + b);
        }
    }
    at
}

/// Between two of the sorted numbers by linear interpolation.
pub fn quantile(numbers: &[f64], q: f64) -> f64 {
    let mut sorted = numbers.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = q * (sorted.len() - 1) as f64;
    let (below, above) = (sorted[rank.floor() as usize], sorted[rank.ceil() as usize]);
    below + (above - below) * rank.fract()
}
