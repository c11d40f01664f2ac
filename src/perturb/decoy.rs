//! Decoys (Lu, Guo, Xing, Noble 2021): pictures whose patches differ as much as the outputs of a layer allow.
//!
//! A decoy of `x` at layer ℓ under a mask `M`, in direction `s = ±1`, maximises `‖((x̃−x)s)⁺‖₁` over `x̃ ∈ [x_min,
//! x_max]`, subject to `‖F_ℓ(x̃)−F_ℓ(x)‖∞ ≤ ε` and `(x̃−x)∘(1−M) = 0`. The paper leaves the solver open; this project's
//! own is `device::patch`. It changes the variable, minimises by Adam with a penalty whose weight grows where the
//! constraint is violated, and then bisects towards `x`, patch by patch, until the constraint holds.
//!
//! Patches whose footprints at ℓ do not overlap have independent constraints, so each is solved on its own, whatever
//! its mask. If ℓ is the first convolution or its activation, each patch is solved on its part of the layer alone;
//! otherwise on whole pictures, by a program with the layers up to ℓ.

use std::ops::Range;

use super::MOST_COPIES;
use super::footprint::Footprint;
use crate::device::patch::{Ascent, Moved, Mover, PatchMove, PatchTask, Stem};
use crate::engine::{Batch, Copies, Engine, Script, Task};
use crate::error::{Error, Result};
use crate::graph::{Activation, Graph, NodeId, Op};
use crate::program::{self, Builder, Decided};
use crate::random::Stream;
use crate::rule::{Composite, pull_back};
use crate::tensor::{Precision, Shape, Tensor};

/// Which patches move together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DecoyMasks {
    /// In one picture, all patches of a lattice whose footprints at the layer do not overlap. This project's own
    /// choice.
    Lattice,
    /// One patch per decoy: at all positions, or at this many random ones.
    Patch(Option<usize>),
}

/// How decoys are made.
#[derive(Debug, Clone, Copy)]
pub struct Recipe {
    /// The layer whose outputs must hardly change.
    pub node: NodeId,
    /// Height and width of a patch.
    pub patch: usize,
    /// Distance between neighbouring patches.
    pub stride: usize,
    /// Which patches move together.
    pub masks: DecoyMasks,
    /// Largest change of an output, as a share of the picture's largest output.
    pub epsilon: f64,
    /// Steps of Adam.
    pub iterations: usize,
    /// Its step size.
    pub lr: f64,
    /// Seed for the random positions.
    pub seed: u64,
}

/// One decoy.
#[derive(Debug, Clone)]
pub struct Decoy {
    /// `[C, H, W]`, in the engine's precision.
    pub picture: Tensor,
    /// Patches that moved.
    pub patches: usize,
    /// Patches that were moved back to satisfy the constraint.
    pub shrunk: usize,
    /// Mean move of a masked pixel, as a share of its range.
    pub moved: f64,
    /// Largest change of an output, as a share of the limit; 0 if the limit is zero and nothing changed.
    pub change: f64,
}

/// Makes the decoys of some pictures.
#[derive(Debug)]
pub struct Generator<'a> {
    graph: &'a Graph,
    x: &'a Batch,
    recipe: Recipe,
    /// Smallest and largest value of each channel.
    range: [Vec<f64>; 2],
    footprint: Footprint,
    /// The layer as the first one, if it is.
    stem: Option<Stem>,
    /// Largest allowed change of an output, one per picture.
    limits: Vec<f64>,
    /// First rows and first columns of patches.
    starts: [Vec<usize>; 2],
    /// Masks as lists of patches (row and column among `starts`): common to all pictures, or one list per picture.
    masks: Vec<Vec<Vec<[usize; 2]>>>,
}

/// Decoys whose patches are solved together: enough for all threads, with little memory for the patches.
const TOGETHER: usize = 2;

/// The first activation after the first convolution.
///
/// # Errors
/// When there is no such node.
pub fn first_activation(graph: &Graph) -> Result<NodeId> {
    let mut conv: Vec<bool> = Vec::new();
    for id in graph.ids() {
        let node = graph.node(id);
        let behind = node.inputs.iter().any(|i| conv[i.index()]);
        if behind && node.op.activation().is_some() {
            return Ok(id);
        }
        conv.push(behind || matches!(node.op, Op::Conv(_)));
    }
    Err(Error::settings(
        "no activation follows a convolution in this net; name the layer whose outputs decoys must keep",
    ))
}

/// First elements of patches along an axis: 0, stride, … until one patch reaches the far edge.
fn starts(extent: usize, patch: usize, stride: usize) -> Vec<usize> {
    let mut starts = vec![0];
    let mut at = 0usize;
    while at.saturating_add(patch) < extent && at.saturating_add(stride) < extent {
        at += stride;
        starts.push(at);
    }
    starts
}

impl<'a> Generator<'a> {
    /// A generator for pictures whose channels range from `low` to `high`.
    ///
    /// # Errors
    /// When a number of the recipe is out of range, the pictures have no known range, or a layer's output is not
    /// finite.
    pub fn new(
        engine: &mut Engine,
        graph: &'a Graph,
        x: &'a Batch,
        range: [Vec<f64>; 2],
        recipe: Recipe,
    ) -> Result<Self> {
        let Recipe { node, patch, stride, epsilon, lr, .. } = recipe;
        let shape = x.shape();
        if graph.input_shape() != shape {
            return Err(Error::input(format!("the net was made for pictures of {}, not {shape}", graph.input_shape())));
        }
        if range.iter().any(|r| r.len() != shape.c) || range[0].iter().zip(&range[1]).any(|(l, h)| !(l < h)) {
            return Err(Error::settings(format!("decoys need the pixels' range in each of {} channels", shape.c)));
        }
        if patch == 0 || stride == 0 || patch > 1 << 20 || stride > 1 << 20 {
            return Err(Error::settings(format!("patch={patch}, stride={stride}: both are 1 to 1048576 pixels")));
        }
        if !(epsilon >= 0.0 && epsilon.is_finite()) {
            return Err(Error::settings(format!("epsilon={epsilon} must be a share of the layer's largest output")));
        }
        if !(lr > 0.0 && lr.is_finite()) {
            return Err(Error::settings(format!("lr={lr} must be above 0")));
        }
        let footprint = Footprint::of(graph, node)?;
        let starts = [starts(shape.h, patch, stride), starts(shape.w, patch, stride)];
        let masks = match recipe.masks {
            DecoyMasks::Lattice => vec![lattice(&starts, (patch + footprint.extent().max(1) - 1).div_ceil(stride))],
            DecoyMasks::Patch(None) => vec![each(&starts)],
            DecoyMasks::Patch(Some(n)) => {
                x.keys().iter().map(|&key| drawn(&starts, n, recipe.seed, key)).collect::<Result<_>>()?
            }
        };
        if masks.iter().any(|m| m.len() > MOST_COPIES / 2) {
            return Err(Error::shape(format!("these patches make more than {MOST_COPIES} decoys")));
        }
        let stem = stem(graph, node)?.filter(|stem| stem.suits(patch));
        let largest = match &stem {
            Some(stem) => engine.largest_output(stem, x.items())?,
            None => x.items().iter().map(|item| largest(engine, graph, node, item)).collect::<Result<_>>()?,
        };
        let limits = largest.iter().map(|m| epsilon * m).collect();
        Ok(Self { graph, x, recipe, range, footprint, stem, limits, starts, masks })
    }

    /// Decoys per picture: two per mask.
    pub fn decoys(&self) -> usize {
        2 * self.masks.first().map_or(0, Vec::len)
    }

    /// Largest allowed change of an output, one number per picture.
    pub fn limits(&self) -> &[f64] {
        &self.limits
    }

    /// Rows and columns of the patches in a picture's decoy, and 1 or −1 for its direction.
    pub fn mask(&self, item: usize, decoy: usize) -> (Vec<[Range<usize>; 2]>, f64) {
        let masks = self.masks.get(item).unwrap_or(&self.masks[0]);
        let Shape { h, w, .. } = self.x.shape();
        let side = self.recipe.patch;
        let span = |axis: usize, i: usize, extent: usize| {
            let first = self.starts[axis][i];
            first..extent.min(first.saturating_add(side))
        };
        let patches = masks[decoy / 2].iter().map(|&[y, x]| [span(0, y, h), span(1, x, w)]).collect();
        (patches, if decoy.is_multiple_of(2) { 1.0 } else { -1.0 })
    }

    /// Makes some decoys, each given by its picture and its number for that picture. The results do not depend on which
    /// are made together.
    ///
    /// # Errors
    /// When memory is not enough or a number is not finite.
    pub fn make(&self, engine: &mut Engine, wanted: &[(usize, usize)]) -> Result<Vec<Decoy>> {
        let mut all = Vec::with_capacity(wanted.len());
        for some in wanted.chunks(TOGETHER) {
            all.extend(self.make_together(engine, some)?);
        }
        Ok(all)
    }

    /// Bytes of the moved patches of the decoys that are made together.
    pub fn patch_bytes(&self) -> usize {
        let most = self.masks.iter().flatten().map(Vec::len).max().unwrap_or(0);
        self.bytes_of(TOGETHER * most)
    }

    /// Bytes of patches: their places, twice, and their pixels.
    fn bytes_of(&self, patches: usize) -> usize {
        let pixels = self.x.shape().c * self.recipe.patch * self.recipe.patch * size_of::<f64>();
        patches.saturating_mul(2 * size_of::<PatchMove>() + size_of::<Moved>() + pixels)
    }

    fn make_together(&self, engine: &mut Engine, wanted: &[(usize, usize)]) -> Result<Vec<Decoy>> {
        let mut places = Vec::new();
        let mut counts = Vec::with_capacity(wanted.len());
        for (i, &(item, decoy)) in wanted.iter().enumerate() {
            let (patches, sign) = self.mask(item, decoy);
            counts.push(patches.len());
            places.extend(patches.into_iter().map(|[rows, columns]| PatchMove { item: i, rows, columns, sign }));
        }
        let patches = self.bytes_of(places.len());
        // One picture in double precision before and after.
        let picture = self.x.shape().len() * size_of::<f64>();
        let kept = patches.saturating_add(2 * picture);
        let ascent = Ascent { iterations: self.recipe.iterations, lr: self.recipe.lr };
        let limit = |&(item, _): &(usize, usize)| self.limits[item];
        let moved = engine.keeping(("decoy", kept), |engine| match &self.stem {
            Some(stem) => {
                // Patches do not influence each other, so those of all decoys of a picture are moved on one picture.
                let first = wanted.iter().map(|&(item, _)| item).min().unwrap_or_default();
                let last = wanted.iter().map(|&(item, _)| item).max().unwrap_or_default();
                let on_picture = |place: &PatchMove| PatchMove { item: wanted[place.item].0 - first, ..place.clone() };
                engine.move_patches(&PatchTask {
                    stem,
                    pictures: &self.x.items()[first..=last],
                    limits: &self.limits[first..=last],
                    low: &self.range[0],
                    high: &self.range[1],
                    places: &places.iter().map(on_picture).collect::<Vec<_>>(),
                    ascent,
                })
            }
            None => {
                let pictures: Vec<Tensor> = wanted.iter().map(|&(item, _)| self.x.items()[item].clone()).collect();
                let limits: Vec<f64> = wanted.iter().map(limit).collect();
                engine.keeping(("decoy", 3 * picture * wanted.len()), |engine| {
                    self.by_program(engine, &pictures, &limits, &places, ascent)
                })
            }
        })?;
        let precision = engine.describe().precision;
        let mut all = places.iter().zip(&moved);
        let decoys = wanted.iter().zip(&counts);
        decoys
            .map(|(wanted, &count)| {
                let picture = &self.x.items()[wanted.0];
                self.decoy(picture, all.by_ref().take(count), limit(wanted), precision)
            })
            .collect()
    }

    /// A picture with its patches moved.
    fn decoy<'m>(
        &self,
        picture: &Tensor,
        moved: impl Iterator<Item = (&'m PatchMove, &'m Moved)>,
        limit: f64,
        precision: Precision,
    ) -> Result<Decoy> {
        let mut numbers = picture.to_f64().into_owned();
        let [low, high] = &self.range;
        let (mut patches, mut shrunk, mut pixels, mut sum, mut change) = (0, 0, 0usize, 0.0, 0.0f64);
        for (place, moved) in moved {
            patches += 1;
            shrunk += usize::from(moved.shrunk);
            change = change.max(moved.change);
            for (at, &to) in places_of(place, self.x.shape()).zip(&moved.pixels) {
                let channel = at / self.x.shape().plane();
                sum += (to - numbers[at]).abs() / (high[channel] - low[channel]);
                pixels += 1;
                numbers[at] = to;
            }
        }
        let change = if change == 0.0 { 0.0 } else { change / limit };
        let picture = Tensor::rounded(picture.dims(), numbers, precision)?;
        Ok(Decoy { picture, patches, shrunk, moved: sum / pixels.max(1) as f64, change })
    }

    /// A variant of a picture's decoy in which each patch moves at random, as far (in L2 norm) as in `decoy`; draws
    /// depend on (seed, picture, decoy, element).
    ///
    /// # Errors
    /// Never for decoys of this generator.
    pub fn random_moves(&self, item: usize, number: usize, decoy: &Decoy) -> Result<Tensor> {
        let picture = &self.x.items()[item];
        let (from, to) = (picture.to_f64(), decoy.picture.to_f64());
        let mut draws = vec![0f32; from.len()];
        Stream::Copies.normals(self.recipe.seed, self.x.draws()[item].key, number as u32, &mut draws);
        let mut numbers = from.to_vec();
        let plane = self.x.shape().plane();
        for [rows, columns] in self.mask(item, number).0 {
            let place = PatchMove { item, rows, columns, sign: 1.0 };
            let norm =
                |f: &dyn Fn(usize) -> f64| places_of(&place, self.x.shape()).map(|i| f(i) * f(i)).sum::<f64>().sqrt();
            let size = norm(&|i| to[i] - from[i]) / norm(&|i| f64::from(draws[i])).max(f64::MIN_POSITIVE);
            for i in places_of(&place, self.x.shape()) {
                let [low, high] = [self.range[0][i / plane].min(from[i]), self.range[1][i / plane].max(from[i])];
                numbers[i] = (from[i] + size * f64::from(draws[i])).clamp(low, high);
            }
        }
        Tensor::rounded(picture.dims(), numbers, decoy.picture.precision())
    }

    /// A picture with a mask's patches set to its mean colour.
    ///
    /// # Errors
    /// Never for pictures of this generator.
    pub fn constant(&self, item: usize, decoy: usize, precision: Precision) -> Result<Tensor> {
        let picture = &self.x.items()[item];
        let mut numbers = picture.to_f64().into_owned();
        let plane = self.x.shape().plane();
        let means: Vec<f64> = numbers.chunks_exact(plane).map(|c| c.iter().sum::<f64>() / plane as f64).collect();
        for [rows, columns] in self.mask(item, decoy).0 {
            let place = PatchMove { item, rows, columns, sign: 1.0 };
            places_of(&place, self.x.shape()).for_each(|i| numbers[i] = means[i / plane]);
        }
        Tensor::rounded(picture.dims(), numbers, precision)
    }

    /// Moves patches by programs over whole pictures.
    fn by_program(
        &self,
        engine: &mut Engine,
        pictures: &[Tensor],
        limits: &[f64],
        places: &[PatchMove],
        ascent: Ascent,
    ) -> Result<Vec<Moved>> {
        let shape = self.x.shape();
        let field = PatchMoves {
            graph: self.graph,
            node: self.recipe.node,
            x: &Batch::of(pictures.to_vec())?,
            positions: &places.iter().map(|p| self.positions(p)).collect::<Vec<_>>(),
            places,
        };
        let numbers: Vec<Vec<f64>> = pictures.iter().map(|p| p.to_f64().into_owned()).collect();
        let elements: Vec<Vec<usize>> = places.iter().map(|p| places_of(p, shape).collect()).collect();
        let before = |p: usize, i: usize| numbers[places[p].item][elements[p][i]];
        let bounds = |p: usize, ends: &[f64]| elements[p].iter().map(|i| ends[i / shape.plane()]).collect::<Vec<_>>();
        let mut movers: Vec<Mover> = (0..places.len())
            .map(|p| {
                let start: Vec<f64> = (0..elements[p].len()).map(|i| before(p, i)).collect();
                Mover::new(&start, &bounds(p, &self.range[0]), &bounds(p, &self.range[1]), places[p].sign, ascent.lr)
            })
            .collect();
        let precision = engine.describe().precision;
        // The pictures with each patch moved by a share of its move.
        let moved = |movers: &[Mover], shares: &[f64]| -> Result<Vec<Tensor>> {
            let mut all = numbers.clone();
            for (p, mover) in movers.iter().enumerate() {
                for (&at, &delta) in elements[p].iter().zip(&mover.delta) {
                    let channel = at / shape.plane();
                    let x = all[places[p].item][at];
                    let [low, high] = [self.range[0][channel].min(x), self.range[1][channel].max(x)];
                    all[places[p].item][at] = (x + shares[p] * delta).clamp(low, high);
                }
            }
            all.into_iter().map(|n| Tensor::rounded(shape.dims(), n, precision)).collect()
        };
        let ones = vec![1.0; places.len()];
        for _ in 0..ascent.iterations {
            let (violated, gradients) = field.pull(engine, moved(&movers, &ones)?, limits)?;
            for (p, mover) in movers.iter_mut().enumerate() {
                let all = &gradients[places[p].item];
                let gradient: Vec<f64> = elements[p].iter().map(|&at| all.at(at)).collect();
                mover.step(&gradient, violated[p]);
            }
        }
        let limits_used: Vec<f64> = limits.iter().map(|l| l * USED).collect();
        let mut shares = ones.clone();
        let (mut good, mut bad) = (vec![0.0; places.len()], ones);
        let mut violated = field.violated(engine, moved(&movers, &shares)?, &limits_used)?;
        let shrunk = violated.clone();
        if shrunk.contains(&true) {
            for _ in 0..HALVINGS {
                for p in 0..places.len() {
                    shares[p] = if shrunk[p] { 0.5 * (good[p] + bad[p]) } else { 1.0 };
                }
                violated = field.violated(engine, moved(&movers, &shares)?, &limits_used)?;
                for p in (0..places.len()).filter(|&p| shrunk[p]) {
                    if violated[p] { bad[p] = shares[p] } else { good[p] = shares[p] }
                }
            }
            (0..places.len()).filter(|&p| shrunk[p]).for_each(|p| shares[p] = good[p]);
        }
        // A patch that still violates its limit stays where it was.
        let mut changes = field.changes(engine, &moved(&movers, &shares)?)?;
        for p in 0..places.len() {
            if !(changes[p] <= limits[places[p].item]) {
                (shares[p], changes[p]) = (0.0, 0.0);
            }
        }
        let pictures = moved(&movers, &shares)?;
        let pixels = |p: usize| elements[p].iter().map(|&at| pictures[places[p].item].at(at)).collect();
        Ok((0..places.len())
            .map(|p| Moved { pixels: pixels(p), shrunk: shares[p] < 1.0, change: changes[p] })
            .collect())
    }

    /// Rows and columns of the layer's outputs that depend on a patch.
    fn positions(&self, place: &PatchMove) -> [Vec<usize>; 2] {
        [
            self.footprint.positions(0, place.rows.start, place.rows.end),
            self.footprint.positions(1, place.columns.start, place.columns.end),
        ]
    }
}

/// Share of the limit that a move may use; the rest is for rounding.
const USED: f64 = 1.0 - 1e-4;
/// Halvings of the bisection.
const HALVINGS: usize = 24;

/// Patches moved by programs over whole pictures.
struct PatchMoves<'a> {
    graph: &'a Graph,
    node: NodeId,
    x: &'a Batch,
    places: &'a [PatchMove],
    /// For each patch, the rows and columns of the layer that depend on it.
    positions: &'a [[Vec<usize>; 2]],
}

impl PatchMoves<'_> {
    /// Whether each patch exceeds its limit, and the derivative of `‖(|F(x̃)−F(x)|−ε)⁺‖₁` on each picture.
    fn pull(&self, engine: &mut Engine, moved: Vec<Tensor>, limits: &[f64]) -> Result<(Vec<bool>, Vec<Tensor>)> {
        let mut stores = self.run(engine, moved, limits, Pull::Back)?.into_iter();
        let (counts, gradients) = (stores.next().unwrap_or_default(), stores.next().unwrap_or_default());
        Ok((self.beyond(&counts), gradients))
    }

    /// Whether each patch exceeds its limit.
    fn violated(&self, engine: &mut Engine, moved: Vec<Tensor>, limits: &[f64]) -> Result<Vec<bool>> {
        let counts = self.run(engine, moved, limits, Pull::Nothing)?.into_iter().next().unwrap_or_default();
        Ok(self.beyond(&counts))
    }

    /// The same, from the number of outputs beyond their limit at each position.
    fn beyond(&self, counts: &[Tensor]) -> Vec<bool> {
        let w = self.graph.node(self.node).shape.w;
        let beyond = |(place, [rows, columns]): (&PatchMove, &[Vec<usize>; 2])| {
            rows.iter().any(|y| columns.iter().any(|x| counts[place.item].at(y * w + x) != 0.0))
        };
        self.places.iter().zip(self.positions).map(beyond).collect()
    }

    fn run(&self, engine: &mut Engine, moved: Vec<Tensor>, limits: &[f64], pull: Pull) -> Result<Vec<Vec<Tensor>>> {
        let shape = self.graph.node(self.node).shape;
        // The cap on the factor avoids overflow where no change is allowed.
        let scale = |l: &f64| Tensor::f64([shape.c], vec![if *l > 1e-30 { 1.0 / l } else { 1e30 }; shape.c]);
        let loads = [moved, limits.iter().map(scale).collect::<Result<_>>()?];
        let targets = vec![0; self.x.len()];
        let task = Task { x: self.x, targets: &targets, copies: &Copies::one(), loads: &loads };
        Ok(engine.evaluate(self.graph, &Beyond { node: self.node, pull }, &task)?.stores)
    }

    /// Largest change of an output for each patch, in the engine's precision.
    fn changes(&self, engine: &mut Engine, moved: &[Tensor]) -> Result<Vec<f64>> {
        let Shape { c, w, .. } = self.graph.node(self.node).shape;
        let plane = self.graph.node(self.node).shape.plane();
        let mut changes = vec![0.0f64; self.places.len()];
        for (i, (moved, still)) in moved.iter().zip(self.x.items()).enumerate() {
            let pair = Batch::of(vec![still.clone(), moved.clone()])?;
            let outputs = engine.node_outputs(self.graph, &pair, &[self.node])?;
            let all = outputs.first().map(Tensor::to_f64).unwrap_or_default();
            let (before, after) = all.split_at(all.len() / 2);
            for (p, [rows, columns]) in self.positions.iter().enumerate().filter(|(p, _)| self.places[*p].item == i) {
                let at = (0..c)
                    .flat_map(|k| rows.iter().flat_map(move |y| columns.iter().map(move |x| k * plane + y * w + x)));
                changes[p] = at.fold(0.0, |most, at| {
                    let change = (after[at] - before[at]).abs();
                    if change <= most { most } else { change }
                });
            }
        }
        Ok(changes)
    }
}

/// What a program does besides counting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Pull {
    Nothing,
    Back,
}

/// Loads the moved picture and 1/ε; stores the number of outputs beyond ε at each position, and the signal pulled back.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Beyond {
    node: NodeId,
    pull: Pull,
}

impl Script for Beyond {
    type Notes = ();

    fn write(&self, b: &mut Builder<'_>) -> Result<()> {
        let graph = b.graph();
        let shape = graph.node(self.node).shape;
        let before = b.output(self.node);
        let moved = b.load(0, graph.input_shape())?;
        b.replace(graph.input(), moved)?;
        // Consumers of the input read the moved picture, and so does a request for the input itself.
        let after = b.output(self.node);
        let change = b.sub(after, before)?;
        let scale = b.load(1, Shape::vector(shape.c))?;
        let change = b.scale_channels(scale, change)?;
        let ones = b.fill(shape, vec![1.0; shape.c])?;
        let above = b.inside(change, program::Range { lo: 1.0, hi: f64::INFINITY })?;
        let below = b.inside(change, program::Range { lo: f64::NEG_INFINITY, hi: -1.0 })?;
        let (up, down) = (b.gate(ones, above)?, b.gate(ones, below)?);
        let either = b.add(up, down)?;
        let one = b.fill(Shape::vector(shape.c), vec![1.0; shape.c])?;
        let count = b.weighted_channel_sum(one, either)?;
        b.store(count, 0)?;
        if self.pull == Pull::Back {
            let signal = b.sub(up, down)?;
            let gradient = pull_back(b, &Composite::gradient(), self.node, signal, graph.input())?;
            b.store(gradient, 1)?;
        }
        Ok(())
    }
}

/// Elements `[c, y, x]` of a place in the picture's C order.
fn places_of(place: &PatchMove, shape: Shape) -> impl Iterator<Item = usize> + use<> {
    let PatchMove { rows, columns, .. } = place.clone();
    (0..shape.c).flat_map(move |c| {
        let columns = columns.clone();
        rows.clone().flat_map(move |y| columns.clone().map(move |x| (c * shape.h + y) * shape.w + x))
    })
}

/// One mask per colour of a lattice; patches of a mask are `period` patches apart.
fn lattice([rows, columns]: &[Vec<usize>; 2], period: usize) -> Vec<Vec<[usize; 2]>> {
    let colours = |n: usize| 0..period.min(n);
    let every = move |n: usize, first: usize| (first..n).step_by(period);
    let (h, w) = (rows.len(), columns.len());
    let mask = |a: usize, b: usize| every(h, a).flat_map(|y| every(w, b).map(move |x| [y, x])).collect();
    colours(h).flat_map(|a| colours(w).map(move |b| (a, b))).map(|(a, b)| mask(a, b)).collect()
}

/// One mask per patch.
fn each([rows, columns]: &[Vec<usize>; 2]) -> Vec<Vec<[usize; 2]>> {
    (0..rows.len()).flat_map(|y| (0..columns.len()).map(move |x| vec![[y, x]])).collect()
}

/// `n` of them, drawn by (seed, picture), in order.
fn drawn(starts: &[Vec<usize>; 2], n: usize, seed: u64, key: u64) -> Result<Vec<Vec<[usize; 2]>>> {
    let all = each(starts);
    match n {
        0 => return Err(Error::settings("n=0 patches; at least 1")),
        n if n > all.len() => return Err(Error::shape(format!("n={n} patches of {}; at least 1", all.len()))),
        _ => {}
    }
    let mut draws = vec![0f32; all.len()];
    Stream::DecoyPlaces.uniforms(seed, key, 0, &mut draws);
    let mut order: Vec<usize> = (0..all.len()).collect();
    order.sort_by(|&a, &b| draws[a].total_cmp(&draws[b]));
    order.truncate(n);
    order.sort_unstable();
    Ok(order.into_iter().map(|i| all[i].clone()).collect())
}

/// The layer `node` as a convolution of the picture and a clamp, if it is one.
fn stem(graph: &Graph, node: NodeId) -> Result<Option<Stem>> {
    let here = graph.node(node);
    let (conv, clamp) = match (here.op.activation(), here.inputs.first()) {
        (Some(Activation::Clamp { lo, hi }), Some(&conv)) => (conv, Some(program::Range { lo, hi })),
        _ => (node, None),
    };
    let first = graph.node(conv);
    if !matches!(first.op, Op::Conv(_)) || first.inputs != [graph.input()] {
        return Ok(None);
    }
    let layer = Builder::new(graph, Decided::Here)?.conv_layer(conv)?;
    // The patch solver supports only one bias per channel.
    if layer.bias.as_ref().is_some_and(|b| b.len() != layer.output.c) {
        return Ok(None);
    }
    Ok(Some(Stem { layer, clamp }))
}

/// Largest magnitude of a layer's outputs.
fn largest(engine: &mut Engine, graph: &Graph, node: NodeId, picture: &Tensor) -> Result<f64> {
    let outputs = engine.node_outputs(graph, &Batch::of(vec![picture.clone()])?, &[node])?;
    Ok(outputs.iter().flat_map(|o| o.to_f64().into_owned()).fold(0.0, |m, v| m.max(v.abs())))
}
