//! Runs a target without libFuzzer: on the files it is given, then on changes of them for some seconds.
//!
//! `readers --list`, or `readers TARGET [--seconds S] [--seed N] [--last FILE] [FILE|FOLDER]…`. The input that is being tried lies in
//! FILE, so that it is known when the process ends. Ends with 1 where a target panicked.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use verilume_fuzz::{MOST_BYTES, TARGETS, seeds};

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }
}

/// Numbers that readers forget.
const NUMBERS: [u64; 12] =
    [0, 1, 0x7f, 0xff, 0x7fff, 0xffff, 0x7fff_ffff, 0xffff_ffff, 1 << 32, 1 << 53, i64::MAX as u64, u64::MAX];
/// Pieces of text that mean something.
const WORDS: [&str; 20] = [
    "null",
    "-1",
    "1e999",
    "[[[[",
    "{\"a\":",
    "\"",
    "\\u0000",
    "18446744073709551616",
    "nan",
    "inf",
    "=",
    ",",
    ":",
    "(",
    ")",
    "[]",
    "{}",
    "\u{feff}",
    "\u{202e}",
    "0.0000001",
];

/// `bytes` with a few changes, some of them from `other`.
fn changed(bytes: &[u8], other: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..1 + random.below(4) * random.below(3) {
        let at = random.below(bytes.len() + 1);
        let end = (at + [1, 2, 4, 8, 64][random.below(5)]).min(bytes.len());
        match random.below(9) {
            0 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
            1 if at < bytes.len() => bytes[at] = random.next() as u8,
            2 => bytes.truncate(at),
            3 => drop(bytes.drain(at..end)),
            4 => {
                let part = bytes[at..end].to_vec();
                bytes.splice(at..at, part.repeat(1 + random.below(40)));
            }
            5 => {
                let size = [1, 2, 4, 8][random.below(4)];
                let number = NUMBERS[random.below(NUMBERS.len())].wrapping_add(random.below(3) as u64).wrapping_sub(1);
                let mut field = number.to_le_bytes()[..size].to_vec();
                if random.below(2) == 0 {
                    field.reverse();
                }
                let end = (at + size).min(bytes.len());
                bytes.splice(at..end, field);
            }
            6 => {
                let word = WORDS[random.below(WORDS.len())].bytes();
                bytes.splice(at..if random.below(2) == 0 { at } else { end }, word);
            }
            7 if !other.is_empty() => {
                let from = random.below(other.len());
                let to = (from + [4, 32, 1000][random.below(3)]).min(other.len());
                bytes.splice(at..end, other[from..to].iter().copied());
            }
            // The head is what is believed.
            _ => {
                let head = bytes.len().min(96);
                if head > 0 {
                    let at = random.below(head);
                    bytes[at] = bytes[at].wrapping_add([1, 255, 16, 128][random.below(4)]);
                }
            }
        }
        bytes.truncate(MOST_BYTES);
    }
    bytes
}

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let Some(name) = words.next() else { return usage() };
    if name == "--list" {
        TARGETS.iter().for_each(|(name, _)| println!("{name}"));
        return ExitCode::SUCCESS;
    }
    let Some((_, target)) = TARGETS.iter().find(|(n, _)| *n == name) else { return usage() };
    let (mut seconds, mut seed, mut last, mut files) = (0.0, 0, None, Vec::<PathBuf>::new());
    while let Some(word) = words.next() {
        let value = if word.starts_with("--") { words.next() } else { None };
        match (word.as_str(), value) {
            ("--seconds", Some(text)) => seconds = text.parse().unwrap_or(0.0),
            ("--seed", Some(text)) => seed = text.parse().unwrap_or(0),
            ("--last", Some(text)) => last = Some(PathBuf::from(text)),
            (path, None) => files.push(path.into()),
            _ => return usage(),
        }
    }
    let mut corpus = seeds(&name);
    for path in files {
        let inside = std::fs::read_dir(&path).map(|entries| entries.flatten().map(|entry| entry.path()).collect());
        let mut inside: Vec<PathBuf> = inside.unwrap_or_else(|_| vec![path]);
        inside.sort();
        corpus.extend(inside.iter().filter_map(|path| std::fs::read(path).ok()));
    }
    if corpus.is_empty() {
        corpus.push(Vec::new());
    }
    let mut random = Random(seed);
    let end = Instant::now() + Duration::from_secs_f64(f64::max(seconds, 0.0));
    let mut tried = 0;
    let attempt = |bytes: &[u8]| {
        if let Some(path) = &last {
            let _ = std::fs::write(path, bytes);
        }
        std::panic::catch_unwind(|| target(bytes)).is_ok()
    };
    for i in 0.. {
        let bytes = match corpus.get(i) {
            Some(given) => given.clone(),
            None if Instant::now() >= end => break,
            None => changed(&corpus[random.below(corpus.len())], &corpus[random.below(corpus.len())], &mut random),
        };
        tried += 1;
        if !attempt(&bytes) {
            eprintln!("{name}: input {i} panics ({} bytes)", bytes.len());
            println!("{tried} inputs");
            return ExitCode::FAILURE;
        }
    }
    println!("{tried} inputs");
    ExitCode::SUCCESS
}

fn usage() -> ExitCode {
    eprintln!("readers --list | readers TARGET [--seconds S] [--seed N] [--last FILE] [FILE|FOLDER]...");
    ExitCode::from(2)
}
