//! Operations that are made of others. The last node has the given name, those before it that name with a word behind a
//! dot.

use super::{Affine, GraphBuilder, NodeId, Op, Over, Reduce, Smooth};
use crate::error::{Error, Result};

/// Local response normalisation as `torch.nn.LocalResponseNorm` has it:
/// `x / (k + alpha / size · Σ x²)^beta`, with a sum over `size` neighbouring channels of the same position, zeros beyond the
/// first and the last. An even size has one channel more before than after.
///
/// After Krizhevsky, Sutskever, Hinton 2012: ImageNet classification with deep convolutional neural networks, section 3.3,
/// where alpha is not divided by the size.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LocalResponseNorm {
    /// Channels of a sum; at least 1.
    pub size: usize,
    /// Factor of the mean square; finite.
    pub alpha: f64,
    /// Exponent; not 0.
    pub beta: f64,
    /// Constant; finite.
    pub k: f64,
}

impl GraphBuilder {
    /// `x` to the power `y`, as `exp(y · ln x)`; one of a single channel or a single position is repeated
    /// ([`crate::tensor::Shape::joined`]). A run in which x is not positive fails and names the node `NAME.log`.
    ///
    /// # Errors
    /// As [`GraphBuilder::push`].
    pub fn power(&mut self, name: &str, x: NodeId, y: NodeId) -> Result<NodeId> {
        let log = self.push(format!("{name}.log"), Op::Smooth(Smooth::Log), &[x])?;
        let product = self.push(format!("{name}.product"), Op::Mul, &[y, log])?;
        self.push(name, Op::Smooth(Smooth::Exp), &[product])
    }

    /// The Euclidean norm of the channels of each position (`[c, h, w]` becomes `[1, h, w]`), of the positions of each
    /// channel (`[c, 1, 1]`), or of all numbers (`[1, 1, 1]`). Its gradient at a vector of zeros is 0, as PyTorch's.
    ///
    /// # Errors
    /// As [`GraphBuilder::push`].
    pub fn norm(&mut self, name: &str, x: NodeId, over: Over) -> Result<NodeId> {
        let square = self.push(format!("{name}.square"), Op::Smooth(Smooth::Power { exponent: 2.0 }), &[x])?;
        let sum = self.push(format!("{name}.sum"), Op::Reduce(Reduce { over, mean: false }), &[square])?;
        self.push(name, Op::Smooth(Smooth::Power { exponent: 0.5 }), &[sum])
    }

    /// Local response normalisation; the shape stays. A run in which the sum with its constant is not positive fails and
    /// names a node.
    ///
    /// # Errors
    /// As [`GraphBuilder::push`], and when a number of the normalisation has no meaning.
    pub fn local_response_norm(&mut self, name: &str, x: NodeId, norm: LocalResponseNorm) -> Result<NodeId> {
        let LocalResponseNorm { size, alpha, beta, k } = norm;
        let channels = if x.index() < self.nodes.len() { self.shape(x).c } else { 0 };
        if size == 0 || channels == 0 {
            let what = if size == 0 { "a sum over 0 channels" } else { "a node that is not there yet" };
            return Err(Error::model(format!("node '{name}': local response normalisation of {what}")));
        }
        let mut push = |what: &str, op: Op, inputs: &[NodeId]| self.push(format!("{name}.{what}"), op, inputs);
        let square = push("square", Op::Smooth(Smooth::Power { exponent: 2.0 }), &[x])?;
        // Channels beyond all others add nothing.
        let [before, after] = [size / 2, (size - 1) / 2].map(|n| n.min(channels - 1));
        let mut sum = square;
        if before + after > 0 {
            let padded = push("padded", Op::PadChannels { before, after }, &[square])?;
            let neighbours = (0..=before + after).map(|first| {
                let name = format!("channel{:+}", first as isize - before as isize);
                push(&name, Op::Slice { first, channels }, &[padded])
            });
            let neighbours = neighbours.collect::<Result<Vec<NodeId>>>()?;
            sum = push("sum", Op::Add, &neighbours)?;
        }
        let affine = Affine { scale: [alpha / size as f64].into(), shift: [k].into() };
        let divisor = push("affine", Op::Affine(affine), &[sum])?;
        let divisor = push("divisor", Op::Smooth(Smooth::Power { exponent: beta }), &[divisor])?;
        self.push(name, Op::Divide, &[x, divisor])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::Shape;

    #[test]
    fn what_has_no_meaning_is_refused() {
        let norm = LocalResponseNorm { size: 5, alpha: 1e-4, beta: 0.75, k: 1.0 };
        let made = |norm: LocalResponseNorm, shape: Shape| {
            let mut b = GraphBuilder::new(shape);
            let node = b.local_response_norm("lrn", b.input(), norm)?;
            Ok::<_, Error>(b.shape(node))
        };
        let shape = Shape::new(3, 4, 5);
        assert_eq!(made(norm, shape).unwrap(), shape);
        // One channel, and more neighbours than channels.
        assert_eq!(made(norm, Shape::vector(1)).unwrap(), Shape::vector(1));
        assert_eq!(made(LocalResponseNorm { size: usize::MAX, ..norm }, shape).unwrap(), shape);
        for odd in [
            LocalResponseNorm { size: 0, ..norm },
            LocalResponseNorm { beta: 0.0, ..norm },
            LocalResponseNorm { beta: f64::NAN, ..norm },
            LocalResponseNorm { alpha: f64::INFINITY, ..norm },
            LocalResponseNorm { k: f64::NAN, ..norm },
        ] {
            let why = made(odd, shape).unwrap_err().to_string();
            assert!(why.contains("'lrn"), "{why}");
        }
        let mut b = GraphBuilder::new(shape);
        let length = b.norm("length", b.input(), Over::Channels).unwrap();
        assert_eq!(b.shape(length), Shape::new(1, 4, 5));
        let power = b.power("power", b.input(), length).unwrap();
        assert_eq!(b.shape(power), shape);
        assert!(b.norm("length", b.input(), Over::Positions).is_err(), "a name that is taken");
    }
}
