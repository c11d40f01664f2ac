//! The run-time compiler NVRTC: finding it, and making images of units.
//!
//! Its functions are taken from the library that the search found, not looked up by name again: the loader could answer
//! with another version.

use std::ffi::{CString, c_char, c_int, c_void};
use std::path::{Path, PathBuf};

use super::cache::{Cache, ImageKey};
use super::library::{functions, load};
use super::search::{self, FoundLibraries};
use super::source::{Sources, TranslationUnit};
use crate::error::{Error, Result};

type ProgramHandle = *mut c_void;

/// What other compilers have built in, `arguments.cuh` uses, and NVRTC knows under another name only.
const OFFSETOF: &str = "-D__builtin_offsetof(type,member)=__INTADDR__(&((type*)0)->member)";

functions! {
    /// What of NVRTC is used.
    Calls {
        fn nvrtcVersion(*mut c_int, *mut c_int);
        fn nvrtcGetNumSupportedArchs(*mut c_int);
        fn nvrtcGetSupportedArchs(*mut c_int);
        fn nvrtcCreateProgram(
            *mut ProgramHandle,
            *const c_char,
            *const c_char,
            c_int,
            *const *const c_char,
            *const *const c_char,
        );
        fn nvrtcDestroyProgram(*mut ProgramHandle);
        fn nvrtcCompileProgram(ProgramHandle, c_int, *const *const c_char);
        fn nvrtcGetProgramLogSize(ProgramHandle, *mut usize);
        fn nvrtcGetProgramLog(ProgramHandle, *mut c_char);
        fn nvrtcGetCUBINSize(ProgramHandle, *mut usize);
        fn nvrtcGetCUBIN(ProgramHandle, *mut c_char);
        fn nvrtcGetPTXSize(ProgramHandle, *mut usize);
        fn nvrtcGetPTX(ProgramHandle, *mut c_char);
    }
}

/// What ptxas says of a kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct KernelResources {
    /// As in [`TranslationUnit::kernels`].
    pub kernel: &'static str,
    /// Registers of a thread.
    pub registers: u32,
    /// Static shared memory of a block.
    pub shared_bytes: u32,
    /// Local memory of a thread.
    pub stack_bytes: u32,
    /// What a thread writes since registers were too few.
    pub spill_stores_bytes: u32,
    /// What it reads back.
    pub spill_loads_bytes: u32,
}

/// A unit as a device takes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Compiled {
    /// A cubin for `sm_NN`; PTX with a zero at its end for `compute_NN`.
    pub image: Vec<u8>,
    /// What the compiler says, warnings and resources.
    pub log: String,
    /// Of each kernel in the unit's order; empty for PTX, which has no registers yet.
    pub kernels: Vec<KernelResources>,
}

impl Compiled {
    fn new(unit: &TranslationUnit, image: Vec<u8>, log: String) -> Self {
        let kernels = resources(unit, &log);
        Self { image, log, kernels }
    }
}

/// A run-time compiler that answers.
#[derive(Debug)]
pub(crate) struct Nvrtc {
    calls: Calls,
    path: PathBuf,
    version: [i32; 2],
    architectures: Vec<i32>,
}

impl Nvrtc {
    /// The first that works where [`search::look`] looks and on the loader's path. Those that are newer than a driver of
    /// CUDA version `driver` come last.
    ///
    /// # Errors
    /// When there is none; the message says where it was looked for.
    pub fn open(driver: Option<[i32; 2]>) -> Result<Self> {
        Self::first_of(search::look(&|name| std::env::var_os(name), Path::new("/")), driver)
    }

    fn first_of(found: FoundLibraries, driver: Option<[i32; 2]>) -> Result<Self> {
        let FoundLibraries { folders, mut files, named } = found;
        if !named {
            files.extend(search::NAMES.iter().map(PathBuf::from));
        }
        let newest = driver.map_or(i32::MAX, |[major, _]| major);
        files.sort_by_key(|file| major(file).is_some_and(|major| major > newest));
        let mut broken = Vec::new();
        for path in files {
            match Self::at(&path) {
                Ok(compiler) => return Ok(compiler),
                // What the loader does not find by its bare name is not there.
                Err(why) if path.is_absolute() || !why.contains("No such file") => {
                    broken.push(format!("{}: {why}", path.display()));
                }
                Err(_) => {}
            }
        }
        let names = search::NAMES.join(" or ");
        let places: Vec<String> = folders.iter().map(|folder| folder.display().to_string()).collect();
        Err(Error::no_device(if !broken.is_empty() {
            format!("NVRTC is there but unusable ({})", broken.join("; "))
        } else if named {
            format!("NVRTC was not found: the folder that {} names has no {names}", search::FOLDER)
        } else {
            let and = if places.is_empty() { String::new() } else { format!(" nor in {}", places.join(", ")) };
            format!(
                "NVRTC was not found ({names} is not on the loader's path{and}); \
                 `pip install nvidia-cuda-nvrtc` brings it, or set {} to the folder that holds it",
                search::FOLDER
            )
        }))
    }

    /// The compiler in the library `path`.
    pub(super) fn at(path: &Path) -> Result<Self, String> {
        if let (true, Some(folder)) = (path.is_absolute(), path.parent()) {
            load_builtins(folder, major(path));
        }
        let calls = Calls::of(load(path)?)?;
        let check = |call: &str, status: c_int| match status {
            0 => Ok(()),
            _ => Err(format!("{call} failed with status {status}")),
        };
        let (mut major, mut minor, mut count) = (0, 0, 0);
        // SAFETY: both pointers are to live integers, which the call writes.
        check("nvrtcVersion", unsafe { (calls.nvrtcVersion)(&raw mut major, &raw mut minor) })?;
        // SAFETY: as above.
        check("nvrtcGetNumSupportedArchs", unsafe { (calls.nvrtcGetNumSupportedArchs)(&raw mut count) })?;
        let mut architectures = vec![0; usize::try_from(count).unwrap_or(0)];
        // SAFETY: the call writes as many integers as it has just said.
        check("nvrtcGetSupportedArchs", unsafe { (calls.nvrtcGetSupportedArchs)(architectures.as_mut_ptr()) })?;
        architectures.sort_unstable();
        Ok(Self { calls, path: path.to_path_buf(), version: [major, minor], architectures })
    }

    /// CUDA version `[major, minor]`.
    pub fn version(&self) -> [i32; 2] {
        self.version
    }

    /// The file, or the name that the loader resolved.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Compute capabilities that it compiles for, `90` for 9.0, in ascending order.
    pub fn architectures(&self) -> &[i32] {
        &self.architectures
    }

    /// Compiles a unit for an architecture: `sm_90a`, `compute_80`.
    ///
    /// # Errors
    /// When it does not compile ([`crate::ErrorKind::Kernel`]; the message holds the file and the compiler's log) or a
    /// source cannot be read.
    pub fn compile(&self, unit: &TranslationUnit, sources: &Sources, architecture: &str) -> Result<Compiled> {
        let parts = ImageParts::of(unit, sources, architecture)?;
        let fail = |why: String| Error::kernel(format!("{} ({}) for {architecture}: {why}", unit.file, unit.name));
        let texts = |texts: Vec<&str>| -> Result<Vec<CString>> {
            let all = texts.into_iter().map(CString::new).collect::<Result<_, _>>();
            all.map_err(|_| fail("the text holds a zero byte".into()))
        };
        let named = texts(vec![&parts.text, unit.file])?;
        let names = texts(parts.headers.iter().map(|(name, _)| *name).collect())?;
        let headers = texts(parts.headers.iter().map(|(_, text)| &**text).collect())?;
        let options = texts(parts.options.iter().map(String::as_str).collect())?;
        let pointers = |texts: &[CString]| texts.iter().map(|text| text.as_ptr()).collect::<Vec<_>>();
        let (names_at, headers_at, options_at) = (pointers(&names), pointers(&headers), pointers(&options));

        let check = |call: &str, status: c_int| match status {
            0 => Ok(()),
            _ => Err(fail(format!("{call} failed with status {status}"))),
        };
        let mut program = Owned { calls: &self.calls, program: std::ptr::null_mut() };
        // SAFETY: all texts end with a zero and outlive the call, which copies them; both arrays have as many pointers as
        // the count says.
        check("nvrtcCreateProgram", unsafe {
            (self.calls.nvrtcCreateProgram)(
                &raw mut program.program,
                named[0].as_ptr(),
                named[1].as_ptr(),
                names_at.len() as c_int,
                headers_at.as_ptr(),
                names_at.as_ptr(),
            )
        })?;
        // SAFETY: the program was made above, and there are as many options as the count says.
        let compiled = unsafe {
            (self.calls.nvrtcCompileProgram)(program.program, options_at.len() as c_int, options_at.as_ptr())
        };
        let log = program.bytes(self.calls.nvrtcGetProgramLogSize, self.calls.nvrtcGetProgramLog);
        let log = log.map(|log| String::from_utf8_lossy(&log).trim_end_matches(['\0', '\n']).to_owned());
        if compiled != 0 {
            let log = log.ok().filter(|log| !log.is_empty());
            return Err(fail(match log {
                Some(log) => format!("the kernel does not compile\n{log}"),
                None => format!("the kernel does not compile (status {compiled}, and the compiler says nothing)"),
            }));
        }
        let log = log.or_else(|status| check("nvrtcGetProgramLog", status).map(|()| String::new()))?;
        let image = if is_virtual(architecture) {
            program.bytes(self.calls.nvrtcGetPTXSize, self.calls.nvrtcGetPTX)
        } else {
            program.bytes(self.calls.nvrtcGetCUBINSize, self.calls.nvrtcGetCUBIN)
        };
        match image {
            Ok(image) if !image.is_empty() => Ok(Compiled::new(unit, image, log)),
            Ok(_) => Err(fail("the compiler gave no image".into())),
            Err(status) => Err(fail(format!("the image was not given (status {status})"))),
        }
    }

    /// As [`Nvrtc::compile`], unless `cache` has it from before.
    ///
    /// # Errors
    /// As [`Nvrtc::compile`].
    pub fn compile_once(
        &self,
        cache: &Cache,
        unit: &TranslationUnit,
        sources: &Sources,
        architecture: &str,
    ) -> Result<Compiled> {
        let parts = ImageParts::of(unit, sources, architecture)?;
        let mut key: Vec<&[u8]> = vec![unit.file.as_bytes(), parts.text.as_bytes()];
        key.extend(parts.headers.iter().flat_map(|(name, text)| [name.as_bytes(), text.as_bytes()]));
        key.extend(parts.options.iter().map(String::as_bytes));
        let version = format!("NVRTC {}.{}", self.version[0], self.version[1]);
        key.extend([architecture.as_bytes(), version.as_bytes()]);
        let key = ImageKey::of(&key);
        if let Some((image, log)) = cache.get(&key) {
            return Ok(Compiled::new(unit, image, log));
        }
        let compiled = self.compile(unit, sources, architecture)?;
        cache.put(&key, &compiled.image, &compiled.log);
        Ok(compiled)
    }
}

/// Everything that an image is made from, but for the compiler.
struct ImageParts {
    text: std::borrow::Cow<'static, str>,
    headers: Vec<(&'static str, std::borrow::Cow<'static, str>)>,
    options: Vec<String>,
}

impl ImageParts {
    fn of(unit: &TranslationUnit, sources: &Sources, architecture: &str) -> Result<Self> {
        let options = options(unit, architecture);
        Ok(Self { text: sources.text(unit.file)?, headers: sources.headers()?, options })
    }
}

/// What the compiler is told of a unit.
pub(crate) fn options(unit: &TranslationUnit, architecture: &str) -> Vec<String> {
    let mut options: Vec<String> = vec![format!("--gpu-architecture={architecture}")];
    // One rounding an operation: kernels name fused operations themselves.
    options.extend(["--std=c++17", "-default-device", "--fmad=false", "-lineinfo", OFFSETOF].map(String::from));
    if !is_virtual(architecture) {
        options.push("--ptxas-options=-v".into());
    }
    options.extend(unit.defines.iter().map(|(name, value)| format!("-D{name}={value}")));
    options
}

/// `compute_NN`: PTX that the driver compiles.
fn is_virtual(architecture: &str) -> bool {
    architecture.starts_with("compute_")
}

/// A program that is destroyed when it is dropped.
struct Owned<'a> {
    calls: &'a Calls,
    program: ProgramHandle,
}

impl Owned<'_> {
    /// What `get` writes, of which `size` tells the length.
    fn bytes(
        &self,
        size: unsafe extern "C" fn(ProgramHandle, *mut usize) -> c_int,
        get: unsafe extern "C" fn(ProgramHandle, *mut c_char) -> c_int,
    ) -> Result<Vec<u8>, c_int> {
        let mut len = 0;
        // SAFETY: the program is alive, the pointer is to a live integer, which the call writes.
        let status = unsafe { size(self.program, &raw mut len) };
        if status != 0 {
            return Err(status);
        }
        let mut bytes = vec![0u8; len];
        // SAFETY: the call writes as many bytes as `size` has just told.
        let status = unsafe { get(self.program, bytes.as_mut_ptr().cast()) };
        if status == 0 { Ok(bytes) } else { Err(status) }
    }
}

impl Drop for Owned<'_> {
    fn drop(&mut self) {
        if !self.program.is_null() {
            // SAFETY: the program was made by `nvrtcCreateProgram` and is not used any more.
            unsafe { (self.calls.nvrtcDestroyProgram)(&raw mut self.program) };
        }
    }
}

/// The `13` of `libnvrtc.so.13` and of `nvrtc64_130_0.dll`.
fn major(file: &Path) -> Option<i32> {
    let name = file.file_name()?.to_str()?;
    let digits = name.strip_prefix("libnvrtc.so.").or_else(|| name.strip_prefix("nvrtc64_"))?;
    digits.get(..2)?.parse().ok()
}

/// Loads the part that the compiler asks the loader for by name only: what is already loaded is found then.
fn load_builtins(folder: &Path, major: Option<i32>) {
    let prefix = match major {
        _ if cfg!(windows) => "nvrtc-builtins64_".to_owned(),
        Some(major) => format!("libnvrtc-builtins.so.{major}"),
        None => return,
    };
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(&prefix) {
            // If it cannot be loaded, the compiler's log says so.
            load(entry.path()).ok();
        }
    }
}

/// What `--ptxas-options=-v` wrote about the kernels of `unit`; those it does not mention are left out.
fn resources(unit: &TranslationUnit, log: &str) -> Vec<KernelResources> {
    let mut found: Vec<KernelResources> =
        unit.kernels.iter().map(|k| KernelResources { kernel: k.name, ..Default::default() }).collect();
    let mut seen = vec![false; found.len()];
    let place = |name: &str| unit.kernels.iter().position(|k| k.name == name);
    // Properties may be those of a function that the kernel calls.
    let (mut kernel, mut function) = (None, None);
    for line in log.lines() {
        if let Some((_, rest)) = line.split_once("Compiling entry function '") {
            kernel = rest.split('\'').next().and_then(place);
            function = kernel;
        } else if let Some((_, name)) = line.split_once("Function properties for ") {
            function = place(name.trim().trim_matches('\''));
        }
        if let (Some(at), Some(bytes)) = (function, number_before(line, " bytes stack frame")) {
            found[at].stack_bytes = bytes;
            found[at].spill_stores_bytes = number_before(line, " bytes spill stores").unwrap_or(0);
            found[at].spill_loads_bytes = number_before(line, " bytes spill loads").unwrap_or(0);
        }
        if let (Some(at), Some(registers)) = (kernel, number_before(line, " registers")) {
            found[at].registers = registers;
            found[at].shared_bytes = number_before(line, " bytes smem").unwrap_or(0);
            seen[at] = true;
        }
    }
    found.into_iter().zip(seen).filter(|(_, seen)| *seen).map(|(resources, _)| resources).collect()
}

/// The number that stands directly before `phrase`.
fn number_before(line: &str, phrase: &str) -> Option<u32> {
    let before = &line[..line.find(phrase)?];
    before.rsplit(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::cuda::source::{COUNT, Kernel, UNITS};
    use crate::error::ErrorKind;

    const NAMED: TranslationUnit = TranslationUnit {
        name: "named",
        file: "named.cu",
        defines: &[],
        kernels: &[
            Kernel { name: "one", threads: 32, shared_bytes: 0 },
            Kernel { name: "two", threads: 32, shared_bytes: 0 },
            Kernel { name: "three", threads: 32, shared_bytes: 0 },
        ],
    };

    #[test]
    fn resources_are_read_from_the_log() {
        let log = "ptxas info    : 8 bytes gmem\n\
                   ptxas info    : Compiling entry function 'two' for 'sm_80'\n\
                   ptxas info    : Function properties for two\n\
                   ptxas         .     1392 bytes stack frame, 1540 bytes spill stores, 2052 bytes spill loads\n\
                   ptxas info    : Used 32 registers, used 1 barriers, 1392 bytes cumulative stack size, 360 bytes cmem[0]\n\
                   ptxas info    : Compile time = 77.896 ms\n\
                   ptxas info    : Compiling entry function 'other' for 'sm_80'\n\
                   ptxas info    : Function properties for other\n\
                   ptxas         .     1 bytes stack frame, 2 bytes spill stores, 3 bytes spill loads\n\
                   ptxas info    : Used 99 registers, used 0 barriers\n\
                   ptxas info    : Compiling entry function 'one' for 'sm_80'\n\
                   ptxas info    : Function properties for called\n    16 bytes stack frame, 4 bytes spill stores, 4 bytes spill loads\n\
                   ptxas info    : Function properties for one\n    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads\n\
                   ptxas info    : Used 10 registers, used 1 barriers, 144 bytes smem, 364 bytes cmem[0]\n\
                   ptxas info    : Function properties for called\n    8 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads\n";
        let one = KernelResources { kernel: "one", registers: 10, shared_bytes: 144, ..KernelResources::default() };
        let spills = KernelResources {
            kernel: "two",
            registers: 32,
            shared_bytes: 0,
            stack_bytes: 1392,
            spill_stores_bytes: 1540,
            spill_loads_bytes: 2052,
        };
        assert_eq!(resources(&NAMED, log), [one, spills]);
        for nonsense in ["", "Used registers", "Compiling entry function 'one", " bytes stack frame", "9 registers"] {
            assert_eq!(resources(&NAMED, nonsense), [], "{nonsense}");
        }
        // More than fits a number.
        let large = "Compiling entry function 'one'\nUsed 99999999999 registers";
        assert_eq!(resources(&NAMED, large), []);
    }

    #[test]
    fn a_compiler_that_is_missing_or_broken_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let found =
            |files: Vec<PathBuf>| FoundLibraries { folders: vec![folder.path().to_path_buf()], files, named: true };
        let why = Nvrtc::first_of(found(Vec::new()), None).unwrap_err();
        assert_eq!(why.kind(), ErrorKind::NoDevice);
        assert!(why.to_string().contains(search::FOLDER) && why.to_string().contains(search::NAMES[0]), "{why}");
        let file = folder.path().join(search::NAMES[0]);
        std::fs::write(&file, "no library").unwrap();
        let why = Nvrtc::first_of(found(vec![file.clone()]), None).unwrap_err().to_string();
        assert!(why.contains("unusable") && why.contains(&file.display().to_string()), "{why}");
    }

    #[test]
    fn a_library_tells_its_version_by_its_name() {
        let majors = ["libnvrtc.so.13", "/a/libnvrtc.so.12", "nvrtc64_130_0.dll", "libnvrtc.so", "libnvrtc.so.x"];
        assert_eq!(majors.map(|name| major(Path::new(name))), [Some(13), Some(12), Some(13), None, None]);
    }

    #[needs::nvrtc]
    #[test]
    fn every_unit_compiles_without_spills() {
        let nvrtc = Nvrtc::open(None).unwrap();
        for architecture in ["sm_80", "sm_90a", "sm_100a"] {
            for unit in UNITS {
                let compiled = nvrtc.compile(unit, &Sources::default(), architecture).unwrap();
                assert!(compiled.image.starts_with(b"\x7fELF"), "{} for {architecture}", unit.name);
                let names = |kernels: &[KernelResources]| kernels.iter().map(|k| k.kernel).collect::<Vec<_>>();
                let wanted: Vec<&str> = unit.kernels.iter().map(|k| k.name).collect();
                assert_eq!(names(&compiled.kernels), wanted, "{} for {architecture}: {}", unit.name, compiled.log);
                for k in &compiled.kernels {
                    assert!(k.registers > 0, "{architecture}: {k:?}");
                    assert_eq!((k.spill_stores_bytes, k.spill_loads_bytes), (0, 0), "{architecture}: {k:?}");
                }
            }
        }
    }

    #[needs::nvrtc]
    #[test]
    fn virtual_architectures_give_text_and_errors_give_the_log() {
        let nvrtc = Nvrtc::open(None).unwrap();
        assert!(nvrtc.version()[0] >= 12 && nvrtc.architectures().contains(&80), "{nvrtc:?}");
        let ptx = nvrtc.compile(&COUNT, &Sources::default(), "compute_80").unwrap();
        assert_eq!((ptx.image.last(), ptx.kernels.len()), (Some(&0), 0));
        assert!(String::from_utf8(ptx.image).unwrap().contains(".entry count("));

        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("count.cu"), "#include \"dialect.cuh\"\nint wrong = nowhere;\n").unwrap();
        let sources = Sources::of_folder(folder.path()).unwrap();
        let why = nvrtc.compile(&COUNT, &sources, "sm_80").unwrap_err();
        assert_eq!(why.kind(), ErrorKind::Kernel);
        assert!(why.to_string().contains("count.cu(2): error") && why.to_string().contains("nowhere"), "{why}");
        std::fs::write(folder.path().join("count.cu"), "int a;\0").unwrap();
        let why = nvrtc.compile(&COUNT, &sources, "sm_80").unwrap_err();
        assert!(why.to_string().contains("zero byte"), "{why}");
        let why = nvrtc.compile(&COUNT, &Sources::default(), "sm_999").unwrap_err();
        assert!(why.to_string().contains("sm_999"), "{why}");
    }

    #[needs::nvrtc]
    #[test]
    fn what_was_compiled_once_is_taken_from_the_cache() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::at(folder.path().to_path_buf());
        let nvrtc = Nvrtc::open(None).unwrap();
        let once = |architecture| nvrtc.compile_once(&cache, &COUNT, &Sources::default(), architecture).unwrap();
        let entries = || std::fs::read_dir(folder.path()).unwrap().count();
        let first = once("sm_80");
        assert_eq!((once("sm_80"), entries()), (first, 1));
        assert_eq!((once("sm_90a").kernels.len(), entries()), (1, 2));
    }
}
