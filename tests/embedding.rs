//! What a host program notices of the library: no thread, no output, no environment.
#![cfg(all(feature = "embedded-model", feature = "png", target_os = "linux"))]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use verilume::Session;
use verilume::engine::{DeviceChoice, Settings};
use verilume::image::{DecodeLimits, Picture, Preprocess};
use verilume::model::Model;
use verilume::session::Options;

/// Set in the process that does the work.
const INSIDE: &str = "VERILUME_TEST_INSIDE";

fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").unwrap().count()
}

/// From a file to maps, on `threads` threads.
fn work(threads: usize) {
    let engine = Settings { device: DeviceChoice::Cpu, threads: Some(threads), ..Settings::default() };
    let model = Model::embedded().unwrap();
    let preparation = Preprocess { resize: 36, crop: [32, 32], ..model.preprocess().clone() };
    let options = Options { engine, preparation: Some(preparation), ..Options::default() };
    let mut session = Session::open(model, &options).unwrap();
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/chelsea.png");
    let cat = session.prepare(&Picture::open(file, &DecodeLimits::default()).unwrap()).unwrap().tensor;
    // A camera's frame, which is made smaller.
    let levels: Vec<u8> = (0..3 * 600 * 800).map(|i| (i * 7 % 251) as u8).collect();
    let frame = session.preparation().from_u8(&levels, 600, 800).unwrap().tensor;
    let tops: Vec<usize> = session.score(&[&cat, &frame]).into_iter().map(|scored| scored.unwrap().top()).collect();
    for spec in ["gradient", "smoothgrad:n=2", "grad_cam", "lrp", "relex:iterations=2,copies=2"] {
        let method = session.method(spec).unwrap_or_else(|e| panic!("{spec}: {e}"));
        for map in session.explain(method.as_ref(), &[&cat, &frame], &tops) {
            map.unwrap_or_else(|e| panic!("{spec}: {e}"));
        }
    }
    // What goes wrong is an error, not a message.
    assert!(session.method("gradient:n=1").is_err());
    assert!(Picture::decode(b"no picture", &DecodeLimits::default()).is_err());
}

/// The most threads that there were at any time while `work` ran, those that were there before not counted.
fn most_threads(work: impl FnOnce()) -> usize {
    let (done, most) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let watcher = {
        let (done, most) = (Arc::clone(&done), Arc::clone(&most));
        std::thread::spawn(move || {
            while !done.load(Ordering::Relaxed) {
                most.fetch_max(threads(), Ordering::Relaxed);
                std::thread::sleep(Duration::from_micros(200));
            }
        })
    };
    let before = threads();
    work();
    most.fetch_max(threads(), Ordering::Relaxed);
    done.store(true, Ordering::Relaxed);
    watcher.join().unwrap();
    most.load(Ordering::Relaxed) - before
}

/// What this test prints inside the process; everything else there is the test harness's or the library's.
const TOLD: &str = "threads beside those that were there";

#[test]
fn one_thread_stays_one_and_nothing_is_printed() {
    if std::env::var_os(INSIDE).is_some() {
        let alone = most_threads(|| work(1));
        println!("\n{TOLD}: {alone} for 1, {} for 3", most_threads(|| work(3)));
        return;
    }
    let test = "one_thread_stays_one_and_nothing_is_printed";
    let inside = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env_clear()
        .env(INSIDE, "1")
        .output()
        .unwrap();
    let (said, errors) = (String::from_utf8_lossy(&inside.stdout), String::from_utf8_lossy(&inside.stderr));
    assert!(inside.status.success(), "{said}{errors}");
    assert_eq!(errors, "", "printed on standard error");
    let of_harness = |line: &&str| {
        let start = ["running 1 test", "test result: ok."].iter().any(|start| line.starts_with(start));
        line.is_empty() || start || *line == "ok" || *line == format!("test {test} ... ")
    };
    let told: Vec<&str> = said.lines().filter(|line| !of_harness(line)).collect();
    // The second number shows that threads are noticed.
    assert_eq!(told, [format!("{TOLD}: 0 for 1, 3 for 3")], "{said}");
}
