//! Metrics of maps, each against a plain recomputation of its definition in double precision.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::needless_range_loop, reason = "one number counts pictures in several lists")]

mod nets;

use std::collections::BTreeMap;

use nets::{Net, build};
use verilume::engine::{Batch, Engine, Settings};
use verilume::graph::{self, Graph, GraphBuilder, Op, Weight};
use verilume::image::{Interpolation, Preprocess};
use verilume::map::{Map, Sign, Space, channel_max_abs, channel_sum, paper_scale};
use verilume::method::Method;
use verilume::program::{Score, softmax};
use verilume::random;
use verilume::reliability::imputation::impute;
use verilume::reliability::metric::{Bounds, Case, MetricSpec, Needs, Readings, Region, registry};
use verilume::reliability::pixel_flipping::element_order;
use verilume::reliability::removal::{RemovalOrder, Way, area, curves};
use verilume::reliability::stability::{Comparison, Explained, Scale, compare, stability};
use verilume::reliability::{pixel_flipping, similarity};
use verilume::tensor::{Precision, Shape, Tensor};
use verilume::{ErrorKind, Result};

const SEED: u64 = 5;

fn twin() -> Engine {
    Engine::new(&Settings { precision: Precision::F64, threads: Some(2), ..Settings::default() }).unwrap()
}

/// A net with a method, its maps, and something to be seen.
struct Bench {
    net: Net,
    method: Box<dyn Method>,
    maps: Vec<Map>,
    regions: Vec<Vec<Region>>,
}

impl Bench {
    fn new(name: &str, method: &str, engine: &mut Engine) -> Self {
        let mut net = Net::small(name);
        // The metrics are tested on what double precision makes of single-precision pictures.
        net.x = Batch::of(net.x.items().to_vec()).unwrap();
        let method = build(method, Score::Logit, 3, &net.preprocess).unwrap();
        let maps = method.explain(engine, &net.graph, &net.x, &net.targets).unwrap();
        let shape = net.x.shape();
        let classes = net.graph.classes();
        let regions = net.targets.iter().map(|&t| {
            let cell = |k: usize, class: usize| Region {
                class,
                bounds: Bounds {
                    top: k / 2 * (shape.h / 2),
                    left: k % 2 * (shape.w / 2),
                    height: shape.h / 2,
                    width: shape.w / 2,
                },
            };
            (0..4).map(|k| cell(k, (t + k) % classes)).collect()
        });
        let regions = regions.collect();
        Self { net, method, maps, regions }
    }

    fn case<'a>(&'a self, maps: &'a [Map]) -> Case<'a> {
        Case {
            graph: &self.net.graph,
            preprocess: &self.net.preprocess,
            x: &self.net.x,
            targets: &self.net.targets,
            labels: Some(&self.net.targets),
            regions: Some(&self.regions),
            method: &*self.method,
            maps,
            seed: SEED,
        }
    }

    fn measure(&self, engine: &mut Engine, spec: &str) -> Result<Vec<Readings>> {
        self.measure_maps(engine, spec, &self.maps)
    }

    fn measure_maps(&self, engine: &mut Engine, spec: &str, maps: &[Map]) -> Result<Vec<Readings>> {
        MetricSpec::parse(spec).unwrap().build().unwrap().measure(engine, &self.case(maps))
    }

    /// The same maps with other numbers: `number` of picture and position.
    fn painted(&self, number: impl Fn(usize, usize) -> f64) -> Vec<Map> {
        let shape = self.net.x.shape();
        let paint = |(i, map): (usize, &Map)| Map {
            values: Tensor::f64([shape.h, shape.w], (0..shape.plane()).map(|p| number(i, p)).collect()).unwrap(),
            ..map.clone()
        };
        self.maps.iter().enumerate().map(paint).collect()
    }
}

fn made_up(dims: &[usize], values: Vec<f64>) -> Map {
    Map::new(Tensor::f64(dims, values).unwrap(), Sign::Signed, Space::Input, 0, "made_up")
}

/// A class's logit or probability on one picture given as numbers.
fn score(engine: &mut Engine, graph: &Graph, values: &[f64], target: usize, score: Score) -> f64 {
    let x = Tensor::f64(graph.input_shape().dims(), values.to_vec()).unwrap();
    let logits = engine.forward(graph, &Batch::of(vec![x]).unwrap()).unwrap().to_f64().into_owned();
    match score {
        Score::Logit => logits[target],
        _ => softmax(&logits)[target],
    }
}

/// Positions of a plane, the largest number first.
fn sorted(plane: &[f64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..plane.len()).collect();
    order.sort_by(|&a, &b| plane[b].partial_cmp(&plane[a]).unwrap());
    order
}

fn close(is: f64, want: f64, tolerance: f64, what: &str) {
    let difference = (is - want).abs();
    if !(difference <= tolerance * want.abs().max(1.0)) {
        panic!("{what}: {is} instead of {want}");
    }
}

/// `from` with the pixels of `order[..n]` taken from `to`.
fn mixed(from: &[f64], to: &[f64], order: &[usize], n: usize) -> Vec<f64> {
    let plane = order.len();
    let mut out = from.to_vec();
    for &p in &order[..n] {
        for at in (p..from.len()).step_by(plane) {
            out[at] = to[at];
        }
    }
    out
}

#[test]
fn deletion_and_insertion_follow_their_definition() {
    let mut engine = twin();
    let bench = Bench::new("vgg", "gradient", &mut engine);
    let graph = bench.net.graph.clone();
    let deletion = bench.measure(&mut engine, "deletion:step=100").unwrap();
    let insertion =
        bench.measure(&mut engine, "insertion:step=100,baseline=value:-0.5,reduce=channel_max_abs").unwrap();
    for i in 0..bench.net.x.len() {
        let (x, target) = (bench.net.x.items()[i].to_f64().into_owned(), bench.net.targets[i]);
        let mut walk = |from: &[f64], to: &[f64], order: &[usize]| {
            let total = order.len();
            let mut heights = Vec::new();
            let mut n = 0;
            loop {
                heights.push(score(&mut engine, &graph, &mixed(from, to, order, n), target, Score::Prob));
                if n == total {
                    break;
                }
                n = total.min(n + 100);
            }
            let trapezoids: f64 = heights.windows(2).map(|p| (p[0] + p[1]) / 2.0).sum();
            trapezoids / (heights.len() - 1) as f64
        };
        let by_sum = sorted(&channel_sum(&bench.maps[i].values).unwrap().to_f64());
        let by_max = sorted(&channel_max_abs(&bench.maps[i].values).unwrap().to_f64());
        close(deletion[i][0].unwrap(), walk(&x, &vec![0.0; x.len()], &by_sum), 1e-12, "deletion");
        close(insertion[i][0].unwrap(), walk(&vec![-0.5; x.len()], &x, &by_max), 1e-12, "insertion");
        assert_ne!(by_sum, by_max);
    }
}

#[test]
fn curves_go_from_end_to_end() {
    let mut engine = twin();
    let bench = Bench::new("vgg", "gradient", &mut engine);
    let (from, to) = (&bench.net.x.items()[0], &bench.net.x.items()[1]);
    let order: Vec<u32> = (0..from.len() as u32).collect();
    let way = |step, order| Way { from, to, order, step, target: 2 };
    let ways = [
        way(1000, RemovalOrder::Elements(&order)),
        way(2000, RemovalOrder::Pixels(&order[..1024])),
        way(1, RemovalOrder::Pixels(&[])),
    ];
    let found = curves(&mut engine, &bench.net.graph, Score::Logit, &ways).unwrap();
    assert_eq!(found.iter().map(Vec::len).collect::<Vec<_>>(), [5, 2, 1]);
    let ends = [from, to].map(|t| score(&mut engine, &bench.net.graph, &t.to_f64(), 2, Score::Logit));
    for curve in &found[..2] {
        assert_eq!([curve[0], *curve.last().unwrap()], ends);
    }
    let mut half = from.to_f64().into_owned();
    half[..2000].copy_from_slice(&to.to_f64()[..2000]);
    assert_eq!(found[0][2], score(&mut engine, &bench.net.graph, &half, 2, Score::Logit));
    assert_eq!(area(&found[2]), ends[0]);
    for bad in
        [way(0, RemovalOrder::Pixels(&order[..4])), way(1, RemovalOrder::Pixels(&order)), Way { target: 10, ..ways[0] }]
    {
        assert!(curves(&mut engine, &bench.net.graph, Score::Prob, &[bad]).is_err());
    }
}

#[test]
fn fidelity_is_the_librarys() {
    let mut engine = twin();
    let bench = Bench::new("vgg", "gradient", &mut engine);
    let found = bench.measure(&mut engine, "fidelity").unwrap();
    for i in 0..bench.net.x.len() {
        let (x, target) = (bench.net.x.items()[i].to_f64().into_owned(), bench.net.targets[i]);
        let scaled = paper_scale(&bench.maps[i].values).unwrap().to_f64().into_owned();
        let mean = scaled.iter().sum::<f64>() / scaled.len() as f64;
        let mut log = |weight: &dyn Fn(usize) -> f64| {
            // Products are rounded to the picture's precision.
            let product: Vec<f64> = x.iter().enumerate().map(|(j, v)| f64::from((v * weight(j)) as f32)).collect();
            score(&mut engine, &bench.net.graph, &product, target, Score::Prob).ln()
        };
        let want = log(&|_| mean) - log(&|j| scaled[j % scaled.len()]);
        close(found[i][0].unwrap(), want, 1e-9, "fidelity");
    }
}

#[test]
fn stability_compares_with_any_moved_picture() {
    let mut engine = twin();
    let bench = Bench::new("vgg", "gradient", &mut engine);
    let moved: Vec<Tensor> = bench.net.x.items().iter().map(|x| x.clone().map(|v| v * 0.9 + 0.01)).collect();
    let moved = Batch::of(moved).unwrap();
    let Net { graph, x, targets, .. } = &bench.net;
    let explained = Explained { graph, method: &*bench.method, x, targets, maps: &bench.maps };
    let how = |scale| Comparison { scale, k: 0.1, reduction: verilume::map::Reduction::MaxAbs };
    let found = stability(&mut engine, &explained, &moved, &how(Scale::Raw)).unwrap();
    let after = bench.method.explain(&mut engine, graph, &moved, targets).unwrap();
    let norm = |a: &Tensor, b: &Tensor| {
        a.to_f64().iter().zip(b.to_f64().iter()).map(|(p, q)| (p - q).powi(2)).sum::<f64>().sqrt()
    };
    for i in 0..x.len() {
        let (before, after) = (&bench.maps[i].values, &after[i].values);
        let way = norm(&x.items()[i], &moved.items()[i]);
        close(found[i].ratio.unwrap(), norm(before, after) / way, 1e-12, "raw");
        let (a, b) = (channel_max_abs(before).unwrap(), channel_max_abs(after).unwrap());
        assert_eq!(found[i].top_k, similarity::top_k_intersection(&a, &b, 0.1).unwrap());
        assert_eq!(found[i].spearman, similarity::spearman(&a, &b).unwrap());
        assert!(found[i].mass_shift.unwrap() > 0.0);
    }
    let scaled = stability(&mut engine, &explained, &moved, &how(Scale::Paper)).unwrap();
    let want = norm(&paper_scale(&bench.maps[0].values).unwrap(), &paper_scale(&after[0].values).unwrap());
    close(scaled[0].ratio.unwrap(), want / norm(&x.items()[0], &moved.items()[0]), 1e-12, "scaled");
    // A picture that did not move has no ratio, but is alike.
    let still = stability(&mut engine, &explained, x, &how(Scale::Raw)).unwrap();
    assert_eq!((still[0].ratio, still[0].top_k, still[0].mass_shift), (None, 1.0, Some(0.0)));
    close(still[0].spearman.unwrap(), 1.0, 1e-12, "the same map");
    let other = made_up(&[2, 2], vec![0.0; 4]);
    assert!(compare([&bench.maps[0], &other], [&x.items()[0]; 2], &how(Scale::Raw)).is_err());
}

#[test]
fn stability_of_a_linear_change_is_known() {
    let mut engine = twin();
    let bench = Bench::new("vgg", "smoothgrad:n=2", &mut engine);
    let found = bench.measure(&mut engine, "stability:n=2,size=0.1,scale=raw").unwrap();
    let again = bench.measure(&mut engine, "stability:n=2,size=0.1,scale=raw").unwrap();
    assert_eq!(found, again);
    for readings in &found {
        assert!(readings.iter().all(|v| v.is_some_and(|v| v.is_finite() && v > 0.0)), "{readings:?}");
        assert!(readings[1].unwrap() <= 1.0);
    }
    let uniform = bench.measure(&mut engine, "stability:n=2,size=0.1,scale=raw,noise=uniform").unwrap();
    assert_ne!(found, uniform);
}

#[test]
fn localisation_on_painted_maps() {
    let mut engine = twin();
    let mut bench = Bench::new("vgg", "gradient", &mut engine);
    let (shape, targets) = (bench.net.x.shape(), bench.net.targets.clone());
    let bounds = |top, left, height, width| Bounds { top, left, height, width };
    bench.regions = vec![
        vec![Region { class: targets[0], bounds: bounds(4, 6, 8, 10) }],
        // Not the class that is explained.
        vec![Region { class: targets[1] + 1, bounds: bounds(0, 0, 9, 9) }],
    ];
    // 2 in rows 4..12 and columns 6..14, a larger number alone far away, less than nothing elsewhere.
    let maps = bench.painted(|_, p| match (p / shape.w, p % shape.w) {
        (4..12, 6..14) => 2.0,
        (30, 30) => 8.0,
        _ => -1.0,
    });
    let mut of = |spec: &str| bench.measure_maps(&mut engine, spec, &maps).unwrap();
    assert_eq!(of("pointing"), [[Some(0.0)], [None]]);
    assert_eq!(of("energy_in_box"), [[Some(128.0 / 136.0)], [None]]);
    assert_eq!(of("wsol"), [[Some(1.0), Some(64.0 / 80.0)], [None, None]]);
    assert_eq!(of("wsol:threshold=0.5"), [[Some(0.0), Some(0.0)], [None, None]]);
    // The far point lies 19 rows and 15 columns beside the box.
    assert_eq!(of("pointing:tolerance=24")[0], [Some(0.0)]);
    assert_eq!(of("pointing:tolerance=25")[0], [Some(1.0)]);
    // A constant map points everywhere.
    let flat = bench.painted(|_, _| 3.0);
    let mut of = |spec: &str| bench.measure_maps(&mut engine, spec, &flat).unwrap()[0].clone();
    let share = 80.0 / 1024.0;
    assert_eq!(of("pointing"), [Some(share)]);
    assert_eq!(of("energy_in_box"), [Some(share)]);
    assert_eq!(of("wsol"), [Some(0.0), Some(share)]);
    let negative = bench.painted(|_, p| -1.0 - p as f64);
    let mut of = |spec: &str| bench.measure_maps(&mut engine, spec, &negative).unwrap()[0].clone();
    assert_eq!(of("energy_in_box"), [None]);
    assert_eq!(of("wsol"), [Some(0.0), Some(0.0)]);
    assert_eq!(of("pointing"), [Some(0.0)]);
    assert_eq!(of("energy_in_box:reduce=channel_mean_abs").len(), 1);
}

#[test]
fn every_class_of_a_mosaic_is_explained() {
    let mut engine = twin();
    let mut bench = Bench::new("vgg", "input_x_gradient", &mut engine);
    let found = bench.measure(&mut engine, "grid_pointing").unwrap();
    let shape = bench.net.x.shape();
    for (i, readings) in found.iter().enumerate() {
        let picture = Batch::of(vec![bench.net.x.items()[i].clone()]).unwrap();
        let mut shares = Vec::new();
        for region in &bench.regions[i] {
            let map = bench.method.explain(&mut engine, &bench.net.graph, &picture, &[region.class]).unwrap();
            let plane = channel_sum(&map[0].values).unwrap();
            let (mut inside, mut all) = (0.0, 0.0);
            for (p, v) in plane.to_f64().iter().enumerate().filter(|(_, v)| **v > 0.0) {
                all += v;
                if region.bounds.contains(p / shape.w, p % shape.w) {
                    inside += v;
                }
            }
            shares.push(inside / all);
        }
        close(readings[0].unwrap(), shares.iter().sum::<f64>() / 4.0, 1e-12, "grid pointing");
    }
    bench.regions[0].truncate(1);
    assert!(bench.measure(&mut engine, "grid_pointing").unwrap_err().to_string().contains("not a mosaic"));
}

/// Draw `sample` of a metric for a picture: normal deviates, or uniform numbers between 0 and 1.
fn draws(metric: &str, picture: &Tensor, sample: u32, len: usize, normal: bool) -> Vec<f64> {
    let mix = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01B3);
    let seed = SEED ^ metric.bytes().fold(0xCBF2_9CE4_8422_2325, mix);
    let (key, mut out) = (random::image_key(picture), vec![0.0; len]);
    if normal {
        random::fill_normals(seed, key, sample, 0, &mut out);
    } else {
        random::fill_uniforms(seed, key, sample, 0, &mut out);
    }
    out.into_iter().map(f64::from).collect()
}

fn range(x: &[f64]) -> f64 {
    x.iter().copied().fold(f64::MIN, f64::max) - x.iter().copied().fold(f64::MAX, f64::min)
}

/// As pictures are stored.
fn single(values: Vec<f64>) -> Vec<f64> {
    values.into_iter().map(|v| f64::from(v as f32)).collect()
}

#[test]
fn pixel_flipping_is_quantus() {
    let mut engine = twin();
    let bench = Bench::new("vgg", "gradient", &mut engine);
    let graph = &bench.net.graph;
    let found = bench.measure(&mut engine, "pixel_flipping:features_in_step=700,baseline=value:-0.25").unwrap();
    for i in 0..bench.net.x.len() {
        let (mut x, target) = (bench.net.x.items()[i].to_f64().into_owned(), bench.net.targets[i]);
        let mut predictions = Vec::new();
        for step in sorted(&bench.maps[i].values.to_f64()).chunks(700) {
            step.iter().for_each(|&e| x[e] = -0.25);
            predictions.push(score(&mut engine, graph, &x, target, Score::Prob));
        }
        assert_eq!(predictions.len(), 5);
        let trapezoids: f64 = predictions.windows(2).map(|p| (p[0] + p[1]) / 2.0).sum();
        close(found[i][0].unwrap(), trapezoids / 4.0, 1e-12, "area");
        let baseline = bench.net.x.items()[i].clone().map(|_| -0.25);
        let curve = pixel_flipping(
            &mut engine,
            graph,
            [std::slice::from_ref(&bench.net.x.items()[i]), &[baseline]],
            &bench.maps[i..=i],
            700,
        );
        assert_eq!(curve.unwrap(), [predictions]);
    }
    // One number a pixel speaks for its channels; all are flipped after as many steps.
    let planes = bench.painted(|_, p| (p * 37 % 101) as f64);
    let order = element_order(&planes[0], bench.net.x.shape()).unwrap();
    let plane = sorted(&planes[0].values.to_f64());
    // Ties: a pixel's channels among those of the other pixels of its number, in C order.
    assert_eq!(order[..3], [plane[0], plane[1], plane[2]].map(|p| p as u32));
    let mut all = order.clone();
    all.sort_unstable();
    assert!(all.into_iter().eq(0..3 * 1024));
}

#[test]
fn road_removes_by_imputation() {
    let mut engine = twin();
    let bench = Bench::new("vgg_bn", "gradient", &mut engine);
    let shape = bench.net.x.shape();
    let found = bench.measure(&mut engine, "road:shares=20+60.5").unwrap();
    for i in 0..bench.net.x.len() {
        let (x, target) = (&bench.net.x.items()[i], bench.net.targets[i]);
        let order = sorted(&channel_sum(&bench.maps[i].values).unwrap().to_f64());
        let total = order.len();
        let mut probability = |pixels: &[usize], draw: u32| {
            let mut removed = vec![false; total];
            pixels.iter().for_each(|&p| removed[p] = true);
            let mut values = impute(&x.to_f64(), [shape.h, shape.w], &removed).unwrap();
            let noise = draws("road", x, draw, values.len(), true);
            for e in 0..values.len() {
                if removed[e % total] {
                    values[e] += 0.01 * noise[e];
                }
            }
            score(&mut engine, &bench.net.graph, &single(values), target, Score::Prob)
        };
        let counts = [0.2, 0.605].map(|s| (s * total as f64).round() as usize);
        let morf = (probability(&order[..counts[0]], 0) + probability(&order[..counts[1]], 1)) / 2.0;
        let lerf = (probability(&order[total - counts[0]..], 2) + probability(&order[total - counts[1]..], 3)) / 2.0;
        close(found[i][0].unwrap(), (lerf - morf) / 2.0, 1e-12, "road");
        close(found[i][1].unwrap(), morf, 1e-12, "morf");
        close(found[i][2].unwrap(), lerf, 1e-12, "lerf");
        assert_ne!(morf, lerf);
    }
    let quiet = bench.measure(&mut engine, "road:shares=20+60.5,noise=0").unwrap();
    assert_ne!(found, quiet);
}

#[test]
fn infidelity_follows_its_definition() {
    let mut engine = twin();
    let bench = Bench::new("vgg", "gradient", &mut engine);
    let found = bench.measure(&mut engine, "infidelity:n=9,sigma=0.2").unwrap();
    for i in 0..bench.net.x.len() {
        let (x, target) = (bench.net.x.items()[i].to_f64().into_owned(), bench.net.targets[i]);
        let map = bench.maps[i].values.to_f64().into_owned();
        let at_x = score(&mut engine, &bench.net.graph, &x, target, Score::Logit);
        let pairs: Vec<(f64, f64)> = (0..9)
            .map(|k| {
                let z = draws("infidelity", &bench.net.x.items()[i], k, x.len(), true);
                let size = 0.2 * range(&x);
                let moved = single(x.iter().zip(&z).map(|(v, z)| v + size * z).collect());
                let product = x.iter().zip(&moved).zip(&map).map(|((x, m), e)| (x - m) * e).sum();
                (product, at_x - score(&mut engine, &bench.net.graph, &moved, target, Score::Logit))
            })
            .collect();
        let miss = |factor: f64| pairs.iter().map(|(p, fall)| (factor * p - fall).powi(2)).sum::<f64>() / 9.0;
        close(found[i][0].unwrap(), miss(1.0), 1e-9, "infidelity");
        let best = found[i][1].unwrap();
        assert!(best <= miss(1.0));
        // Least over all factors: a parabola through three of them says where.
        let (a, b, c) = (miss(-1.0), miss(0.0), miss(1.0));
        let factor = (a - c) / (2.0 * (a - 2.0 * b + c));
        close(best, miss(factor), 1e-9, "scaled");
    }
    let of_planes = bench.measure_maps(&mut engine, "infidelity:n=3", &bench.painted(|_, p| p as f64)).unwrap();
    assert!(of_planes[0][0].unwrap() > of_planes[0][1].unwrap());
}

#[test]
fn sensitivity_n_follows_its_definition() {
    let mut engine = twin();
    let bench = Bench::new("vgg", "input_x_gradient", &mut engine);
    let found = bench.measure(&mut engine, "sensitivity_n:n=200,subsets=12,baseline=value:0.5,score=prob").unwrap();
    for i in 0..bench.net.x.len() {
        let (x, target) = (bench.net.x.items()[i].to_f64().into_owned(), bench.net.targets[i]);
        let map = bench.maps[i].values.to_f64().into_owned();
        let at_x = score(&mut engine, &bench.net.graph, &x, target, Score::Prob);
        let (mut sums, mut falls) = (Vec::new(), Vec::new());
        for k in 0..12 {
            let uniform = draws("sensitivity_n", &bench.net.x.items()[i], k, 1024, false);
            let mut positions: Vec<usize> = (0..1024).collect();
            positions.sort_by(|&a, &b| uniform[a].total_cmp(&uniform[b]));
            let mut moved = x.clone();
            let mut sum = 0.0;
            for &p in &positions[..200] {
                for e in [p, p + 1024, p + 2048] {
                    moved[e] = 0.5;
                    sum += map[e];
                }
            }
            sums.push(sum);
            falls.push(at_x - score(&mut engine, &bench.net.graph, &moved, target, Score::Prob));
        }
        let mean = |v: &[f64]| v.iter().sum::<f64>() / 12.0;
        let (ms, mf) = (mean(&sums), mean(&falls));
        let dot =
            |u: &[f64], mu: f64, v: &[f64], mv: f64| u.iter().zip(v).map(|(a, b)| (a - mu) * (b - mv)).sum::<f64>();
        let want = dot(&sums, ms, &falls, mf) / (dot(&sums, ms, &sums, ms) * dot(&falls, mf, &falls, mf)).sqrt();
        close(found[i][0].unwrap(), want, 1e-9, "sensitivity-n");
    }
    // Sets of all pixels are one set: nothing varies.
    assert_eq!(bench.measure(&mut engine, "sensitivity_n:n=100%,subsets=3").unwrap(), [[None], [None]]);
}

#[test]
fn max_sensitivity_follows_its_definition() {
    let mut engine = twin();
    let bench = Bench::new("vgg", "gradient", &mut engine);
    let found = bench.measure(&mut engine, "max_sensitivity:n=3,radius=0.1").unwrap();
    for i in 0..bench.net.x.len() {
        let x = &bench.net.x.items()[i];
        let norm = |v: &[f64]| v.iter().map(|v| v * v).sum::<f64>().sqrt();
        let map = bench.maps[i].values.to_f64();
        let moves = [0, 1, 2].map(|k| {
            let u = draws("max_sensitivity", x, k, x.len(), false);
            let size = 0.1 * range(&x.to_f64());
            // The step from 0..1 to -1..1 is made in single precision.
            let delta = |u: f64| size * f64::from(2.0 * u as f32 - 1.0);
            let moved = x.to_f64().iter().zip(&u).map(|(v, &u)| v + delta(u)).collect();
            let moved = Tensor::rounded(x.dims(), moved, Precision::F32).unwrap();
            let (graph, targets) = (&bench.net.graph, &bench.net.targets[i..=i]);
            let after = bench.method.explain(&mut engine, graph, &Batch::of(vec![moved]).unwrap(), targets).unwrap();
            let difference: Vec<f64> = after[0].values.to_f64().iter().zip(map.iter()).map(|(a, b)| a - b).collect();
            norm(&difference) / norm(&map)
        });
        close(found[i][0].unwrap(), moves.iter().copied().fold(0.0, f64::max), 1e-12, "largest");
        close(found[i][1].unwrap(), moves.iter().sum::<f64>() / 3.0, 1e-12, "mean");
        assert!(found[i][0] > found[i][1]);
    }
    let zero = bench.painted(|_, _| 0.0);
    assert!(bench.measure_maps(&mut engine, "max_sensitivity:n=1", &zero).is_err(), "another shape");
}

/// A net of one linear layer, on pictures of one size.
struct Linear {
    graph: Graph,
    x: Batch,
    preprocess: Preprocess,
}

impl Linear {
    fn new([c, h, w]: [usize; 3]) -> Self {
        let n = c * h * w;
        let mut b = GraphBuilder::new(Shape::new(c, h, w));
        let flat = b.push("flatten", Op::Flatten, &[b.input()]).unwrap();
        let weights: Vec<f32> = (0..2 * n).map(|i| ((i * 7 + 3) % 11) as f32 - 5.5).collect();
        let weight = Weight::owned([2, n, 1, 1], &weights).unwrap();
        let logits = b.push("fc", Op::Linear(graph::Linear { weight, bias: None }), &[flat]).unwrap();
        let values = (0..2 * n).map(|i| ((i * 5 + 2) % 13) as f32 / 6.0 - 1.0).collect();
        let preprocess = Preprocess {
            resize: 0,
            crop: [h, w],
            interpolation: Interpolation::Bilinear,
            mean: vec![0.5; c],
            std: vec![0.25; c],
            channels: c,
        };
        let x = Batch::new(&Tensor::f32([2, c, h, w], values).unwrap()).unwrap();
        Self { graph: b.finish(logits).unwrap(), x, preprocess }
    }

    fn measure(&self, engine: &mut Engine, method: &str, spec: &str, factor: f64) -> Result<Vec<Readings>> {
        let method = build(method, Score::Logit, 0, &self.preprocess).unwrap();
        let mut maps = method.explain(engine, &self.graph, &self.x, &[0, 1]).unwrap();
        for map in &mut maps {
            map.values = map.values.clone().map(|v| v * factor);
        }
        let everywhere = |class| {
            let shape = self.x.shape();
            Region { class, bounds: Bounds { top: 0, left: 0, height: shape.h, width: shape.w } }
        };
        let regions = [vec![everywhere(0), everywhere(1)], vec![everywhere(0), everywhere(1)]];
        let case = Case {
            graph: &self.graph,
            preprocess: &self.preprocess,
            x: &self.x,
            targets: &[0, 1],
            labels: Some(&[0, 1]),
            regions: Some(&regions),
            method: &*method,
            maps: &maps,
            seed: SEED,
        };
        MetricSpec::parse(spec).unwrap().build().unwrap().measure(engine, &case)
    }
}

#[test]
fn a_linear_net_is_explained_perfectly() {
    let mut engine = twin();
    let net = Linear::new([3, 5, 4]);
    for readings in net.measure(&mut engine, "gradient", "infidelity:n=5", 1.0).unwrap() {
        assert!(readings.iter().all(|v| v.unwrap().abs() < 1e-20), "{readings:?}");
    }
    for readings in net.measure(&mut engine, "gradient", "infidelity:n=5", -3.0).unwrap() {
        assert!(readings[0].unwrap() > 1.0 && readings[1].unwrap().abs() < 1e-20, "{readings:?}");
    }
    for (factor, want) in [(1.0, 1.0), (-2.0, -1.0)] {
        for readings in net.measure(&mut engine, "input_x_gradient", "sensitivity_n:n=4,subsets=9", factor).unwrap() {
            close(readings[0].unwrap(), want, 1e-12, "sensitivity-n");
        }
    }
    assert_eq!(net.measure(&mut engine, "gradient", "max_sensitivity:n=2", 1.0).unwrap(), [[Some(0.0); 2]; 2]);
    assert_eq!(net.measure(&mut engine, "gradient", "max_sensitivity:n=2", 0.0).unwrap(), [[None; 2]; 2]);
    assert_eq!(net.measure(&mut engine, "gradient", "sensitivity_n", 0.0).unwrap(), [[None]; 2]);
    let silent = net.measure(&mut engine, "gradient", "infidelity:n=3", 0.0).unwrap();
    assert_eq!(silent[0][0], silent[0][1]);
    assert_eq!(net.measure(&mut engine, "gradient", "sparseness", 0.0).unwrap(), [[None]; 2]);
    let stable = net.measure(&mut engine, "gradient", "stability:n=2,scale=raw", 1.0).unwrap();
    assert_eq!(stable[0][..2], [Some(0.0), Some(1.0)]);
}

/// Of one pixel every metric says something or says why not.
#[test]
fn one_pixel_is_enough_or_refused() {
    let mut engine = twin();
    let net = Linear::new([1, 1, 1]);
    for entry in registry() {
        match net.measure(&mut engine, "gradient", &briefly(entry.id), 1.0) {
            Ok(found) => {
                assert!(found.iter().flatten().flatten().all(|v| v.is_finite()), "{}: {found:?}", entry.id);
            }
            Err(e) => {
                let why = match entry.id {
                    "road" => "every pixel removed",
                    "attack_stability" => "positions",
                    _ => "nothing",
                };
                assert!(e.to_string().contains(why), "{}: {e}", entry.id);
            }
        }
    }
    let two = Linear::new([1, 1, 2]);
    assert!(two.measure(&mut engine, "gradient", "road", 1.0).is_ok());
}

#[test]
fn concentration_of_the_summed_channels() {
    let mut engine = twin();
    let bench = Bench::new("vgg", "gradient", &mut engine);
    let [sparseness, complexity] =
        ["sparseness", "complexity"].map(|spec| bench.measure(&mut engine, spec).unwrap()[1][0].unwrap());
    let mut sizes: Vec<f64> = channel_sum(&bench.maps[1].values).unwrap().to_f64().iter().map(|v| v.abs()).collect();
    sizes.sort_by(f64::total_cmp);
    let (d, total) = (sizes.len() as f64, sizes.iter().sum::<f64>());
    // As Chalasani et al. write it, k from 1.
    let lorenz: f64 = sizes.iter().zip(1..).map(|(v, k)| v / total * ((d - f64::from(k) + 0.5) / d)).sum();
    close(sparseness, 1.0 - 2.0 * lorenz, 1e-12, "Gini");
    close(complexity, -sizes.iter().map(|v| v / total * (v / total).ln()).sum::<f64>(), 1e-12, "entropy");
    let flat = bench.measure_maps(&mut engine, "sparseness", &bench.painted(|_, _| -2.0)).unwrap();
    close(flat[0][0].unwrap(), 0.0, 1e-12, "a constant map");
    let cam = build("grad_cam:upsample=none", Score::Logit, 0, &bench.net.preprocess).unwrap();
    let small = cam.explain(&mut engine, &bench.net.graph, &bench.net.x, &bench.net.targets).unwrap();
    assert!(bench.measure_maps(&mut engine, "complexity", &small).is_ok());
}

/// All metrics with few copies.
fn briefly(id: &str) -> String {
    let few: BTreeMap<&str, &str> = [
        ("stability", "n=2"),
        ("deletion", "step=10%"),
        ("insertion", "step=10%,baseline=blur:1"),
        ("pixel_flipping", "features_in_step=20%"),
        ("road", "shares=50"),
        ("sensitivity_n", "subsets=5"),
        ("infidelity", "n=3"),
        ("max_sensitivity", "n=2"),
    ]
    .into_iter()
    .collect();
    few.get(id).map_or(id.to_string(), |parameters| format!("{id}:{parameters}"))
}

#[test]
fn every_metric_answers_and_does_not_depend_on_the_batch() {
    let mut engine = Engine::new(&Settings { threads: Some(2), ..Settings::default() }).unwrap();
    let mut alone = Engine::new(&Settings { threads: Some(1), ..Settings::default() }).unwrap();
    for name in ["vgg", "vgg_bn"] {
        let bench = Bench::new(name, "input_x_gradient", &mut engine);
        for entry in registry() {
            let spec = briefly(entry.id);
            let found = bench.measure(&mut engine, &spec).unwrap_or_else(|e| panic!("{spec}: {e}"));
            assert_eq!(found.len(), bench.net.x.len(), "{spec}");
            for (i, readings) in found.iter().enumerate() {
                assert_eq!(readings.len(), entry.outputs.len(), "{spec}");
                assert!(readings.iter().flatten().all(|v| v.is_finite()), "{spec}: {readings:?}");
                let x = Batch::of(vec![bench.net.x.items()[i].clone()]).unwrap();
                let one = Case {
                    x: &x,
                    targets: &bench.net.targets[i..=i],
                    labels: Some(&bench.net.targets[i..=i]),
                    regions: Some(&bench.regions[i..=i]),
                    ..bench.case(&bench.maps[i..=i])
                };
                let metric = MetricSpec::parse(&spec).unwrap().build().unwrap();
                assert_eq!(
                    metric.measure(&mut alone, &one).unwrap(),
                    std::slice::from_ref(readings),
                    "{spec} on {name}"
                );
            }
        }
    }
}

#[test]
fn what_makes_no_sense_is_refused() {
    let mut engine = twin();
    let bench = Bench::new("vgg", "gradient", &mut engine);
    let cam = build("grad_cam:upsample=none", Score::Logit, 0, &bench.net.preprocess).unwrap();
    let small = cam.explain(&mut engine, &bench.net.graph, &bench.net.x, &bench.net.targets).unwrap();
    let nan = bench.painted(|_, p| if p == 7 { f64::NAN } else { 1.0 });
    for entry in registry() {
        let metric = MetricSpec::parse(&briefly(entry.id)).unwrap().build().unwrap();
        let other: Vec<Map> = bench.maps.iter().map(|m| Map { target: m.target + 1, ..m.clone() }).collect();
        assert!(metric.measure(&mut engine, &bench.case(&other)).is_err(), "{} takes maps of other classes", entry.id);
        let few = metric.measure(&mut engine, &bench.case(&bench.maps[..1])).unwrap_err();
        assert!(few.to_string().contains("1 maps of 2 pictures"), "{}: {few}", entry.id);
        let blind = metric.measure(&mut engine, &Case { regions: None, ..bench.case(&bench.maps) });
        assert_eq!(blind.is_err(), matches!(entry.needs, Needs::Regions | Needs::Mosaic), "{}", entry.id);
        // Some ask the method again and do not look at the maps' numbers.
        if entry.id != "grid_pointing" {
            assert!(metric.measure(&mut engine, &bench.case(&nan)).is_err(), "{} takes a NaN", entry.id);
        }
    }
    let on_the_picture = [
        "deletion",
        "insertion",
        "fidelity",
        "pixel_flipping",
        "road",
        "sensitivity_n",
        "infidelity",
        "pointing",
        "wsol",
        "energy_in_box",
    ];
    for spec in on_the_picture {
        let error = bench.measure_maps(&mut engine, spec, &small).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Input);
        assert!(error.to_string().contains("a map of grad_cam has [4, 4] positions"), "{spec}: {error}");
    }
    for bad in [
        "deletion:step=0",
        "deletion:baseline=file:x.png",
        "deletion:baseline=blue",
        "insertion:reduce=sum",
        "stability:n=0",
        "pixel_flipping:features_in_step=x",
        "road:shares=10+100",
        "road:shares=",
        "road:noise=-1",
        "sensitivity_n:n=0",
        "sensitivity_n:subsets=1",
        "sensitivity_n:score=loss",
        "infidelity:n=0",
        "infidelity:sigma=0",
        "max_sensitivity:n=0",
        "max_sensitivity:radius=inf",
        "sparseness:reduce=max",
        "stability:size=0",
        "stability:k=2",
        "stability:noise=pink",
        "stability:scale=large",
        "pointing:tolerance=-1",
        "wsol:threshold=1.5",
    ] {
        let error = MetricSpec::parse(bad).unwrap().build().err().unwrap_or_else(|| panic!("{bad} was built"));
        assert_eq!(error.kind(), ErrorKind::Settings, "{bad}: {error}");
    }
}
