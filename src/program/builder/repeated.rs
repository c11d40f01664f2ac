//! Steps with operands that are repeated, and sums over what they are repeated for.

use super::{Builder, Deviation};
use crate::error::{Error, Result};
use crate::graph::{NodeId, Op};
use crate::program::{Elementwise, Form, Step, Value};
use crate::tensor::Shape;

impl Builder<'_> {
    /// `a + b`, where one of them may be repeated ([`Shape::joined`]).
    ///
    /// # Errors
    /// When they are not numbers of shapes that can be joined.
    pub fn add_repeated(&mut self, a: Value, b: Value) -> Result<Value> {
        let [left, right] = [self.numbers("a sum", a)?, self.numbers("a sum", b)?];
        if left == right {
            return self.add(a, b);
        }
        let shape = left.joined(right).ok_or_else(|| Error::model(format!("cannot add {left} and {right}")))?;
        let out = self.dense(shape);
        self.sum_of_two([a, b], out).into_iter().for_each(|step| self.write(step));
        Ok(out)
    }

    /// An elementwise function of values of which some are repeated to fill `shape` ([`Shape::repeated_in`]).
    ///
    /// # Errors
    /// When the number of values is not its arity, or one does not fill the shape.
    pub fn repeated(&mut self, op: Elementwise, xs: Vec<Value>, shape: Shape) -> Result<Value> {
        if xs.len() != op.arity() {
            return Err(Error::model(format!("{} takes {} values, not {}", op.name(), op.arity(), xs.len())));
        }
        for &x in &xs {
            let own = self.numbers(op.name(), x)?;
            // Kernels of activations read each number once.
            let alone = matches!(op, Elementwise::Smooth(_) | Elementwise::Slope(_)) && own != shape;
            if own.repeated_in(shape).is_none() || alone {
                return Err(Error::model(format!("{}: {own} does not fill {shape}", op.name())));
            }
        }
        let out = self.dense(shape.checked()?);
        self.write(Step::Elementwise { op, xs, out });
        Ok(out)
    }

    /// The sum of `x`, or of the product of two values of one shape, over the channels and positions that each number of
    /// `to` stands for ([`Shape::repeated_in`]): the adjoint of the repetition. Where `to` is the values' own shape,
    /// nothing is added up.
    ///
    /// # Errors
    /// When there are not one or two values of one shape, or `to` does not fill it.
    pub fn contract(&mut self, xs: Vec<Value>, to: Shape) -> Result<Value> {
        let (Some(&first), 1..=2) = (xs.first(), xs.len()) else {
            return Err(Error::model("a sum over channels or positions takes one or two values"));
        };
        let shape = self.numbers("a sum over channels or positions", first)?;
        xs.iter().try_for_each(|&x| self.expect("a sum over channels or positions", x, Form::Dense(shape)))?;
        match (to.repeated_in(shape), &xs[..]) {
            (None, _) => Err(Error::model(format!("{to} does not fill {shape}"))),
            (Some(repeat), &[x]) if repeat.is_whole() => Ok(x),
            (Some(repeat), &[a, b]) if repeat.is_whole() => self.mul(a, b),
            (Some(_), _) => {
                let out = self.dense(to);
                self.write(Step::Contract { xs, out });
                Ok(out)
            }
        }
    }

    /// `factor ∘ s` for a signal `s`, summed to the shape `to`: what a product sends back to one operand, where `factor`
    /// is the other.
    ///
    /// # Errors
    /// When `factor` or `to` does not fill the signal's shape.
    pub fn product_adjoint(&mut self, s: Value, factor: Value, to: Shape) -> Result<Value> {
        let shape = self.numbers("a product", s)?;
        if self.numbers("a product", factor)? == shape {
            return self.contract(vec![s, factor], to);
        }
        let all = self.repeated(Elementwise::Mul, vec![s, factor], shape)?;
        self.contract(vec![all], to)
    }

    /// `1/√(variance + eps)` of each group of `node` (a standardisation).
    ///
    /// # Errors
    /// When `node` is not a standardisation.
    ///
    /// # Panics
    /// When the graph has no such node.
    pub fn inverse_deviation(&mut self, node: NodeId) -> Result<Value> {
        let here = self.graph.node(node);
        let Op::Standardise(norm) = here.op else { return Err(self.not("a standardisation", node)) };
        let value = self.dense(norm.moments(here.shape));
        let at = self.values().sections[node.index()];
        match self.sections[at].first_mut() {
            Some((Step::Standardise { scale, .. }, _)) => Ok(*scale.get_or_insert(value)),
            _ => Err(self.not("a standardisation", node)),
        }
    }

    /// Sends `s` back through `node` (a standardisation): its gradient, or with `held` the adjoint of the map that it is
    /// while its deviations are constants.
    ///
    /// # Errors
    /// When `node` is not a standardisation, or `s` does not have the shape of its output.
    ///
    /// # Panics
    /// When the graph has no such node.
    pub fn standardise_adjoint(&mut self, node: NodeId, s: Value, held: Deviation) -> Result<Value> {
        let Op::Standardise(norm) = self.graph.node(node).op else { return Err(self.not("a standardisation", node)) };
        self.expect_signal(node, s)?;
        let scale = self.inverse_deviation(node)?;
        let y = (held == Deviation::Follows).then(|| self.values().own[node.index()]);
        let out = self.dense(self.graph.node(node).shape);
        self.write(Step::StandardiseAdjoint { norm, s, y, scale, out });
        Ok(out)
    }
}
