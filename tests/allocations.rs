//! Once a session is warm, explaining into the caller's buffer allocates nothing. An allocator that counts is the reason why
//! these tests have a program of their own.
#![cfg(all(feature = "embedded-model", feature = "onnx"))]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::backtrace::Backtrace;
use std::cell::{Cell, RefCell};
use std::path::Path;

use verilume::Session;
use verilume::engine::{DeviceChoice, Settings};
use verilume::model::Model;
use verilume::program::Score;
use verilume::session::Options;
use verilume::tensor::{Precision, Tensor};

/// The system's allocator, which notes where a watched thread allocates.
struct Watched;

thread_local! {
    static WATCHING: Cell<bool> = const { Cell::new(false) };
    static PLACES: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

fn note() {
    // The note itself allocates.
    if WATCHING.replace(false) {
        let place = Backtrace::force_capture().to_string();
        PLACES.with_borrow_mut(|places| places.push(place));
        WATCHING.set(true);
    }
}

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Watched {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note();
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        note();
        // SAFETY: the caller's promise.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note();
        // SAFETY: the caller's promise.
        unsafe { System.realloc(place, layout, size) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(place, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Watched = Watched;

/// Where `work` allocates on this thread.
fn allocations<T>(work: impl FnOnce() -> T) -> (T, Vec<String>) {
    WATCHING.set(true);
    let done = work();
    WATCHING.set(false);
    (done, PLACES.take())
}

/// The functions of this library in a backtrace, innermost first.
fn functions(place: &str) -> String {
    let lines = place.lines().filter(|line| line.contains("verilume::"));
    let names = lines.map(|line| line.split_once(": ").map_or(line, |(_, name)| name));
    names.take(4).collect::<Vec<_>>().join(" < ")
}

const METHODS: [&str; 6] = ["gradient", "input_x_gradient", "smoothgrad:n=4", "ig:steps=4", "grad_cam", "lrp"];

/// Calls after which a session is warm: weights are packed, the room for every program is known, and memory has the sizes that
/// are needed.
const WARM: usize = 4;

fn session(model: Model, precision: Precision, score: Score) -> Session {
    let engine = Settings { device: DeviceChoice::Cpu, threads: Some(1), precision, ..Settings::default() };
    Session::open(model, &Options { engine, score, ..Options::default() }).unwrap()
}

/// An input of noise; of the embedded net with 40 × 40 pixels the last stage has four positions.
fn noise(dims: [usize; 3]) -> Tensor {
    let mut state = 7u64;
    let mut draw = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    Tensor::f32(dims, (0..dims.iter().product()).map(|_| draw()).collect()).unwrap()
}

/// What allocates although the session is warm; the maps are those of `explain`.
fn faults(session: &mut Session, input: &Tensor, methods: &[&str], what: &str) -> Vec<String> {
    let target = session.score(&[input]).remove(0).unwrap().top();
    let methods: Vec<_> = methods.iter().map(|spec| (spec, session.method(spec).unwrap())).collect();
    let mut faults = Vec::new();
    let mut out = Vec::new();
    // The methods alternate, so that none finds only its own memory.
    for call in 0..WARM + 2 {
        for (spec, method) in &methods {
            let dims = session.map_dims(method.as_ref(), input.dims()).unwrap();
            out.clear();
            out.resize(dims.count(), f32::NAN);
            let (facts, places) = allocations(|| session.explain_into(method.as_ref(), input, target, &mut out));
            let facts = facts.unwrap_or_else(|e| panic!("{what}, {spec}: {e}"));
            if call == 0 {
                println!("{what}, {spec}: {} allocations at first", places.len());
                let map = session.explain(method.as_ref(), &[input], &[target]).remove(0).unwrap();
                assert_eq!(map.values.dims(), dims.dims(), "{what}, {spec}");
                assert_eq!((facts.sign, &facts.gap, facts.shares), (map.sign, &map.gap, map.shares), "{what}, {spec}");
                assert!(map.values.to_f32().iter().eq(&out), "{what}, {spec}: other numbers than those of `explain`");
            } else if call >= WARM && !places.is_empty() {
                faults.push(format!("{what}, {spec}, call {call}: {} allocations", places.len()));
                let mut counted = std::collections::BTreeMap::<String, usize>::new();
                places.iter().for_each(|place| *counted.entry(functions(place)).or_default() += 1);
                faults.extend(counted.into_iter().map(|(place, n)| format!("    {n} in {place}")));
            }
        }
    }
    println!("{what}: {}", faults.join("\n"));
    faults
}

#[test]
fn a_warm_session_allocates_nothing() {
    let mut all = Vec::new();
    for (precision, score) in
        [(Precision::F32, Score::Logit), (Precision::F32, Score::Prob), (Precision::F64, Score::Logit)]
    {
        let mut session = session(Model::embedded().unwrap(), precision, score);
        all.extend(faults(&mut session, &noise([3, 40, 40]), &METHODS, &format!("{precision}, {}", score.name())));
    }
    assert!(all.is_empty(), "{}", all.join("\n"));
}

/// Pools, concatenations, norms, gates, shuffles: nets of many kinds.
#[test]
fn nor_on_nets_of_other_kinds() {
    let mut all = Vec::new();
    for net in [
        "alexnet.17",
        "densenet-small.12",
        "group-norms.17",
        "hf-convnext.17",
        "inception-v3.17",
        "keras-binary.13",
        "mobilenet-v3.12",
        "resnet-basic.17",
        "shufflenet-v2.12",
    ] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/zoo/{net}.onnx"));
        let mut session = session(Model::open(&path, None).unwrap(), Precision::F32, Score::Logit);
        let input = noise(session.model().default_input().dims());
        all.extend(faults(&mut session, &input, &METHODS, net));
    }
    assert!(all.is_empty(), "{}", all.join("\n"));
}

/// The test notices what it is for: the other way to a map allocates.
#[test]
fn a_map_of_its_own_takes_memory() {
    let mut session = session(Model::embedded().unwrap(), Precision::F32, Score::Logit);
    let (input, method) = (noise([3, 40, 40]), session.method("gradient").unwrap());
    for _ in 0..WARM {
        session.explain(method.as_ref(), &[&input], &[0]).remove(0).unwrap();
    }
    let (map, places) = allocations(|| session.explain(method.as_ref(), &[&input], &[0]).remove(0));
    assert!(map.is_ok() && !places.is_empty());
    let mut short = vec![0.0; 5];
    let why = session.explain_into(method.as_ref(), &input, 0, &mut short).unwrap_err().to_string();
    assert!(why.contains("4800") && why.contains('5'), "{why}");
}
