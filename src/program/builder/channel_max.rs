//! The maximum over channels: a max-pool over rows of a map whose channels are the positions and whose rows are the channels.

use super::Builder;
use crate::graph::NodeId;
use crate::program::{PoolLayer, Step, Value};
use crate::tensor::{Moves, Shape, Window};

/// The pool for a map of shape `x`.
pub(super) const fn pool(x: Shape) -> PoolLayer {
    let window = Window { kernel: [x.c, 1], ..Window::square(1, 1, 0) };
    PoolLayer { window, input: Shape::new(x.plane(), x.c, 1), output: Shape::vector(x.plane()) }
}

impl Builder<'_> {
    /// Numbers of `x`, read as a matrix of this many rows, in the order of its columns.
    fn turned(&mut self, x: Value, rows: usize, out: Value) -> [Step; 3] {
        let [flat, turned] = [(); 2].map(|()| self.dense(Shape::vector(self.shape(x).len())));
        let moves = Moves { groups: rows, ..Moves::SAME };
        [Step::Flatten { x, out: flat }, Step::Move { x: flat, moves, out: turned }, Step::Unflatten { s: turned, out }]
    }

    pub(super) fn channel_max_steps(&mut self, layer: PoolLayer, x: Value, out: Value) -> Vec<Step> {
        let [columns, most] = [layer.input, layer.output].map(|shape| self.dense(shape));
        let mut steps = Vec::from(self.turned(x, layer.input.h, columns));
        steps.push(Step::MaxPool { layer, x: columns, out: most, winners: None });
        steps.push(Step::Unflatten { s: most, out });
        steps
    }

    pub(super) fn channel_max_adjoint(&mut self, node: NodeId, layer: PoolLayer, winners: Value, s: Value) -> Value {
        let to = self.shape(self.input(node, 0));
        let [most, columns, out] = [layer.output, layer.input, to].map(|shape| self.dense(shape));
        self.write(Step::Flatten { x: s, out: most });
        self.write(Step::MaxPoolAdjoint { layer, s: most, winners, out: columns });
        self.turned(columns, layer.input.c, out).into_iter().for_each(|step| self.write(step));
        out
    }
}
