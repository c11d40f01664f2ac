//! Attacks keep to their ball and to what pictures can hold, do what they promise, and depend on nothing but their settings.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

mod nets;

use nets::Net;
use verilume::engine::{Batch, Engine, Settings};
use verilume::reliability::attack::{self, Adversarial, Goal, Pgd, Size, Start, Stop};
use verilume::tensor::{Precision, Tensor};

fn engine(precision: Precision, threads: usize) -> Engine {
    Engine::new(&Settings { precision, threads: Some(threads), ..Settings::default() }).unwrap()
}

/// The classes that the net predicts.
fn predicted(net: &Net, engine: &mut Engine) -> Vec<usize> {
    let logits = engine.forward(&net.graph, &net.x).unwrap();
    let best = |i: usize| {
        let row = logits.item(i).unwrap().to_f64().into_owned();
        (0..row.len()).fold(0, |best, k| if row[k] > row[best] { k } else { best })
    };
    (0..net.x.len()).map(best).collect()
}

/// The net's pictures, moved into the range of what pictures hold, in the given precision.
fn pictures(net: &Net, precision: Precision) -> Batch {
    let (black, white) = (net.preprocess.black(), net.preprocess.white());
    let inside = |t: &Tensor| {
        let plane = t.len() / black.len();
        let values = t.to_f64().iter().enumerate().map(|(i, v)| v.clamp(black[i / plane], white[i / plane])).collect();
        Tensor::rounded(t.dims(), values, precision).unwrap()
    };
    Batch::of(net.x.items().iter().map(inside).collect()).unwrap()
}

/// Every number within ε of the original's and within its channel's range, exactly.
fn assert_inside(net: &Net, x: &Batch, found: &[Adversarial], epsilon: Size) {
    let (black, white, each) = (net.preprocess.black(), net.preprocess.white(), epsilon.normalised(&net.preprocess));
    assert_eq!(found.len(), x.len());
    for (original, found) in x.items().iter().zip(found) {
        assert_eq!((found.picture.dims(), found.picture.precision()), (original.dims(), original.precision()));
        let plane = original.len() / black.len();
        let mut most: f64 = 0.0;
        for i in 0..original.len() {
            let (x, v, c) = (original.at(i), found.picture.at(i), i / plane);
            assert!((v - x).abs() <= each[c], "{} > {}", (v - x).abs(), each[c]);
            assert!(black[c] <= v && v <= white[c], "{v} outside");
            most = most.max((v - x).abs());
        }
        assert_eq!(most, found.linf);
    }
}

fn bits(t: &Tensor) -> Vec<u64> {
    t.to_f64().iter().map(|v| v.to_bits()).collect()
}

#[test]
fn attacks_on_predictions_stay_inside_and_flip() {
    for name in ["resnet_basic", "vgg_bn"] {
        let net = Net::small(name);
        for precision in [Precision::F32, Precision::F64] {
            let mut engine = engine(precision, 2);
            let x = pictures(&net, precision);
            let classes = {
                let logits = engine.forward(&net.graph, &x).unwrap();
                (0..x.len())
                    .map(|i| {
                        let row = logits.item(i).unwrap().to_f64().into_owned();
                        (0..row.len()).fold(0, |best, k| if row[k] > row[best] { k } else { best })
                    })
                    .collect::<Vec<usize>>()
            };
            let goal = Goal::Untargeted(&classes);
            let (graph, p) = (&net.graph, &net.preprocess);
            for epsilon in [Size::Levels(8.0), Size::Normalised(0.07)] {
                let found = attack::fgsm(&mut engine, graph, p, &x, goal, epsilon).unwrap();
                assert_inside(&net, &x, &found, epsilon);
                assert!(found.iter().all(|f| f.iterations == 1 && f.linf > 0.0));
                let settings = Pgd { epsilon, iterations: 5, ..Pgd::default() };
                let found = attack::pgd(&mut engine, graph, p, &x, goal, &settings).unwrap();
                assert_inside(&net, &x, &found, epsilon);
                for (f, &class) in found.iter().zip(&classes) {
                    assert_eq!(f.predicted()[0], class);
                    assert_eq!(f.succeeded, f.predicted()[1] != class);
                    assert!(f.objective[1] > f.objective[0], "{name}: {:?}", f.objective);
                }
            }
            // With room enough every picture flips, and to any class that is wanted.
            let wide = Pgd { epsilon: Size::Levels(64.0), step: Size::Levels(8.0), iterations: 60, ..Pgd::default() };
            let found = attack::pgd(&mut engine, graph, p, &x, goal, &wide).unwrap();
            assert!(found.iter().all(|f| f.succeeded), "{name} {precision}");
            assert_inside(&net, &x, &found, wide.epsilon);
            let wanted: Vec<usize> = classes.iter().map(|c| (c + 1) % graph.classes()).collect();
            let found = attack::pgd(&mut engine, graph, p, &x, Goal::Targeted(&wanted), &wide).unwrap();
            for (f, &class) in found.iter().zip(&wanted) {
                assert_eq!(f.succeeded, f.predicted()[1] == class);
                assert!(f.objective[1] > f.objective[0]);
            }
            let first = Pgd { stop: Stop::Reached, start: Start::Picture, ..wide };
            let sooner = attack::pgd(&mut engine, graph, p, &x, goal, &first).unwrap();
            assert!(sooner.iter().all(|f| f.succeeded && f.iterations < 60), "{name} {precision}");
        }
    }
}

#[test]
fn results_depend_on_neither_batch_nor_threads() {
    let net = Net::small("resnet_basic");
    let mut one = engine(Precision::F32, 1);
    let classes = predicted(&net, &mut one);
    let settings = Pgd { iterations: 4, ..Pgd::default() };
    let (graph, p) = (&net.graph, &net.preprocess);
    let alone: Vec<Vec<u64>> = (0..net.x.len())
        .map(|i| {
            let x = Batch::of(vec![net.x.items()[i].clone()]).unwrap();
            let goal = Goal::Untargeted(&classes[i..=i]);
            bits(&attack::pgd(&mut one, graph, p, &x, goal, &settings).unwrap()[0].picture)
        })
        .collect();
    for threads in [1, 2, 3] {
        let found =
            attack::pgd(&mut engine(Precision::F32, threads), graph, p, &net.x, Goal::Untargeted(&classes), &settings);
        let together: Vec<Vec<u64>> = found.unwrap().iter().map(|f| bits(&f.picture)).collect();
        assert!(together == alone, "{threads} threads");
    }
    let other = Pgd { seed: 1, ..settings };
    let found = attack::pgd(&mut one, graph, p, &net.x, Goal::Untargeted(&classes), &other).unwrap();
    assert!(bits(&found[0].picture) != alone[0], "the seed counts");
}

#[test]
fn settings_without_meaning_are_errors() {
    let net = Net::small("vgg");
    let mut engine = engine(Precision::F32, 1);
    let classes = predicted(&net, &mut engine);
    let good = Pgd { iterations: 1, ..Pgd::default() };
    for bad in [
        Pgd { epsilon: Size::Levels(0.0), ..good },
        Pgd { epsilon: Size::Normalised(f64::NAN), ..good },
        Pgd { epsilon: Size::Normalised(-1.0), ..good },
        Pgd { step: Size::Normalised(f64::INFINITY), ..good },
        Pgd { iterations: 0, ..good },
    ] {
        let made = attack::pgd(&mut engine, &net.graph, &net.preprocess, &net.x, Goal::Untargeted(&classes), &bad);
        assert_eq!(made.unwrap_err().kind(), verilume::ErrorKind::Settings);
    }
    let few = &classes[1..];
    assert!(attack::pgd(&mut engine, &net.graph, &net.preprocess, &net.x, Goal::Untargeted(few), &good).is_err());
    let none = vec![net.graph.classes(); net.x.len()];
    assert!(attack::pgd(&mut engine, &net.graph, &net.preprocess, &net.x, Goal::Targeted(&none), &good).is_err());
}
