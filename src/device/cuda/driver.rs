//! The runtime of NVIDIA's driver: the primary context of one device and one stream on it.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::ffi::{CString, c_int, c_void};
use std::time::Duration;

use cudarc::driver::sys::{
    CUcontext, CUdevice, CUevent, CUevent_flags, CUfunction, CUfunction_attribute, CUmodule, CUstream, CUstream_flags,
};

use super::arguments::{Address, Packed};
use super::cache::Cache;
use super::library::{FailureStatus, Libcuda};
use super::nvrtc::Nvrtc;
use super::probe::{LEAST_CAPABILITY, describe};
use super::runtime::{Launch, Machine, Refusal, Runtime};
use super::source::{Sources, TranslationUnit};
use crate::error::{Error, Result};

/// Dynamic shared memory that a kernel may have without asking for it.
const FREE_SHARED_BYTES: u32 = 48 << 10;
/// Uploads go through page-locked memory in pieces that are reused in turn.
const PIECE_BYTES: usize = 512 << 10;
const PIECES: usize = 16;
/// How many kernels are named when the device fails.
const MOST_NAMED: usize = 24;

/// A device, and what is loaded and queued on it.
#[derive(Debug)]
pub(crate) struct Cuda {
    driver: &'static Libcuda,
    nvrtc: Nvrtc,
    sources: Sources,
    cache: Cache,
    index: usize,
    device: CUdevice,
    name: String,
    processors: usize,
    target: Target,
    context: CUcontext,
    /// Null only while the device is being opened.
    stream: CUstream,
    modules: HashMap<&'static str, CUmodule>,
    functions: HashMap<&'static str, Function>,
    /// Given out and not yet given back.
    memory: BTreeSet<u64>,
    staging: Option<Staging>,
    /// The last kernels queued since the last wait, each with how often it was in a row.
    launched: VecDeque<(&'static str, usize)>,
    marks: Vec<CUevent>,
    spare_events: Vec<CUevent>,
}

// SAFETY: the driver's handles are valid on every thread of the process. Each method makes the context current on the thread
// that calls it, and none but `machine`, which changes nothing, takes less than the only reference.
unsafe impl Send for Cuda {}

#[derive(Debug, Clone, Copy)]
struct Function {
    handle: CUfunction,
    /// Dynamic shared memory that it may have.
    shared_bytes: u32,
    /// Size of its argument, where the driver tells it.
    argument_bytes: Option<usize>,
}

/// Page-locked memory: uploads are copied here first, so that the caller's memory is free again at once.
#[derive(Debug)]
struct Staging {
    /// Null if none was to be had; there are no events then.
    memory: *mut c_void,
    /// Of each piece: passed when its last copy is done.
    events: Vec<CUevent>,
    next: usize,
}

/// What units are compiled for.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Target {
    /// As the compiler takes it.
    option: String,
    /// As people are told.
    told: String,
}

impl Target {
    /// The exact architecture if the compiler knows it, else PTX for the newest before; none if that is too old.
    fn of(capability: [i32; 2], nvrtc: [i32; 2], known: &[i32]) -> Option<Self> {
        let number = |[major, minor]: [i32; 2]| major * 10 + minor;
        let exact = number(capability);
        // From Hopper on, instructions of one architecture only go by the suffix.
        let name = format!("sm_{exact}{}", if exact >= 90 { "a" } else { "" });
        if known.contains(&exact) {
            return Some(Self { option: name.clone(), told: name });
        }
        let before = known.iter().filter(|&&k| k < exact && k >= number(LEAST_CAPABILITY)).max()?;
        let option = format!("compute_{before}");
        let told = format!("{option} (PTX: NVRTC {}.{} does not know {name})", nvrtc[0], nvrtc[1]);
        Some(Self { option, told })
    }
}

impl Cuda {
    /// Device `index` of this machine; its kernels are made from `sources`.
    ///
    /// # Errors
    /// When driver, device or compiler is missing or too old ([`crate::ErrorKind::NoDevice`]), or the device fails.
    pub fn open(index: usize, sources: Sources) -> Result<Self> {
        let driver = Libcuda::get().map_err(|none| Error::no_device(format!("cuda:{index}: {}", none.why())))?;
        let nvrtc = Nvrtc::open(Some(driver.version)).map_err(|e| e.within(format!("cuda:{index}")))?;
        Self::on(driver, nvrtc, Cache::of_user(), sources, index)
    }

    fn on(driver: &'static Libcuda, nvrtc: Nvrtc, cache: Cache, sources: Sources, index: usize) -> Result<Self> {
        let absent = |why: String| Error::no_device(format!("cuda:{index}: {why}"));
        let found = describe(driver).map_err(absent)?;
        if let Some(why) = found.refusal(index) {
            return Err(absent(why));
        }
        let capability = found.capabilities[index];
        let target = Target::of(capability, nvrtc.version(), nvrtc.architectures()).ok_or_else(|| {
            let ([major, minor], [nvrtc_major, nvrtc_minor]) = (capability, nvrtc.version());
            absent(format!(
                "NVRTC {nvrtc_major}.{nvrtc_minor} compiles for nothing that compute capability {major}.{minor} runs"
            ))
        })?;
        let device = driver.device(index).map_err(absent)?;
        let mut context: CUcontext = std::ptr::null_mut();
        // SAFETY: the pointer is to a live handle, which the call writes; the device is the driver's own.
        FailureStatus::check(unsafe { (driver.calls.cuDevicePrimaryCtxRetain)(&raw mut context, device) })
            .map_err(|status| absent(driver.failure("cuDevicePrimaryCtxRetain", status)))?;
        let mut cuda = Self {
            driver,
            nvrtc,
            sources,
            cache,
            index,
            device,
            name: found.devices[index].clone(),
            processors: driver.processors(device).map_err(absent)?,
            target,
            context,
            stream: std::ptr::null_mut(),
            modules: HashMap::new(),
            functions: HashMap::new(),
            memory: BTreeSet::new(),
            staging: None,
            launched: VecDeque::new(),
            marks: Vec::new(),
            spare_events: Vec::new(),
        };
        cuda.bind()?;
        let mut stream: CUstream = std::ptr::null_mut();
        let flags = CUstream_flags::CU_STREAM_NON_BLOCKING as u32;
        // SAFETY: the pointer is to a live handle, which the call writes; the context is current.
        cuda.check("cuStreamCreate", unsafe { (driver.calls.cuStreamCreate)(&raw mut stream, flags) })?;
        cuda.stream = stream;
        Ok(cuda)
    }

    /// Makes the context current on this thread.
    fn bind(&self) -> Result<()> {
        // SAFETY: the context is retained until this value is dropped.
        self.check("cuCtxSetCurrent", unsafe { (self.driver.calls.cuCtxSetCurrent)(self.context) })
    }

    fn check(&self, call: &str, answer: c_int) -> Result<()> {
        FailureStatus::check(answer).map_err(|status| self.failed(call, status))
    }

    /// A launch may fail long after it was queued, and any later call then says so: all that may be meant are named.
    fn failed(&self, call: &str, status: FailureStatus) -> Error {
        let kernels = self.launched.iter().map(|&(kernel, times)| match times {
            1 => kernel.to_owned(),
            _ => format!("{kernel} ×{times}"),
        });
        let kernels: Vec<String> = kernels.collect();
        let queued = match kernels.len() {
            0 => String::new(),
            _ => format!("; kernels queued since the last wait: {}", kernels.join(", ")),
        };
        Error::device(format!("cuda:{}: {}{queued}", self.index, self.driver.failure(call, status)))
    }

    fn event(&mut self, flags: CUevent_flags) -> Result<CUevent> {
        let mut event: CUevent = std::ptr::null_mut();
        // SAFETY: the pointer is to a live handle, which the call writes; the context is current.
        let answer = unsafe { (self.driver.calls.cuEventCreate)(&raw mut event, flags as u32) };
        self.check("cuEventCreate", answer)?;
        Ok(event)
    }

    /// Loads the unit, compiled if need be.
    fn module(&mut self, unit: &'static TranslationUnit) -> Result<CUmodule> {
        if let Some(&module) = self.modules.get(unit.name) {
            return Ok(module);
        }
        let compiled = self.nvrtc.compile_once(&self.cache, unit, &self.sources, &self.target.option)?;
        let mut module: CUmodule = std::ptr::null_mut();
        // SAFETY: the image is a whole cubin, which tells its own length, or PTX that ends with a zero, as the compiler made
        // it or as the cache's checksum vouches; the context is current.
        let answer = unsafe { (self.driver.calls.cuModuleLoadData)(&raw mut module, compiled.image.as_ptr().cast()) };
        self.check("cuModuleLoadData", answer).map_err(|e| {
            let (driver, nvrtc) = (self.driver.version, self.nvrtc.version());
            let newer = if nvrtc[0] > driver[0] { "; an NVRTC no newer than the driver is needed" } else { "" };
            let error = format!(
                "{} ({}) for {}, made by NVRTC {}.{} for a driver of CUDA {}.{}",
                unit.file, unit.name, self.target.option, nvrtc[0], nvrtc[1], driver[0], driver[1]
            );
            Error::device(format!("{error}: {e}{newer}"))
        })?;
        self.modules.insert(unit.name, module);
        Ok(module)
    }

    /// A kernel that may have so much dynamic shared memory.
    fn function(
        &mut self,
        unit: &'static TranslationUnit,
        kernel: &'static str,
        shared_bytes: u32,
    ) -> Result<Function> {
        let mut function = match self.functions.get(kernel) {
            Some(&function) => function,
            None => self.find(unit, kernel)?,
        };
        if shared_bytes > function.shared_bytes {
            let attribute = CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            let bytes = c_int::try_from(shared_bytes).unwrap_or(c_int::MAX);
            // SAFETY: the handle is of a module that stays loaded; the context is current.
            let answer = unsafe { (self.driver.calls.cuFuncSetAttribute)(function.handle, attribute, bytes) };
            self.check(&format!("cuFuncSetAttribute ({kernel}, {shared_bytes} bytes of shared memory)"), answer)?;
            function.shared_bytes = shared_bytes;
        }
        self.functions.insert(kernel, function);
        Ok(function)
    }

    fn find(&mut self, unit: &'static TranslationUnit, kernel: &'static str) -> Result<Function> {
        let missing = || Error::device(format!("{} ({}) has no kernel {kernel}", unit.file, unit.name));
        if !unit.kernels.iter().any(|k| k.name == kernel) {
            return Err(missing());
        }
        let module = self.module(unit)?;
        let name = CString::new(kernel).map_err(|_| missing())?;
        let mut handle: CUfunction = std::ptr::null_mut();
        // SAFETY: the pointer is to a live handle, which the call writes; the name ends with a zero; the module is loaded.
        let answer = unsafe { (self.driver.calls.cuModuleGetFunction)(&raw mut handle, module, name.as_ptr()) };
        self.check(&format!("cuModuleGetFunction ({kernel})"), answer)?;
        let argument_bytes = self.driver.parameter_size.and_then(|ask| {
            let (mut offset, mut bytes) = (0, 0);
            // SAFETY: both pointers are to live integers, which the call writes; the handle is valid.
            (unsafe { ask(handle, 0, &raw mut offset, &raw mut bytes) } == 0).then_some(bytes)
        });
        Ok(Function { handle, shared_bytes: FREE_SHARED_BYTES, argument_bytes })
    }

    /// Reserves what uploads go through. Where there is none to be had, they wait instead.
    fn stage(&mut self) -> Result<()> {
        if self.staging.is_some() {
            return Ok(());
        }
        let mut memory: *mut c_void = std::ptr::null_mut();
        // SAFETY: the pointer is to a live pointer, which the call writes; the context is current.
        let answer = unsafe { (self.driver.calls.cuMemAllocHost_v2)(&raw mut memory, PIECES * PIECE_BYTES) };
        let staging = self.staging.insert(Staging { memory, events: Vec::new(), next: 0 });
        if answer != 0 {
            staging.memory = std::ptr::null_mut();
            return Ok(());
        }
        for _ in 0..PIECES {
            let event = self.event(CUevent_flags::CU_EVENT_DISABLE_TIMING)?;
            self.staging.iter_mut().for_each(|staging| staging.events.push(event));
        }
        Ok(())
    }

    fn copy_up(&self, to: Address, from: *const c_void, bytes: usize) -> Result<()> {
        // SAFETY: callers give `bytes` readable bytes that stay as they are until the copy has been waited for.
        let answer = unsafe { (self.driver.calls.cuMemcpyHtoDAsync_v2)(to.0, from, bytes, self.stream) };
        self.check("cuMemcpyHtoDAsync", answer)
    }
}

impl Runtime for Cuda {
    fn machine(&self) -> Machine {
        let (mut free, mut total) = (0, 0);
        let asked = self.bind().is_ok_and(|()| {
            // SAFETY: both pointers are to live integers, which the call writes; the context is current.
            unsafe { (self.driver.calls.cuMemGetInfo_v2)(&raw mut free, &raw mut total) == 0 }
        });
        Machine {
            device: format!("cuda:{}", self.index),
            name: self.name.clone(),
            architecture: self.target.told.clone(),
            processors: self.processors,
            free_bytes: asked.then_some(free as u64),
        }
    }

    fn allocate(&mut self, bytes: usize) -> Result<Address, Refusal> {
        self.bind().map_err(Refusal::Failed)?;
        let mut at = 0;
        // SAFETY: the pointer is to a live address, which the call writes; the context is current.
        let answer = unsafe { (self.driver.calls.cuMemAlloc_v2)(&raw mut at, bytes.max(1)) };
        match FailureStatus::check(answer) {
            Ok(()) => {
                self.memory.insert(at);
                Ok(Address(at))
            }
            Err(FailureStatus::OUT_OF_MEMORY) => Err(Refusal::OutOfMemory),
            Err(status) => Err(Refusal::Failed(self.failed("cuMemAlloc", status))),
        }
    }

    fn free(&mut self, at: Address) {
        // Kernels that use it may be queued. If they fail, the next call that can say so does.
        if self.memory.contains(&at.0) && self.wait().is_ok() {
            self.memory.remove(&at.0);
            // SAFETY: it was given by `cuMemAlloc`, is freed once, and nothing queued is left.
            unsafe { (self.driver.calls.cuMemFree_v2)(at.0) };
        }
    }

    fn upload(&mut self, to: Address, bytes: &[u8]) -> Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.bind()?;
        self.stage()?;
        let Some(staging) = self.staging.as_ref().filter(|staging| staging.events.len() == PIECES) else {
            // The caller's memory is read until the copy is done. After a failed wait the device reads no more.
            self.copy_up(to, bytes.as_ptr().cast(), bytes.len())?;
            return self.wait();
        };
        let (memory, mut next) = (staging.memory.cast::<u8>(), staging.next);
        let uploaded = bytes.chunks(PIECE_BYTES).enumerate().try_for_each(|(i, chunk)| {
            let event = staging.events[next];
            // SAFETY: the event is alive; one that was never recorded has passed.
            self.check("cuEventSynchronize", unsafe { (self.driver.calls.cuEventSynchronize)(event) })?;
            // SAFETY: the pieces lie in the memory that was reserved for all of them, and the chunk is no longer than one.
            // The last copy from this piece is done.
            let piece = unsafe {
                let piece = memory.add(next * PIECE_BYTES);
                piece.copy_from_nonoverlapping(chunk.as_ptr(), chunk.len());
                piece
            };
            self.copy_up(to.plus(i * PIECE_BYTES), piece.cast_const().cast(), chunk.len())?;
            next = (next + 1) % PIECES;
            // SAFETY: event and stream are alive.
            self.check("cuEventRecord", unsafe { (self.driver.calls.cuEventRecord)(event, self.stream) })
        });
        self.staging.iter_mut().for_each(|staging| staging.next = next);
        uploaded
    }

    fn download(&mut self, from: Address, bytes: &mut [u8]) -> Result<()> {
        self.bind()?;
        if !bytes.is_empty() {
            let to = bytes.as_mut_ptr().cast();
            // SAFETY: the slice is as long as it says and is not touched before the wait below. After a failed wait the
            // device writes no more.
            let answer = unsafe { (self.driver.calls.cuMemcpyDtoHAsync_v2)(to, from.0, bytes.len(), self.stream) };
            self.check("cuMemcpyDtoHAsync", answer)?;
        }
        self.wait()
    }

    fn launch(
        &mut self,
        unit: &'static TranslationUnit,
        kernel: &'static str,
        launch: Launch,
        arguments: Packed<'_>,
    ) -> Result<()> {
        self.bind()?;
        let function = self.function(unit, kernel, launch.shared_bytes)?;
        if let Some(bytes) = function.argument_bytes.filter(|&bytes| bytes != arguments.bytes) {
            return Err(Error::device(format!("{kernel} takes {bytes} bytes of arguments, not {}", arguments.bytes)));
        }
        let Launch { grid: [x, y, z], threads, shared_bytes } = launch;
        let mut parameters = [arguments.pointer.cast_mut()];
        // SAFETY: the handle is of a module that stays loaded. The kernel has one parameter; the driver copies it, from live
        // memory of its size, before it returns.
        let answer = unsafe {
            (self.driver.calls.cuLaunchKernel)(
                function.handle,
                x,
                y,
                z,
                threads,
                1,
                1,
                shared_bytes,
                self.stream,
                parameters.as_mut_ptr(),
                std::ptr::null_mut(),
            )
        };
        let what = format!("{kernel}, {x}×{y}×{z} blocks of {threads} threads, {shared_bytes} bytes of shared memory");
        self.check(&format!("cuLaunchKernel ({what})"), answer)?;
        match self.launched.back_mut() {
            Some((last, times)) if *last == kernel => *times += 1,
            _ => self.launched.push_back((kernel, 1)),
        }
        if self.launched.len() > MOST_NAMED {
            self.launched.pop_front();
        }
        Ok(())
    }

    fn wait(&mut self) -> Result<()> {
        self.bind()?;
        // SAFETY: the stream is alive and of the current context.
        self.check("cuStreamSynchronize", unsafe { (self.driver.calls.cuStreamSynchronize)(self.stream) })?;
        self.launched.clear();
        Ok(())
    }

    fn mark(&mut self) -> Result<()> {
        self.bind()?;
        let event = match self.spare_events.pop() {
            Some(event) => event,
            None => self.event(CUevent_flags::CU_EVENT_DEFAULT)?,
        };
        self.marks.push(event);
        // SAFETY: event and stream are alive.
        self.check("cuEventRecord", unsafe { (self.driver.calls.cuEventRecord)(event, self.stream) })
    }

    fn elapsed(&mut self) -> Result<Vec<Duration>> {
        let marks = std::mem::take(&mut self.marks);
        self.spare_events.extend(&marks);
        self.wait()?;
        let pairs = marks.windows(2).map(|pair| {
            let mut ms = 0.0f32;
            // SAFETY: the pointer is to a live number, which the call writes; both events were recorded and have passed.
            let answer = unsafe { (self.driver.calls.cuEventElapsedTime)(&raw mut ms, pair[0], pair[1]) };
            self.check("cuEventElapsedTime", answer)?;
            Ok(Duration::try_from_secs_f64(f64::from(ms) / 1e3).unwrap_or_default())
        });
        pairs.collect()
    }
}

impl Drop for Cuda {
    fn drop(&mut self) {
        let calls = &self.driver.calls;
        let staging = self.staging.take();
        let staged = staging.iter().flat_map(|staging| &staging.events);
        // A device that has failed answers with errors only; nothing is to be done about them here.
        // SAFETY: every handle was made by the driver, is destroyed once and not used again; the context is retained until
        // the end, and nothing queued is left after the wait.
        unsafe {
            (calls.cuCtxSetCurrent)(self.context);
            if !self.stream.is_null() {
                (calls.cuStreamSynchronize)(self.stream);
            }
            for &event in self.marks.iter().chain(&self.spare_events).chain(staged) {
                (calls.cuEventDestroy_v2)(event);
            }
            if let Some(staging) = staging.as_ref().filter(|staging| !staging.memory.is_null()) {
                (calls.cuMemFreeHost)(staging.memory);
            }
            for &at in &self.memory {
                (calls.cuMemFree_v2)(at);
            }
            for &module in self.modules.values() {
                (calls.cuModuleUnload)(module);
            }
            if !self.stream.is_null() {
                (calls.cuStreamDestroy_v2)(self.stream);
            }
            (calls.cuDevicePrimaryCtxRelease_v2)(self.device);
        }
    }
}

#[cfg(test)]
#[cfg(target_os = "linux")]
#[path = "../../../tests/stubs/mod.rs"]
mod stubs;

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use super::*;
    use crate::device::cuda::arguments::{Arguments, CountArgs};
    use crate::device::cuda::library::load;
    use crate::device::cuda::source::COUNT;
    use crate::error::ErrorKind;

    const ONE_BLOCK: Launch = Launch { grid: [1, 1, 1], threads: 128, shared_bytes: 0 };

    /// Libraries that pretend, in a folder of their own.
    struct Pretended {
        folder: tempfile::TempDir,
        driver: &'static libloading::Library,
        nvrtc: &'static libloading::Library,
    }

    impl Pretended {
        fn new(defines: &[&str]) -> Self {
            let folder = tempfile::tempdir().unwrap();
            let driver = load(stubs::build(folder.path(), "cuda.c", "libcuda.so.1", defines)).unwrap();
            let nvrtc = load(stubs::build(folder.path(), "nvrtc.c", "libnvrtc.so.13", &[])).unwrap();
            Self { folder, driver, nvrtc }
        }

        fn open(&self, sources: Sources, index: usize) -> Result<Cuda> {
            let driver = Libcuda::of(self.driver).unwrap();
            let nvrtc = Nvrtc::at(&self.folder.path().join("libnvrtc.so.13")).unwrap();
            let cache = Cache::at(self.folder.path().join("cache"));
            Cuda::on(Box::leak(Box::new(driver)), nvrtc, cache, sources, index)
        }

        /// What a stub has counted.
        fn counted(&self, library: &'static libloading::Library, name: &str) -> i32 {
            // SAFETY: the stubs define these functions so.
            unsafe { library.get::<unsafe extern "C" fn() -> i32>(name).unwrap()() }
        }
    }

    /// Counts to `n` in steps of `factor`.
    fn count(cuda: &mut Cuda, out: Address, n: usize, factor: f32) -> Result<()> {
        let arguments = CountArgs { out: out.into(), n: n as i32, factor };
        cuda.launch(&COUNT, "count", ONE_BLOCK, arguments.packed())
    }

    #[test]
    fn numbers_go_up_are_computed_and_come_down() {
        let pretended = Pretended::new(&[]);
        let mut cuda = pretended.open(Sources::default(), 1).unwrap();
        let machine = Machine {
            device: "cuda:1".into(),
            name: "Pretended GPU 1".into(),
            architecture: "sm_90a".into(),
            processors: 132,
            free_bytes: Some(7 << 20),
        };
        assert_eq!(cuda.machine(), machine);
        // Longer than all pieces together, and no multiple of one.
        let bytes: Vec<u8> = (0..PIECE_BYTES * (PIECES + 3) + 77).map(|i| (i * 7 % 251) as u8).collect();
        let at = cuda.allocate(bytes.len()).unwrap();
        cuda.upload(at, &bytes).unwrap();
        let mut back = vec![0; bytes.len()];
        cuda.download(at, &mut back).unwrap();
        assert!(back == bytes);
        cuda.upload(at, &[]).unwrap();
        cuda.download(at, &mut []).unwrap();

        cuda.mark().unwrap();
        count(&mut cuda, at, 11, 0.5).unwrap();
        cuda.mark().unwrap();
        cuda.mark().unwrap();
        assert_eq!(cuda.elapsed().unwrap(), [Duration::from_millis(1); 2]);
        assert_eq!(cuda.elapsed().unwrap(), []);
        let mut numbers = [0u8; 44];
        cuda.download(at, &mut numbers).unwrap();
        let expected: Vec<u8> = (0..11).flat_map(|i| (i as f32 * 0.5).to_le_bytes()).collect();
        assert_eq!(numbers, *expected);

        cuda.free(at);
        cuda.free(at);
        cuda.free(Address::NULL);
        let zero = cuda.allocate(0).unwrap();
        assert_ne!(zero, Address::NULL);
        assert!(matches!(cuda.allocate(usize::MAX), Err(Refusal::OutOfMemory)));
        // Dropping gives back what its owner did not.
        cuda.mark().unwrap();
        drop(cuda);
        assert_eq!(pretended.counted(pretended.driver, "stub_left"), 0);
    }

    #[test]
    fn uploads_do_without_page_locked_memory() {
        let pretended = Pretended::new(&["NO_HOST_MEMORY"]);
        let mut cuda = pretended.open(Sources::default(), 0).unwrap();
        let at = cuda.allocate(5).unwrap();
        for text in [b"first", b"again"] {
            cuda.upload(at, text).unwrap();
            let mut back = [0; 5];
            cuda.download(at, &mut back).unwrap();
            assert_eq!(&back, text);
        }
    }

    #[test]
    fn a_unit_is_compiled_once() {
        let pretended = Pretended::new(&[]);
        let compiled = || pretended.counted(pretended.nvrtc, "stub_compiled");
        for _ in 0..2 {
            let mut cuda = pretended.open(Sources::default(), 0).unwrap();
            let at = cuda.allocate(64).unwrap();
            count(&mut cuda, at, 3, 1.0).unwrap();
            count(&mut cuda, at, 3, 1.0).unwrap();
            cuda.wait().unwrap();
            assert_eq!(compiled(), 1);
        }
        // Other text is another key.
        let other = pretended.folder.path().join("count.cu");
        std::fs::write(&other, "// other").unwrap();
        let sources = || Sources::of_folder(pretended.folder.path()).unwrap();
        let mut cuda = pretended.open(sources(), 0).unwrap();
        let at = cuda.allocate(64).unwrap();
        count(&mut cuda, at, 3, 1.0).unwrap();
        assert_eq!(compiled(), 2);
        std::fs::write(&other, "#error").unwrap();
        let mut cuda = pretended.open(sources(), 0).unwrap();
        let why = count(&mut cuda, at, 3, 1.0).unwrap_err();
        assert_eq!(why.kind(), ErrorKind::Kernel);
        assert!(why.to_string().contains("count.cu(1): error: as was asked for"), "{why}");
    }

    #[test]
    fn a_launch_that_fails_later_is_named_by_the_next_wait() {
        let pretended = Pretended::new(&[]);
        let mut cuda = pretended.open(Sources::default(), 0).unwrap();
        let at = cuda.allocate(64).unwrap();
        count(&mut cuda, at, 3, 1.0).unwrap();
        cuda.wait().unwrap();
        for out in [at, at, Address::NULL] {
            count(&mut cuda, out, 3, 1.0).unwrap();
        }
        let names = "cuda:0: cuStreamSynchronize failed: CUDA_ERROR_ILLEGAL_ADDRESS (what the driver says); \
                     kernels queued since the last wait: count ×3";
        let why = cuda.wait().unwrap_err();
        assert_eq!((why.kind(), why.to_string().as_str()), (ErrorKind::Device, names));
        for why in [cuda.upload(at, b"x").unwrap_err(), cuda.download(at, &mut [0]).unwrap_err()] {
            assert!(why.to_string().contains("ILLEGAL_ADDRESS") && why.to_string().contains("count ×3"), "{why}");
        }
    }

    #[test]
    fn a_launch_that_is_refused_is_named_at_once() {
        let pretended = Pretended::new(&[]);
        let mut cuda = pretended.open(Sources::default(), 0).unwrap();
        let at = cuda.allocate(64).unwrap();
        let arguments = CountArgs { out: at.into(), n: 3, factor: 1.0 };
        let mut refused =
            |kernel, launch, arguments| cuda.launch(&COUNT, kernel, launch, arguments).unwrap_err().to_string();
        let why = refused("count", Launch { grid: [0, 1, 1], ..ONE_BLOCK }, arguments.packed());
        assert!(
            why.contains("cuLaunchKernel (count, 0×1×1 blocks of 128 threads") && why.contains("INVALID_VALUE"),
            "{why}"
        );
        let why = refused("count", Launch { shared_bytes: 228 << 10, ..ONE_BLOCK }, arguments.packed());
        assert!(why.contains("cuFuncSetAttribute (count, 233472 bytes of shared memory)"), "{why}");
        let mut more = arguments.packed();
        more.bytes = 24;
        let why = refused("count", ONE_BLOCK, more);
        assert_eq!(why, "count takes 16 bytes of arguments, not 24");
        let why = refused("nothing", ONE_BLOCK, arguments.packed());
        assert_eq!(why, "count.cu (count) has no kernel nothing");
        let most = Launch { shared_bytes: 227 << 10, ..ONE_BLOCK };
        cuda.launch(&COUNT, "count", most, arguments.packed()).unwrap();
    }

    #[test]
    fn an_image_that_does_not_load_is_told_with_both_versions() {
        let pretended = Pretended::new(&["VERSION=12040", "REFUSED_IMAGE"]);
        let mut cuda = pretended.open(Sources::default(), 0).unwrap();
        let at = cuda.allocate(64).unwrap();
        let why = count(&mut cuda, at, 3, 1.0).unwrap_err().to_string();
        for part in ["NVRTC 13.0", "CUDA 12.4", "CUDA_ERROR_INVALID_IMAGE", "no newer than the driver"] {
            assert!(why.contains(part), "{why}");
        }
    }

    #[test]
    fn what_is_missing_is_said() {
        let refused = |defines: &[&str], index| {
            let pretended = Pretended::new(defines);
            let why = pretended.open(Sources::default(), index).unwrap_err();
            assert_eq!(why.kind(), ErrorKind::NoDevice);
            why.to_string()
        };
        assert_eq!(refused(&[], 2), "cuda:2: the CUDA driver reports 2 devices, no number 2");
        assert_eq!(refused(&["ABSENT_DEVICES"], 0), "cuda:0: the CUDA driver reports no device");
        let old = refused(&["MAJOR=7", "MINOR=5"], 0);
        assert_eq!(old, "cuda:0: Pretended GPU 0 has compute capability 7.5, 8.0 or newer is needed");
    }

    #[test]
    fn a_driver_that_does_not_work_says_why() {
        let why = |defines: &[&str]| {
            let folder = tempfile::tempdir().unwrap();
            let library = load(stubs::build(folder.path(), "cuda.c", "libcuda.so.1", defines)).unwrap();
            Libcuda::of(library).unwrap_err().why().to_owned()
        };
        let unusable = "the CUDA driver is there but unusable: ";
        assert_eq!(why(&["VERSION=11040"]), "the CUDA driver is too old: it speaks CUDA 11.4, 12.0 or newer is needed");
        assert_eq!(why(&["LACKING"]), format!("{unusable}the library has no cuMemAlloc_v2"));
        let not_ready = "cuInit failed: CUDA_ERROR_SYSTEM_NOT_READY (what the driver says)";
        assert_eq!(why(&["BROKEN_INIT=802"]), format!("{unusable}{not_ready}"));
        // A status that nobody knows.
        assert_eq!(why(&["BROKEN_INIT=98765"]), format!("{unusable}cuInit failed with status 98765"));
        assert!(why(&["BROKEN_INIT=34"]).contains("stub"));
        let folder = tempfile::tempdir().unwrap();
        let other = load(stubs::build(folder.path(), "nvrtc.c", "libother.so", &[])).unwrap();
        let why = Libcuda::of(other).unwrap_err().why().to_owned();
        assert_eq!(why, format!("{unusable}the library has no cuDriverGetVersion"));
    }

    #[test]
    fn the_exact_architecture_is_compiled_for_if_it_is_known() {
        let known = [75, 80, 86, 90, 100, 103, 120];
        let exact = |capability| Target::of(capability, [13, 0], &known).map(|t| (t.option, t.told));
        for (capability, name) in [([8, 0], "sm_80"), ([8, 6], "sm_86"), ([9, 0], "sm_90a"), ([10, 3], "sm_103a")] {
            assert_eq!(exact(capability), Some((name.into(), name.into())));
        }
        let told = |name: &str, exact: &str| format!("{name} (PTX: NVRTC 13.0 does not know {exact})");
        for (capability, before, name) in
            [([8, 9], "compute_86", "sm_89"), ([11, 0], "compute_103", "sm_110a"), ([13, 7], "compute_120", "sm_137a")]
        {
            assert_eq!(exact(capability), Some((before.into(), told(before, name))));
        }
        assert_eq!(Target::of([8, 0], [13, 0], &[75]), None);
        assert_eq!(Target::of([9, 0], [12, 0], &[75]), None);
        assert_eq!(Target::of([9, 0], [12, 0], &[]), None);
    }
}
