//! What runs graphs: the reference, the engine on the CPU, and the kernels of a GPU.

use super::*;

/// Something that runs graphs.
pub(crate) trait Subject {
    /// Who it is, for messages.
    fn name(&self) -> String;

    /// Largest relative error of one rounding.
    fn unit_roundoff(&self) -> f64;

    /// Outputs of `nodes` for the batch `x`.
    fn outputs(&self, graph: &Arc<Graph>, x: &Dense, nodes: &[NodeId]) -> Vec<Dense>;

    /// What `seed` at the output of `from` becomes at the output of `want`.
    fn pullback(
        &self,
        graph: &Arc<Graph>,
        x: &Dense,
        from: NodeId,
        seed: &Dense,
        rule: ReluRule,
        want: NodeId,
    ) -> Dense;

    /// By how much more than plain summation a direction of `op` may err. More than 1 means that integers may be rounded.
    fn slack(&self, _op: &Op, _direction: Direction) -> f64 {
        1.0
    }

    /// Largest relative error of a product before it is summed; integers are multiplied exactly.
    fn product_error(&self, _op: &Op, _direction: Direction) -> f64 {
        0.0
    }
}

/// Which way an operation is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    Forward,
    Backward,
}

/// The reference in the place of a device: the cases and their bounds are tested on it.
pub(crate) struct Reference;

impl Subject for Reference {
    fn name(&self) -> String {
        "reference".into()
    }

    fn unit_roundoff(&self) -> f64 {
        f64::EPSILON / 2.0
    }

    fn outputs(&self, graph: &Arc<Graph>, x: &Dense, nodes: &[NodeId]) -> Vec<Dense> {
        let all = forward(graph, x);
        nodes.iter().map(|id| all[id.index()].clone()).collect()
    }

    fn pullback(
        &self,
        graph: &Arc<Graph>,
        x: &Dense,
        from: NodeId,
        seed: &Dense,
        rule: ReluRule,
        want: NodeId,
    ) -> Dense {
        backward(graph, &forward(graph, x), from, seed.clone(), rule).swap_remove(want.index())
    }
}

/// The engine on the CPU.
pub(crate) struct Cpu {
    pub(crate) engine: RefCell<Engine>,
    pub(crate) precision: Precision,
    pub(crate) kernels: Kernels,
    pub(crate) convolution: Convolution,
}

impl Cpu {
    pub(crate) fn new(precision: Precision, kernels: Kernels) -> Self {
        Self::convolving(precision, kernels, Convolution::Fast)
    }

    pub(crate) fn convolving(precision: Precision, kernels: Kernels, convolution: Convolution) -> Self {
        let settings = Settings { precision, kernels, convolution, threads: Some(2), ..Settings::default() };
        Self { engine: RefCell::new(Engine::new(&settings).unwrap()), precision, kernels, convolution }
    }

    pub(crate) fn tensor(&self, d: &Dense) -> Tensor {
        let [c, h, w] = d.shape.dims();
        Tensor::rounded([d.n(), c, h, w], d.data.clone(), self.precision).unwrap()
    }
}

impl Subject for Cpu {
    fn name(&self) -> String {
        format!("{:?} {}", self.kernels, self.precision)
    }

    /// Winograd's transforms F(4×4, 3×3): the greatest row sums of |Aᵀ|, |G| and |Bᵀ| are 19, 1 and 10 on each axis.
    fn slack(&self, op: &Op, direction: Direction) -> f64 {
        let Op::Conv(conv) = op else { return 1.0 };
        let plain = self.convolution == Convolution::Exact && direction == Direction::Forward;
        let transformed = conv.window.kernel == [3, 3]
            && conv.window.stride == [1, 1]
            && conv.window.dilation == [1, 1]
            && conv.groups == 1
            && conv.weight.dims()[0].min(conv.weight.dims()[1]) >= 16;
        let vectors = matches!(self.kernels, Kernels::Avx2 | Kernels::Avx512);
        if transformed && vectors && !plain { (19.0 * 10.0f64).powi(2) } else { 1.0 }
    }

    fn unit_roundoff(&self) -> f64 {
        match self.precision {
            Precision::F32 => 2f64.powi(-24),
            Precision::F64 => 2f64.powi(-53),
        }
    }

    fn outputs(&self, graph: &Arc<Graph>, x: &Dense, nodes: &[NodeId]) -> Vec<Dense> {
        let x = Batch::new(&self.tensor(x)).unwrap();
        let outputs = self.engine.borrow_mut().node_outputs(graph, &x, nodes).unwrap();
        outputs.iter().map(Dense::from_tensor).collect()
    }

    fn pullback(
        &self,
        graph: &Arc<Graph>,
        x: &Dense,
        from: NodeId,
        seed: &Dense,
        rule: ReluRule,
        want: NodeId,
    ) -> Dense {
        let rules = match rule {
            ReluRule::Vjp => Composite::gradient(),
            ReluRule::Guided => Composite::guided(),
            ReluRule::Deconvnet => Composite::deconvnet(),
        };
        let x = Batch::new(&self.tensor(x)).unwrap();
        let down = self.engine.borrow_mut().pullback(
            graph,
            &x,
            &Pullback { from, signal: &self.tensor(seed), rules: &rules, to: want },
        );
        match down {
            Ok(down) => Dense::from_tensor(&down),
            // A node that does not influence another has a derivative of zero there.
            Err(e) if e.kind() == ErrorKind::Settings => Dense::zeros(x.len(), graph.node(want).shape),
            Err(e) => panic!("{e}"),
        }
    }
}

/// The kernels of a GPU, emulated on the CPU.
#[cfg(feature = "cuda")]
pub(crate) struct Emulated {
    pub(crate) engine: Engine32,
    pub(crate) products: Products,
    pub(crate) convolution: Convolution,
}

/// An engine in single precision.
#[cfg(feature = "cuda")]
pub(crate) type Engine32 = Cpu;

#[cfg(feature = "cuda")]
impl Emulated {
    pub(crate) fn new(products: Products, convolution: Convolution) -> Self {
        // As in `nets`: a real GPU, if one is named.
        let device = match std::env::var("VERILUME_TEST_DEVICE") {
            Ok(name) => name.parse().unwrap(),
            Err(_) => DeviceChoice::Emulated(1),
        };
        let settings = Settings { device, products, convolution, threads: Some(2), ..Settings::default() };
        let engine = RefCell::new(Engine::new(&settings).unwrap());
        let engine = Cpu { engine, precision: Precision::F32, kernels: Kernels::Auto, convolution };
        Self { engine, products, convolution }
    }
}

#[cfg(feature = "cuda")]
impl Subject for Emulated {
    fn name(&self) -> String {
        format!("emulated {:?} {:?}", self.products, self.convolution)
    }

    fn unit_roundoff(&self) -> f64 {
        2f64.powi(-24)
    }

    /// Half precision and bfloat16 have 11 and 8 significant bits, TF32 has 11: each factor is off by half a unit at most.
    /// Of two parts the last 22nd bits and the product of the smaller parts are lost: three times 2⁻²².
    fn product_error(&self, op: &Op, direction: Direction) -> f64 {
        if !matches!(op, Op::Conv(_) | Op::Linear(_)) {
            return 0.0;
        }
        match self.products {
            Products::F32 if direction == Direction::Forward || self.convolution == Convolution::Exact => {
                3.0 * 2f64.powi(-22)
            }
            Products::Bf16 => 2.0 * 2f64.powi(-8) + 2f64.powi(-16),
            // Numbers below 2⁻¹⁴ keep fewer bits in half precision; the cases have none that matter.
            _ => 2.0 * 2f64.powi(-11) + 2f64.powi(-22),
        }
    }

    fn outputs(&self, graph: &Arc<Graph>, x: &Dense, nodes: &[NodeId]) -> Vec<Dense> {
        self.engine.outputs(graph, x, nodes)
    }

    fn pullback(
        &self,
        graph: &Arc<Graph>,
        x: &Dense,
        from: NodeId,
        seed: &Dense,
        rule: ReluRule,
        want: NodeId,
    ) -> Dense {
        self.engine.pullback(graph, x, from, seed, rule, want)
    }
}

/// A subject that is wrong in one way: the comparison must notice.
pub(crate) struct Wrong(pub(crate) fn(&mut Dense));

impl Subject for Wrong {
    fn name(&self) -> String {
        "wrong on purpose".into()
    }

    fn unit_roundoff(&self) -> f64 {
        f64::from(f32::EPSILON) / 2.0
    }

    fn outputs(&self, graph: &Arc<Graph>, x: &Dense, nodes: &[NodeId]) -> Vec<Dense> {
        let mut outputs = Reference.outputs(graph, x, nodes);
        outputs.iter_mut().for_each(self.0);
        outputs
    }

    fn pullback(
        &self,
        graph: &Arc<Graph>,
        x: &Dense,
        from: NodeId,
        seed: &Dense,
        rule: ReluRule,
        want: NodeId,
    ) -> Dense {
        Reference.pullback(graph, x, from, seed, rule, want)
    }
}
