//! Methods that take parts of the picture away, against loops over hand-made copies.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod nets;

use std::sync::{Arc, Mutex};

use nets::{Net, bits, build, machines};
use verilume::ErrorKind;
use verilume::device::{Boxes, GridMask, Masks, Perturbation, Rectangle};
use verilume::engine::{Batch, Copies, Engine, Job, Settings};
use verilume::program::Score;
use verilume::random;
use verilume::tensor::resample::{Upsample, upsample};
use verilume::tensor::{Precision, Tensor};

fn twin() -> Engine {
    Engine::new(&Settings { precision: Precision::F64, threads: Some(2), ..Settings::default() }).unwrap()
}

fn score_of(net: &Net, engine: &mut Engine, score: Score, i: usize, picture: Vec<f64>) -> f64 {
    let picture = Tensor::f64(net.x.shape().dims(), picture).unwrap();
    let logits = engine.forward(&net.graph, &Batch::of(vec![picture]).unwrap()).unwrap();
    score.evaluate(&logits.to_f64(), net.targets[i]).0
}

fn near(what: &str, got: &[f64], want: &[f64], tolerance: f64) {
    assert_eq!(got.len(), want.len(), "{what}");
    let largest = want.iter().fold(0.0f64, |m, v| m.max(v.abs()));
    assert!(largest > 0.0, "{what}: the reference is all zero");
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        let within = (g - w).abs() <= tolerance * largest;
        assert!(within, "{what}, element {i}: {g} for {w} (largest {largest})");
    }
}

#[test]
fn occlusion_is_the_mean_fall_over_the_windows() {
    let mut engine = twin();
    let net = Net::small("vgg_bn");
    let shape = net.x.shape();
    let (h, w) = (shape.h, shape.w);
    let black = net.preprocess.black();
    for (window, stride, fill) in [(7, 5, "0"), (9, 9, "black"), (24, 6, "mean"), (100, 3, "0.5")] {
        for score in [Score::Logit, Score::Prob] {
            let spec = format!("occlusion:window={window},stride={stride},fill={fill}");
            let maps = net.explain(&mut engine, &spec, score, 0).unwrap();
            for (i, map) in maps.iter().enumerate() {
                let picture = net.x.items()[i].to_f64().into_owned();
                let whole = score_of(&net, &mut engine, score, i, picture.clone());
                let instead = |c: usize| match fill {
                    "black" => f64::from(black[c] as f32),
                    "mean" => {
                        let mean = picture[c * h * w..][..h * w].iter().sum::<f64>() / (h * w) as f64;
                        f64::from(mean as f32)
                    }
                    value => value.parse().unwrap(),
                };
                let (mut falls, mut times) = (vec![0.0; h * w], vec![0.0; h * w]);
                let mut top = 0;
                loop {
                    let mut left = 0;
                    loop {
                        let within = |p: usize| {
                            (top..top + window).contains(&(p / w)) && (left..left + window).contains(&(p % w))
                        };
                        let cover = |(e, &v): (usize, &f64)| if within(e % (h * w)) { instead(e / (h * w)) } else { v };
                        let covered = picture.iter().enumerate().map(cover).collect();
                        let fall = whole - score_of(&net, &mut engine, score, i, covered);
                        for p in (0..h * w).filter(|&p| within(p)) {
                            falls[p] += fall;
                            times[p] += 1.0;
                        }
                        if left + window >= w {
                            break;
                        }
                        left += stride;
                    }
                    if top + window >= h {
                        break;
                    }
                    top += stride;
                }
                let plane: Vec<f64> = falls.iter().zip(&times).map(|(f, n)| f / n).collect();
                near(&format!("{spec} {score:?} {i}"), &map.values.to_f64(), &plane.repeat(shape.c), 1e-11);
                assert_eq!(map.values.dims(), shape.dims());
            }
        }
    }
}

/// Mask `k` of a picture, drawn and enlarged here.
fn rise_mask(net: &Net, i: usize, (seed, grid, p): (u64, usize, f64), k: u32) -> Vec<f64> {
    let shape = net.x.shape();
    let mut draws = vec![0f32; grid * grid + 2];
    random::fill_uniforms(seed, random::image_key(&net.x.items()[i]), k, 0, &mut draws);
    let cells: Vec<f64> = draws[..grid * grid].iter().map(|&u| f64::from(u8::from(f64::from(u) < p))).collect();
    let cell = [shape.h, shape.w].map(|extent| extent.div_ceil(grid));
    let size = cell.map(|c| (grid + 1) * c);
    let [top, left] = [0, 1].map(|a| (f64::from(draws[grid * grid + a]) * cell[a] as f64).floor() as usize);
    let large = upsample(&cells, [grid, grid], size, Upsample::Bilinear).unwrap();
    (0..shape.plane()).map(|e| large[(top + e / shape.w) * size[1] + left + e % shape.w]).collect()
}

#[test]
fn rise_is_the_weighted_mean_of_its_masks() {
    let mut engine = twin();
    let net = Net::small("vgg_bn");
    let (n, seed) = (107, 9);
    for (grid, p, score) in [(3, 0.4, Score::Logit), (5, 0.7, Score::Prob)] {
        let maps = net.explain(&mut engine, &format!("rise:n={n},grid={grid},p={p}"), score, seed).unwrap();
        for (i, map) in maps.iter().enumerate() {
            let picture = net.x.items()[i].to_f64().into_owned();
            let mut want = vec![0.0; net.x.shape().plane()];
            let mut kept = 0.0;
            for k in 0..n {
                let mask = rise_mask(&net, i, (seed, grid, p), k);
                kept += mask.iter().sum::<f64>() / mask.len() as f64 / f64::from(n);
                let masked = picture.iter().enumerate().map(|(e, v)| v * mask[e % mask.len()]).collect();
                let score = score_of(&net, &mut engine, score, i, masked);
                want.iter_mut().zip(&mask).for_each(|(w, m)| *w += score * m / (p * f64::from(n)));
            }
            assert!((kept - p).abs() < 0.08, "{kept} of the pixels were kept for p={p}");
            assert_eq!(map.values.dims(), [net.x.shape().h, net.x.shape().w]);
            near(&format!("grid {grid}, picture {i}"), &map.values.to_f64(), &want, 1e-10);
        }
    }
    // Masks that leave everything: the score itself, everywhere.
    let maps = net.explain(&mut engine, "rise:n=3,p=1", Score::Logit, 1).unwrap();
    let logits = engine.forward(&net.graph, &net.x).unwrap();
    for (i, map) in maps.iter().enumerate() {
        let want = vec![logits.item(i).unwrap().at(net.targets[i]); net.x.shape().plane()];
        near("p=1", &map.values.to_f64(), &want, 1e-12);
    }
}

/// The map is that of the first whole number of blocks whose last one changed little, for each picture by itself.
#[test]
fn rise_stops_when_its_map_settles() {
    let mut engine = twin();
    let net = Net::small("vgg");
    let tolerance = 0.3;
    let mut explain = |spec: &str| {
        let maps = net.explain(&mut engine, spec, Score::Prob, 4).unwrap();
        maps.iter().map(|m| m.values.to_f64().into_owned()).collect::<Vec<_>>()
    };
    let most = 12;
    let blocks: Vec<_> = (1..=most).map(|k| explain(&format!("rise:grid=4,n={}", 100 * k))).collect();
    let norm = |v: Vec<f64>| {
        let mean = v.iter().sum::<f64>() / v.len() as f64;
        v.iter().map(|v| (v - mean).powi(2)).sum::<f64>().sqrt()
    };
    let stopped = explain(&format!("rise:grid=4,n={},tolerance={tolerance}", 100 * most));
    for (i, map) in stopped.iter().enumerate() {
        let settled = (1..most).find(|&k| {
            let (new, old) = (&blocks[k][i], &blocks[k - 1][i]);
            norm(new.iter().zip(old).map(|(a, b)| a - b).collect()) / norm(new.clone()) <= tolerance
        });
        let settled = settled.expect("a tolerance that is met before the last block");
        println!("picture {i} stops after {} masks", 100 * (settled + 1));
        assert!(*map == blocks[settled][i], "picture {i}");
        assert!(*map != blocks[most - 1][i], "picture {i} went on to the end");
    }
    assert!(explain("rise:grid=4,n=250,tolerance=1e-9") == explain("rise:grid=4,n=250"), "no block is cut short");
}

/// The blocks of the methods' own, the engine's chunks, threads, batches.
#[test]
fn maps_are_the_same_bits_however_the_work_is_cut() {
    let net = Net::small("resnet_basic");
    let specs = [
        "rise:n=230,grid=4",
        "rise:n=400,grid=4,tolerance=0.4",
        "occlusion:window=12,stride=4",
        "score_cam",
        "ablation_cam",
    ];
    let all = |engine: &mut Engine| -> Vec<Vec<Vec<u64>>> {
        specs.map(|s| net.explain(engine, s, Score::Prob, 2).unwrap().iter().map(bits).collect()).to_vec()
    };
    let reference = all(&mut Engine::new(&Settings { threads: Some(1), ..Settings::default() }).unwrap());
    for (threads, memory) in [(2, None), (3, Some(3 << 20))] {
        let mut engine = Engine::new(&Settings { threads: Some(threads), memory, ..Settings::default() }).unwrap();
        assert!(all(&mut engine) == reference, "{threads} threads, {memory:?} bytes");
        assert!(memory.is_none_or(|m| engine.peak_bytes() <= m));
        for (spec, together) in specs.iter().zip(&reference) {
            let method = build(spec, Score::Prob, 2, &net.preprocess).unwrap();
            let alone = Batch::of(vec![net.x.items()[1].clone()]).unwrap();
            let maps = method.explain(&mut engine, &net.graph, &alone, &net.targets[1..]).unwrap();
            assert!(bits(&maps[0]) == together[1], "{spec}, picture 1 alone");
        }
    }
}

/// Masks and boxes on every set of kernels against the twin.
#[test]
fn kernels_agree() {
    let net = Net::small("vgg_bn");
    let specs = ["rise:n=40,grid=5", "score_cam:upsample=none,relu=no", "occlusion:window=7,stride=5,fill=white"];
    let explain = |engine: &mut Engine, spec: &str| -> Vec<Vec<f64>> {
        let maps = net.explain(engine, spec, Score::Prob, 6).unwrap();
        maps.iter().map(|m| m.values.to_f64().into_owned()).collect()
    };
    for spec in specs {
        let want = explain(&mut twin(), spec);
        for settings in machines() {
            let got = explain(&mut Engine::new(&settings).unwrap(), spec);
            for (got, want) in got.iter().zip(&want) {
                near(&format!("{spec} {:?} {}", settings.kernels, settings.precision), got, want, 1e-4);
            }
        }
    }
}

#[test]
fn progress_is_told_and_changes_nothing() {
    let net = Net::small("vgg");
    for (spec, total) in [
        ("rise:n=250,grid=4", Some(500)),
        ("rise:n=4000,grid=4,tolerance=0.5", Some(8000)),
        ("occlusion:window=8,stride=2", Some(2 * 169)),
        ("score_cam", None),
        ("ablation_cam", None),
    ] {
        let mut engine = Engine::new(&Settings::default()).unwrap();
        let silent: Vec<_> = net.explain(&mut engine, spec, Score::Prob, 0).unwrap().iter().map(bits).collect();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let told = Arc::clone(&heard);
        engine.observe(Box::new(move |p| told.lock().unwrap().push((p.method.to_string(), p.done, p.total))));
        let maps: Vec<_> = net.explain(&mut engine, spec, Score::Prob, 0).unwrap().iter().map(bits).collect();
        assert!(maps == silent, "{spec}");
        let heard = heard.lock().unwrap();
        assert!(heard.len() > 2 || total.is_none(), "{spec}: {heard:?}");
        assert_eq!(heard.first().unwrap().1, 0, "{spec}");
        assert_eq!(heard.last().unwrap().1, heard.last().unwrap().2, "{spec}");
        assert!(heard.windows(2).all(|w| w[0].1 <= w[1].1 && w[0].2 == w[1].2), "{spec}: {heard:?}");
        assert!(heard.iter().all(|h| spec.starts_with(&h.0) && total.is_none_or(|t| t == h.2)), "{spec}: {heard:?}");
    }
}

#[test]
fn what_makes_no_sense_is_refused() {
    let net = Net::small("vgg");
    let mut engine = Engine::new(&Settings::default()).unwrap();
    for (spec, part) in [
        ("occlusion:window=0", "window=0"),
        ("occlusion:stride=0", "stride=0"),
        ("occlusion:window=4,stride=5", "never be covered"),
        ("occlusion:fill=grey", "grey"),
        ("occlusion:fill=nan", "nan"),
        ("occlusion:fill=inf", "inf"),
        ("occlusion:window=-1", "window=-1"),
        ("rise:n=0", "n=0"),
        ("rise:grid=0", "grid=0"),
        ("rise:grid=33", "grid=33"),
        ("rise:p=0", "p=0"),
        ("rise:p=1.5", "p=1.5"),
        ("rise:p=nan", "p=NaN"),
        ("rise:tolerance=-1", "tolerance=-1"),
        ("rise:tolerance=inf", "tolerance=inf"),
        ("rise:n=9000000000", "n=9000000000"),
    ] {
        let error = net.explain(&mut engine, spec, Score::Logit, 0).unwrap_err();
        // What the picture's shape decides is that picture's error.
        assert!(matches!(error.kind(), ErrorKind::Settings | ErrorKind::Shape), "{spec}: {error}");
        assert!(error.to_string().contains(part), "{spec}: {error}");
    }
    // Perturbations that do not suit their pictures.
    let shape = net.x.shape();
    let fill = Tensor::f32(shape.dims(), vec![0.0; shape.len()]).unwrap();
    let small = Tensor::f32([3, 1, 1], vec![0.0; 3]).unwrap();
    let boxed = |n: usize, fills: Vec<Tensor>| {
        Perturbation::Boxes(Boxes { boxes: vec![Rectangle { corner: [0, 0], size: [2, 2] }; n], fills })
    };
    let masked = |grid, size, corner, numbers: usize, copies: usize, pictures: usize| {
        let mask = GridMask { values: vec![1.0; numbers], corner };
        Perturbation::Masks(Masks { grid, size, masks: vec![vec![mask; copies]; pictures] })
    };
    let whole = [shape.h, shape.w];
    for (i, perturbation) in [
        boxed(2, vec![fill.clone(); 2]),
        boxed(3, vec![fill.clone()]),
        boxed(3, vec![fill.clone(), small]),
        masked([2, 2], whole, [0, 0], 4, 2, 2),
        masked([2, 2], whole, [0, 0], 4, 3, 1),
        masked([2, 2], whole, [0, 0], 5, 3, 2),
        masked([0, 2], whole, [0, 0], 0, 3, 2),
        masked([2, 2], whole, [0, 1], 4, 3, 2),
        masked([2, 2], [shape.h - 1, shape.w], [0, 0], 4, 3, 2),
        masked([2, 2], whole, [usize::MAX, 0], 4, 3, 2),
    ]
    .into_iter()
    .enumerate()
    {
        let copies = Copies { perturbation, weights: vec![0.3; 3] };
        let job = Job { copies, ..Job::gradient(Score::Logit) };
        let error = engine.explain(&net.graph, &job, &net.x, &net.targets).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Settings, "{i}: {error}");
    }
    for (i, perturbation) in
        [boxed(3, vec![fill.clone(), fill]), masked([2, 2], whole, [0, 0], 4, 3, 2)].into_iter().enumerate()
    {
        let copies = Copies { perturbation, weights: vec![0.3; 3] };
        let job = Job { copies, ..Job::gradient(Score::Logit) };
        assert!(engine.explain(&net.graph, &job, &net.x, &net.targets).is_ok(), "{i}");
    }
}
