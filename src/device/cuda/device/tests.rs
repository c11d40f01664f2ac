//! A device that runs out of memory.

use std::sync::Arc;

use super::super::arguments::Packed;
use super::super::emulated::Emulated;
use super::super::runtime::Machine;
use super::super::source::{Sources, TranslationUnit};
use super::*;
use crate::device::cpu::Convolution;
use crate::device::{Perturbation, Products, ProgramRoom, Slot, Sum};
use crate::error::ErrorKind;
use crate::graph::{Conv, Graph, GraphBuilder, Linear, Op};
use crate::program::{Builder, Decided, Score, Statistic};
use crate::rule::{Composite, pull_back};
use crate::tensor::{Shape, Window};

/// Does not say what it has.
struct Silent(Emulated);

impl Runtime for Silent {
    fn machine(&self) -> Machine {
        Machine { free_bytes: None, ..self.0.machine() }
    }
    fn allocate(&mut self, bytes: usize) -> Result<Address, Refusal> {
        self.0.allocate(bytes)
    }
    fn free(&mut self, at: Address) {
        self.0.free(at);
    }
    fn upload(&mut self, to: Address, bytes: &[u8]) -> Result<()> {
        self.0.upload(to, bytes)
    }
    fn download(&mut self, from: Address, bytes: &mut [u8]) -> Result<()> {
        self.0.download(from, bytes)
    }
    fn launch(
        &mut self,
        unit: &'static TranslationUnit,
        kernel: &'static str,
        launch: Launch,
        with: Packed<'_>,
    ) -> Result<()> {
        self.0.launch(unit, kernel, launch, with)
    }
    fn wait(&mut self) -> Result<()> {
        self.0.wait()
    }
    fn mark(&mut self) -> Result<()> {
        self.0.mark()
    }
    fn elapsed(&mut self) -> Result<Vec<Duration>> {
        self.0.elapsed()
    }
}

const COPIES: usize = 12;

fn net() -> Graph {
    let numbers = |n: usize| (0..n).map(|i| ((i * 31 % 17) as f32 - 8.0) / 16.0).collect::<Vec<f32>>();
    let mut b = GraphBuilder::new(Shape::new(2, 9, 7));
    let weight = Weight::owned([5, 2, 3, 3], &numbers(90)).unwrap();
    let bias = Some(Arc::from([0.1, -0.2, 0.3, 0.0, -0.4]));
    let conv = Op::Conv(Conv { weight, bias, window: Window::square(3, 1, 1), groups: 1 });
    let mut at = b.push("conv", conv, &[b.input()]).unwrap();
    at = b.push("relu", Op::Relu, &[at]).unwrap();
    at = b.push("pool", Op::AdaptiveAvgPool { out: [1, 1] }, &[at]).unwrap();
    at = b.push("flatten", Op::Flatten, &[at]).unwrap();
    let weight = Weight::owned([3, 5, 1, 1], &numbers(15)).unwrap();
    at = b.push("fc", Op::Linear(Linear { weight, bias: None }), &[at]).unwrap();
    b.finish(at).unwrap()
}

/// What copies come to on a device with so many bytes, how many it takes at a time, and the most bytes that it held.
fn smooth(graph: &Graph, bytes: usize) -> Result<(Vec<f64>, usize, u64)> {
    let runtime = Silent(Emulated::new(Sources::default(), 1, 1).unwrap().with_limit(bytes));
    let kernels = ProductKernels::new(Products::F32, Convolution::Exact);
    let mut device = CudaDevice::new(Box::new(runtime), kernels, 1).unwrap();
    let plan = plan(graph, &device);
    let picture = Tensor::f32([2, 9, 7], (0..126).map(|i| (i * 37 % 41) as f32 / 20.0 - 1.0).collect()).unwrap();
    let noise = Perturbation::Noise { seed: 3, first: 0, images: vec![9], sigmas: vec![0.5] };
    let room = device.fit(&plan, COPIES, ProgramRoom::default())?;
    let mut harvest = Harvest { sums: vec![Sum::new(Statistic::Sum, 126)], ..Harvest::default() };
    let all: Vec<Slot> = (0..COPIES).map(|copy| Slot { item: 0, copy, target: 1, weight: 0.25 }).collect();
    for slots in all.chunks(room) {
        let pictures = std::slice::from_ref(&picture);
        let chunk = Chunk { slots, pictures, perturbation: &noise, loads: &[], decisions: &[] };
        device.run(&plan, &chunk, &mut harvest)?;
    }
    Ok((harvest.sums.remove(0).first, room, device.peak_bytes()))
}

fn plan(graph: &Graph, device: &CudaDevice) -> Plan {
    let mut b = Builder::new(graph, Decided::Here).unwrap();
    let seed = b.seed(Score::Logit);
    let signal = pull_back(&mut b, &Composite::gradient(), graph.output(), seed, graph.input()).unwrap();
    b.aggregate(signal, Statistic::Sum).unwrap();
    Plan::new(b.finish(), |form| device.bytes_of(form))
}

#[needs::cxx]
#[test]
fn fewer_copies_at_a_time_where_memory_runs_out() {
    let graph = net();
    let (want, room, peak) = smooth(&graph, 1 << 30).unwrap();
    assert_eq!(room, COPIES);
    assert!(want.iter().any(|&v| v != 0.0));
    let mut rooms = Vec::new();
    for percent in [100, 90, 60, 40, 25] {
        let (map, room, held) = smooth(&graph, peak as usize * percent / 100).unwrap();
        assert!(map == want, "{percent} percent of the memory, {room} copies at a time");
        assert!(held <= peak * percent as u64 / 100);
        rooms.push(room);
    }
    assert!(rooms[0] == COPIES && rooms.is_sorted_by(|a, b| a >= b) && rooms[4] <= 3, "{rooms:?}");
    let error = smooth(&graph, peak as usize / COPIES / 2).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Limit, "{error}");
    assert!(error.to_string().contains("too little memory") || error.to_string().contains("no room"), "{error}");
}
