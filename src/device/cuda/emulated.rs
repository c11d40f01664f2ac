//! Kernels on a machine without a GPU: the host's C++ compiler makes a library of each unit, and threads are fibres.
//!
//! It stands in for a GPU in tests, and is stricter than one: see `kernels/emu/emu.h`.

use std::alloc::{Layout, alloc, dealloc};
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::ffi::{CStr, CString, OsStr, c_char, c_int, c_void};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use libloading::Library;
use sha2::{Digest, Sha256};

use super::arguments::{Address, Packed};
use super::cache::{self, CacheFile};
use super::runtime::{Launch, Machine, Refusal, Runtime};
use super::source::{Sources, TranslationUnit};
use crate::device::threads::{map, start_pool};
use crate::error::{Error, Result, read_file};

macro_rules! shim {
    ($($file:literal),+ $(,)?) => {
        &[$(($file, include_str!(concat!("../../../kernels/emu/", $file)))),+]
    };
}

/// What stands in for CUDA: the headers that units see, and what runs them.
const SHIM: &[(&str, &str)] = shim!["emu.h", "emu_mma.h", "fibre.h", "block.h", "product.h", "emu.cpp"];

/// Rounding as written: no contraction. Shared memory is read as several types: no aliasing rules.
const FLAGS: [&str; 12] = [
    "-std=c++17",
    "-O2",
    if cfg!(target_arch = "x86_64") { "-march=native" } else { "-mcpu=native" },
    "-ffp-contract=off",
    "-fno-math-errno",
    "-fno-strict-aliasing",
    "-fPIC",
    "-fvisibility=hidden",
    "-pthread",
    "-Wno-unknown-pragmas",
    "-Wno-psabi",
    "-DEMULATED",
];
/// What runs kernels, beside them where they are compiled.
const OBJECT: &str = "emu.o";
/// Timers are in a library of their own in older systems.
const TIMERS: &[&str] = if cfg!(target_os = "linux") { &["-lrt"] } else { &[] };
/// Fibres have small stacks: no large frames. Each compiler says it in its own way.
const FRAMES_GCC: &[&str] = &["-Werror=frame-larger-than=24576"];
const FRAMES_CLANG: &[&str] = &["-Wframe-larger-than=24576", "-Werror=frame-larger-than="];

const GUARD_BYTES: usize = 4096;
const ALIGNMENT: usize = 256;
/// All bits set: a NaN, in single and in half precision.
const POISON: u8 = 0xff;
const UNTOUCHED: [u8; GUARD_BYTES] = [POISON; GUARD_BYTES];
const MESSAGE_BYTES: usize = 1024;
const KEY_DIGITS: usize = 32;
/// Blocks of kernels that end take milliseconds.
const PATIENCE: Duration = Duration::from_secs(15);
/// What a launch answers if a block did not end.
const ENDLESS: c_int = 2;

type EmulatedLaunch = unsafe extern "C" fn(
    kernel: *const c_char,
    grid: *const u32,
    threads: u32,
    shared_bytes: u32,
    arguments: *const c_void,
    argument_bytes: usize,
    os_threads: u32,
    seed: u64,
    tick_ms: u32,
    message: *mut c_char,
    message_bytes: usize,
) -> c_int;

/// A runtime that computes on the host.
pub(crate) struct Emulated {
    sources: Sources,
    compiler: HostCompiler,
    threads: usize,
    seed: u64,
    /// Processor time that a block may take at least; from twice of it on it is taken to be endless.
    patience: Duration,
    /// Kernels that did not end, and what was said of them: they are not tried again.
    endless: HashMap<&'static str, String>,
    units: HashMap<&'static str, EmulatedLaunch>,
    memory: BTreeMap<u64, GuardedMemory>,
    limit: Option<usize>,
    reserved: usize,
    marks: Vec<Instant>,
}

impl Emulated {
    /// On `threads` threads of this machine. The order of blocks, warps and lanes is drawn from `seed`; 0 is the
    /// natural order.
    ///
    /// # Errors
    /// When there is no C++ compiler.
    pub fn new(sources: Sources, threads: usize, seed: u64) -> Result<Self> {
        Ok(Self {
            sources,
            compiler: HostCompiler::find()?,
            threads,
            seed,
            patience: PATIENCE,
            endless: HashMap::new(),
            units: HashMap::new(),
            memory: BTreeMap::new(),
            limit: None,
            reserved: 0,
            marks: Vec::new(),
        })
    }

    /// Memory beyond `bytes` in all is refused.
    #[must_use]
    #[cfg(test)]
    pub fn with_limit(mut self, bytes: usize) -> Self {
        self.limit = Some(bytes);
        self
    }

    /// Compiles units that will be launched, several at a time.
    ///
    /// # Errors
    /// When one does not compile.
    pub fn prepare(&mut self, units: &[&'static TranslationUnit]) -> Result<()> {
        let missing: Vec<&TranslationUnit> =
            units.iter().copied().filter(|u| !self.units.contains_key(u.name)).collect();
        let pool = start_pool(self.threads.min(missing.len()))?;
        let made = map(missing, pool.as_ref(), |unit| Ok((unit.name, self.compiler.load(&self.sources, unit)?)));
        self.units.extend(made.into_iter().collect::<Result<Vec<_>>>()?);
        Ok(())
    }

    /// The memory in which `bytes` from `at` on lie.
    fn within(&self, at: Address, bytes: usize) -> Result<*mut u8> {
        let inside = self.memory.range(..=at.0).next_back().and_then(|(start, memory)| {
            let offset = usize::try_from(at.0 - start).ok()?;
            (offset <= memory.bytes && bytes <= memory.bytes - offset).then(|| memory.at(offset))
        });
        inside.ok_or_else(|| Error::device(format!("{bytes} bytes at {:#x} are not in allocated memory", at.0)))
    }

    fn check_guards(&self, kernel: &str) -> Result<()> {
        let Some((memory, byte)) = self.memory.values().find_map(|m| Some((m, m.violated()?))) else { return Ok(()) };
        let error =
            Error::device(format!("kernel {kernel} wrote to byte {byte} of a buffer of {} bytes", memory.bytes));
        // The next launch is not to answer for it.
        self.memory.values().for_each(GuardedMemory::guard);
        Err(error)
    }
}

impl Runtime for Emulated {
    fn machine(&self) -> Machine {
        Machine {
            device: "emulated".into(),
            name: "C++ on this machine".into(),
            architecture: "host".into(),
            // Few, so that small layers try large tiles too.
            processors: 2,
            free_bytes: self.limit.map(|limit| (limit - self.reserved) as u64),
        }
    }

    fn allocate(&mut self, bytes: usize) -> Result<Address, Refusal> {
        let fits = self.limit.is_none_or(|limit| bytes <= limit - self.reserved);
        let memory = if fits { GuardedMemory::new(bytes) } else { None };
        let memory = memory.ok_or(Refusal::OutOfMemory)?;
        let at = memory.at(0) as u64;
        self.reserved += bytes;
        self.memory.insert(at, memory);
        Ok(Address(at))
    }

    fn free(&mut self, at: Address) {
        let memory = self.memory.remove(&at.0);
        debug_assert!(memory.is_some(), "{:#x} was not allocated", at.0);
        self.reserved -= memory.map_or(0, |m| m.bytes);
    }

    fn upload(&mut self, to: Address, bytes: &[u8]) -> Result<()> {
        let to = self.within(to, bytes.len())?;
        // SAFETY: `to` begins that many bytes of our own memory, which no Rust reference points into.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) };
        Ok(())
    }

    fn download(&mut self, from: Address, bytes: &mut [u8]) -> Result<()> {
        let from = self.within(from, bytes.len())?;
        // SAFETY: as for uploads; the memory was initialised when it was allocated.
        unsafe { std::ptr::copy_nonoverlapping(from, bytes.as_mut_ptr(), bytes.len()) };
        Ok(())
    }

    fn launch(
        &mut self,
        unit: &'static TranslationUnit,
        kernel: &'static str,
        launch: Launch,
        arguments: Packed<'_>,
    ) -> Result<()> {
        if let Some(before) = self.endless.get(kernel) {
            return Err(Error::device(before.as_str()));
        }
        self.prepare(&[unit])?;
        let function = self.units.get(unit.name).ok_or_else(|| Error::device(format!("no unit {}", unit.name)))?;
        let name = CString::new(kernel).map_err(|_| Error::device("a kernel's name holds a zero"))?;
        let mut message = [0u8; MESSAGE_BYTES];
        // SAFETY: the library was made of `emu.cpp`, whose function this is. Pointers are to live memory of the sizes
        // that are told; the function checks the size of the arguments against the kernel's.
        let status = unsafe {
            function(
                name.as_ptr(),
                launch.grid.as_ptr(),
                launch.threads,
                launch.shared_bytes,
                arguments.pointer,
                arguments.bytes,
                u32::try_from(self.threads).unwrap_or(1),
                self.seed,
                u32::try_from(self.patience.as_millis()).unwrap_or(u32::MAX),
                message.as_mut_ptr().cast(),
                MESSAGE_BYTES,
            )
        };
        if status != 0 {
            let text = CStr::from_bytes_until_nul(&message).map(CStr::to_string_lossy).unwrap_or_default();
            let mut text = text.into_owned();
            if status == ENDLESS {
                text += &format!(": {} s of processor time were not enough for a block", self.patience.as_secs_f64());
                self.endless.insert(kernel, text.clone());
            }
            return Err(Error::device(text));
        }
        self.check_guards(kernel)
    }

    fn wait(&mut self) -> Result<()> {
        Ok(())
    }

    fn mark(&mut self) -> Result<()> {
        self.marks.push(Instant::now());
        Ok(())
    }

    fn elapsed(&mut self) -> Result<Vec<Duration>> {
        let marks = std::mem::take(&mut self.marks);
        Ok(marks.windows(2).map(|pair| pair[1] - pair[0]).collect())
    }
}

/// Bytes between two guard zones.
struct GuardedMemory {
    start: NonNull<u8>,
    bytes: usize,
    layout: Layout,
}

// SAFETY: it owns what it points to, and is only reached through its owner.
unsafe impl Send for GuardedMemory {}

impl GuardedMemory {
    fn new(bytes: usize) -> Option<Self> {
        let whole = bytes.checked_next_multiple_of(ALIGNMENT)?.checked_add(2 * GUARD_BYTES)?;
        let layout = Layout::from_size_align(whole, ALIGNMENT).ok()?;
        // SAFETY: the layout is not empty.
        let start = NonNull::new(unsafe { alloc(layout) })?;
        // SAFETY: that many bytes were just given to us.
        unsafe { start.as_ptr().write_bytes(POISON, whole) };
        Some(Self { start, bytes, layout })
    }

    /// Fills the guard zones.
    fn guard(&self) {
        let end = GUARD_BYTES + self.bytes;
        for (from, bytes) in [(0, GUARD_BYTES), (end, self.layout.size() - end)] {
            // SAFETY: both zones are in the allocation; no kernel runs now.
            unsafe { self.start.as_ptr().add(from).write_bytes(POISON, bytes) };
        }
    }

    /// The byte `offset` of those between the zones; at most their number.
    fn at(&self, offset: usize) -> *mut u8 {
        // SAFETY: the zone before it and all bytes between the zones are in the allocation.
        unsafe { self.start.as_ptr().add(GUARD_BYTES + offset) }
    }

    /// The first byte of a guard zone that was written, counted from the start of the memory.
    fn violated(&self) -> Option<isize> {
        let end = GUARD_BYTES + self.bytes;
        [(0, GUARD_BYTES), (end, self.layout.size() - end)].into_iter().find_map(|(from, bytes)| {
            // SAFETY: both zones are in the allocation and were initialised; no kernel runs now.
            let zone = unsafe { std::slice::from_raw_parts(self.start.as_ptr().add(from), bytes) };
            let untouched = zone.chunks(UNTOUCHED.len()).all(|part| part == &UNTOUCHED[..part.len()]);
            let byte = if untouched { None } else { zone.iter().position(|&b| b != POISON) }?;
            Some((from + byte) as isize - GUARD_BYTES as isize)
        })
    }
}

impl Drop for GuardedMemory {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout, once.
        unsafe { dealloc(self.start.as_ptr(), self.layout) };
    }
}

/// A C++ compiler that answers.
#[derive(Debug, Clone)]
struct HostCompiler {
    asked: CompilerCommand,
    /// Where libraries are kept.
    place: Arc<LibraryFolder>,
}

/// A command that compiles C++.
#[derive(Debug, Clone)]
struct CompilerCommand {
    /// The program and what always comes first; not empty.
    command: Vec<String>,
    /// What it says of itself.
    version: String,
}

/// Each library once in a process, however many engines ask for it; nothing is unloaded.
static LOADED: Mutex<BTreeMap<String, UnitSlot>> = Mutex::new(BTreeMap::new());

/// A unit's function, or why there is none: what does not compile is not tried again.
type UnitSlot = Arc<Mutex<Option<Result<EmulatedLaunch, String>>>>;

impl HostCompiler {
    fn find() -> Result<Self> {
        static FOUND: OnceLock<Option<CompilerCommand>> = OnceLock::new();
        let asked = std::env::var("CXX").ok().filter(|c| !c.trim().is_empty());
        let found = FOUND.get_or_init(|| {
            let candidates = asked.as_ref().map_or(vec!["c++", "g++", "clang++"], |c| vec![c.as_str()]);
            candidates.into_iter().find_map(Self::ask)
        });
        let missing = || {
            Error::no_device(match asked {
                Some(cxx) => format!("there is no emulated device: the C++ compiler {cxx} of CXX does not run"),
                None => {
                    "there is no emulated device: no C++ compiler (c++, g++, clang++) was found; CXX names one".into()
                }
            })
        };
        Ok(Self { asked: found.clone().ok_or_else(missing)?, place: LibraryFolder::of_user() })
    }

    fn ask(command: &str) -> Option<CompilerCommand> {
        let command: Vec<String> = command.split_whitespace().map(String::from).collect();
        let (program, first) = command.split_first()?;
        // It will be run from another folder.
        let program = if program.contains('/') { std::path::absolute(program).ok()? } else { program.into() };
        let command: Vec<String> = std::iter::once(program.to_str()?.to_owned()).chain(first.iter().cloned()).collect();
        let (program, first) = command.split_first()?;
        let answer = Command::new(program).args(first).arg("--version").output().ok()?;
        let version = String::from_utf8_lossy(&answer.stdout).into_owned();
        answer.status.success().then_some(CompilerCommand { command, version })
    }

    fn flags(&self) -> impl Iterator<Item = &'static str> {
        let frames = if self.asked.version.contains("clang") { FRAMES_CLANG } else { FRAMES_GCC };
        FLAGS.iter().chain(frames).copied()
    }

    /// The unit's function, from a library that is loaded, kept from an earlier run, or made now.
    fn load(&self, sources: &Sources, unit: &TranslationUnit) -> Result<EmulatedLaunch> {
        let texts = texts(sources, unit)?;
        let defines: Vec<String> = unit.defines.iter().map(|(name, value)| format!("-D{name}={value}")).collect();
        let key = self.key(&texts, &defines);
        let slot = Arc::clone(LOADED.lock().unwrap_or_else(PoisonError::into_inner).entry(key.clone()).or_default());
        let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
        let made = slot.get_or_insert_with(|| self.make(&texts, &defines, &key, unit).map_err(|e| e.to_string()));
        made.clone().map_err(Error::device)
    }

    fn make(&self, texts: &[Text], defines: &[String], key: &str, unit: &TranslationUnit) -> Result<EmulatedLaunch> {
        let library = self.place.folder.join(format!("{}-{}.so", unit.name, &key[..KEY_DIGITS]));
        // Another process may trim it away in between: then it is made.
        let kept = whole(&library).and_then(|_| open(&library).ok());
        if let Some(function) = kept {
            return Ok(function);
        }
        // A copy of its own: the kept object may be trimmed by another process.
        let object = (OBJECT, Cow::from(self.object()?));
        let files = texts.iter().map(bytes_of).chain([object]);
        let mut arguments = vec![OsStr::new("-shared"), OsStr::new("-x"), OsStr::new("c++"), unit.file.as_ref()];
        arguments.extend(["-x", "none", OBJECT].map(OsStr::new));
        arguments.extend(TIMERS.iter().map(OsStr::new));
        arguments.extend(defines.iter().map(OsStr::new));
        self.compile(files, &arguments, &library)
            .map_err(|e| e.within(format!("{} (unit {})", unit.file, unit.name)))?;
        open(&library).map_err(|e| Error::device(format!("{}: {e}", library.display())))
    }

    /// What runs the kernels of every unit, compiled.
    fn object(&self) -> Result<Vec<u8>> {
        static MAKING: Mutex<()> = Mutex::new(());
        let texts: Vec<_> = SHIM.iter().map(|&(name, text)| (name, Cow::from(text))).collect();
        let object = self.place.folder.join(format!("emu-{}.o", &self.key(&texts, &[])[..KEY_DIGITS]));
        let _making = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(whole) = whole(&object) {
            return Ok(whole);
        }
        let arguments = ["-c", "emu.cpp"].map(OsStr::new);
        self.compile(texts.iter().map(bytes_of), &arguments, &object).map_err(|e| e.within("emu.cpp"))?;
        whole(&object).ok_or_else(|| Error::device(format!("{}: it is gone again", object.display())))
    }

    /// Of everything that a compiled file depends on.
    fn key(&self, texts: &[Text], defines: &[String]) -> String {
        let mut hash = Sha256::new();
        let mut add = |part: &str| {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part.as_bytes());
        };
        texts.iter().for_each(|(name, text)| [*name, &**text].into_iter().for_each(&mut add));
        self.flags().for_each(&mut add);
        defines.iter().for_each(|define| add(define));
        self.asked.command.iter().for_each(|part| add(part));
        add(&self.asked.version);
        add(processor());
        hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Makes `target` of the files, in a folder of their own.
    fn compile<'a>(
        &self,
        files: impl Iterator<Item = (&'a str, Cow<'a, [u8]>)>,
        arguments: &[&OsStr],
        target: &Path,
    ) -> Result<()> {
        let folder = Workplace::beside(target)?;
        for (name, bytes) in files {
            let path = folder.0.join(name);
            std::fs::write(&path, bytes).map_err(|e| Error::io(&path, e))?;
        }
        let mut command = Command::new(&self.asked.command[0]);
        command
            .args(&self.asked.command[1..])
            .args(self.flags())
            .args(arguments)
            .args(["-o", "made"])
            .current_dir(&folder.0);
        let done = command.output().map_err(|e| Error::device(format!("the C++ compiler does not run: {e}")))?;
        if !done.status.success() {
            let log = String::from_utf8_lossy(&done.stderr).into_owned();
            return Err(Error::device(format!("this does not compile:\n{log}")));
        }
        let made = folder.0.join("made");
        let digest = digest(&made).ok_or_else(|| Error::device("the C++ compiler left nothing behind"))?;
        std::fs::rename(made, target).map_err(|e| Error::io(target, e))?;
        let beside = folder.0.join("digest");
        std::fs::write(&beside, digest).map_err(|e| Error::io(&beside, e))?;
        std::fs::rename(beside, digest_of(target)).map_err(|e| Error::io(target, e))
    }
}

/// SHA-256 of a file; none if it cannot be read.
fn digest(path: &Path) -> Option<[u8; 32]> {
    Some(Sha256::digest(read_file(path).ok()?).into())
}

/// Where the digest of a kept file lies.
fn digest_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".sha256");
    name.into()
}

/// A kept file, if it is what it was when it was made: loading a damaged library can end the process.
fn whole(path: &Path) -> Option<Vec<u8>> {
    let bytes = read_file(path).ok()?;
    let kept = read_file(&digest_of(path)).ok()?;
    if kept != Sha256::digest(&bytes).as_slice() {
        return None;
    }
    cache::used(path);
    Some(bytes)
}

/// Which of a kept file's parts a name is.
fn part(name: &str) -> Option<CacheFile<'_>> {
    let (stem, rest) = name.split_once('.')?;
    let (_, key) = stem.rsplit_once('-')?;
    let rest = rest.strip_suffix(".sha256").unwrap_or(rest);
    let number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    match (rest, rest.split_once('-')) {
        _ if !cache::is_key(key, KEY_DIGITS) => None,
        ("so" | "o", _) => Some(CacheFile::Of(stem)),
        (_, Some((process, of_process))) if number(process) && number(of_process) => Some(CacheFile::Unfinished),
        _ => None,
    }
}

/// Name and text of a file.
type Text = (&'static str, Cow<'static, str>);

fn bytes_of<'a>((name, text): &'a Text) -> (&'a str, Cow<'a, [u8]>) {
    (name, Cow::from(text.as_bytes()))
}

/// Every file that a unit needs.
fn texts(sources: &Sources, unit: &TranslationUnit) -> Result<Vec<Text>> {
    let mut texts = sources.headers()?;
    texts.push((unit.file, sources.text(unit.file)?));
    texts.extend(SHIM.iter().map(|&(name, text)| (name, Cow::from(text))));
    Ok(texts)
}

fn open(library: &Path) -> Result<EmulatedLaunch, libloading::Error> {
    // SAFETY: the library's initialisers only note which kernels it has.
    let library = unsafe { Library::new(library) }?;
    // SAFETY: the function has this signature in `emu.cpp`, which is part of what the library is named by.
    let function = *unsafe { library.get::<EmulatedLaunch>(b"emulated_launch") }?;
    // The function is called as long as the process lives.
    std::mem::forget(library);
    Ok(function)
}

/// What the compiler makes of `native`.
fn processor() -> &'static str {
    static FLAGS: OnceLock<String> = OnceLock::new();
    FLAGS.get_or_init(|| {
        let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with("flags") || line.starts_with("Features"));
        line.unwrap_or_default().to_string()
    })
}

/// A folder in which libraries are kept.
#[derive(Debug)]
struct LibraryFolder {
    folder: PathBuf,
    /// Whether it goes with the last device of this process.
    passing: bool,
}

impl LibraryFolder {
    fn kept(folder: PathBuf) -> Self {
        Self { folder, passing: false }
    }

    /// In the user's folder for caches; where there is none, a folder that all devices of this process share.
    fn of_user() -> Arc<Self> {
        static PASSING: Mutex<Weak<LibraryFolder>> = Mutex::new(Weak::new());
        let usable = cache::folder(|name| std::env::var_os(name)).map(|place| place.join("emulated"));
        // The compiler runs in another folder.
        let usable = usable.and_then(|place| std::path::absolute(place).ok());
        let usable = usable.filter(|place| std::fs::create_dir_all(place).is_ok());
        if let Some(folder) = usable {
            return Arc::new(Self::kept(folder));
        }
        let mut shared = PASSING.lock().unwrap_or_else(PoisonError::into_inner);
        shared.upgrade().unwrap_or_else(|| {
            let made = Arc::new(Self { folder: own_folder(), passing: true });
            *shared = Arc::downgrade(&made);
            made
        })
    }
}

impl Drop for LibraryFolder {
    fn drop(&mut self) {
        if self.passing {
            // Libraries that are loaded need no file. What cannot be removed stays.
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }
}

/// A folder for this process alone: what others could write must not be loaded.
fn own_folder() -> PathBuf {
    let mut builder = std::fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    let name = |n: u32| std::env::temp_dir().join(format!("verilume-{}-{n}", std::process::id()));
    // A name that is taken already may be somebody else's.
    let made = (0..100).map(name).find(|folder| builder.create(folder).is_ok());
    made.unwrap_or_else(|| name(100).join("nowhere"))
}

/// A folder that is gone when the work is done.
struct Workplace(PathBuf);

impl Workplace {
    fn beside(file: &Path) -> Result<Self> {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        if let (true, Some(folder)) = (number.is_multiple_of(cache::TRIM_EVERY), file.parent()) {
            cache::trim(folder, cache::BOUNDS, part);
        }
        let folder = file.with_extension(format!("{}-{number}", std::process::id()));
        std::fs::create_dir_all(&folder).map_err(|e| Error::io(&folder, e))?;
        Ok(Self(folder))
    }
}

impl Drop for Workplace {
    fn drop(&mut self) {
        // What cannot be removed stays.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests;
