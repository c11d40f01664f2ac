//! Libraries that may be absent: loading them, and the functions of the CUDA driver.
//!
//! Every function is looked up before the first is called, so that a library that lacks one is an answer and nothing
//! stops later. Status codes stay integers: a newer driver may answer with one that nobody here knows.

use std::ffi::{CStr, OsStr, c_char, c_int, c_uint, c_void};
use std::sync::OnceLock;

use cudarc::driver::sys::{
    CUcontext, CUdevice, CUdevice_attribute, CUdeviceptr, CUevent, CUfunction, CUfunction_attribute, CUmodule,
    CUresult, CUstream,
};
use libloading::Library;

/// Oldest CUDA version `[major, minor]` that a driver must speak.
pub(super) const OLDEST_DRIVER: [i32; 2] = [12, 0];

const NAMES: &[&str] = if cfg!(windows) { &["nvcuda.dll"] } else { &["libcuda.so.1", "libcuda.so"] };

/// Loads a library for as long as the process runs: NVIDIA's register exit handlers and must not be unloaded.
pub(super) fn load(name: impl AsRef<OsStr>) -> Result<&'static Library, String> {
    // SAFETY: loading runs the library's initialisers. The names are those of NVIDIA's driver and compiler, whose
    // initialisers have no precondition; folders other than the loader's come from the person's own environment.
    let library = unsafe { Library::new(name.as_ref()) }.map_err(|e| {
        let cause = std::error::Error::source(&e).map_or_else(String::new, |cause| format!(": {cause}"));
        format!("{e}{cause}")
    })?;
    Ok(Box::leak(Box::new(library)))
}

/// The function `name` of a library.
///
/// # Safety
/// `F` must be the C signature of `name`.
pub(super) unsafe fn function<F: Copy>(library: &'static Library, name: &str) -> Result<F, String> {
    // SAFETY: the caller's.
    unsafe { library.get::<F>(name) }.map(|symbol| *symbol).map_err(|_| format!("the library has no {name}"))
}

/// Defines a table of functions that all answer with a status.
macro_rules! functions {
    ($(#[$doc:meta])* $table:ident { $(fn $name:ident($($type:ty),* $(,)?);)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy)]
        #[allow(non_snake_case, reason = "the names that NVIDIA gave")]
        pub(super) struct $table { $(pub $name: unsafe extern "C" fn($($type),*) -> std::ffi::c_int,)+ }

        impl $table {
            /// Looks every function up; the message names the first that is not there.
            pub fn of(library: &'static libloading::Library) -> Result<Self, String> {
                Ok(Self {
                    // SAFETY: the table gives the signature that NVIDIA documents; its status is an integer.
                    $($name: unsafe { $crate::device::cuda::library::function(library, stringify!($name)) }?,)+
                })
            }
        }
    };
}
pub(super) use functions;

functions! {
    /// What of the driver is used.
    Calls {
        fn cuInit(c_uint);
        fn cuGetErrorName(c_int, *mut *const c_char);
        fn cuGetErrorString(c_int, *mut *const c_char);
        fn cuDeviceGet(*mut CUdevice, c_int);
        fn cuDeviceGetCount(*mut c_int);
        fn cuDeviceGetName(*mut c_char, c_int, CUdevice);
        fn cuDeviceGetAttribute(*mut c_int, CUdevice_attribute, CUdevice);
        fn cuDevicePrimaryCtxRetain(*mut CUcontext, CUdevice);
        fn cuDevicePrimaryCtxRelease_v2(CUdevice);
        fn cuCtxSetCurrent(CUcontext);
        fn cuMemGetInfo_v2(*mut usize, *mut usize);
        fn cuMemAlloc_v2(*mut CUdeviceptr, usize);
        fn cuMemFree_v2(CUdeviceptr);
        fn cuMemAllocHost_v2(*mut *mut c_void, usize);
        fn cuMemFreeHost(*mut c_void);
        fn cuMemcpyHtoDAsync_v2(CUdeviceptr, *const c_void, usize, CUstream);
        fn cuMemcpyDtoHAsync_v2(*mut c_void, CUdeviceptr, usize, CUstream);
        fn cuStreamCreate(*mut CUstream, c_uint);
        fn cuStreamSynchronize(CUstream);
        fn cuStreamDestroy_v2(CUstream);
        fn cuEventCreate(*mut CUevent, c_uint);
        fn cuEventRecord(CUevent, CUstream);
        fn cuEventSynchronize(CUevent);
        fn cuEventElapsedTime(*mut f32, CUevent, CUevent);
        fn cuEventDestroy_v2(CUevent);
        fn cuModuleLoadData(*mut CUmodule, *const c_void);
        fn cuModuleUnload(CUmodule);
        fn cuModuleGetFunction(*mut CUfunction, CUmodule, *const c_char);
        fn cuFuncSetAttribute(CUfunction, CUfunction_attribute, c_int);
        fn cuLaunchKernel(
            CUfunction,
            c_uint,
            c_uint,
            c_uint,
            c_uint,
            c_uint,
            c_uint,
            c_uint,
            CUstream,
            *mut *mut c_void,
            *mut *mut c_void,
        );
    }
}

/// Tells a parameter's offset and size; drivers before CUDA 12.4 cannot.
pub(super) type ParameterSize = unsafe extern "C" fn(CUfunction, usize, *mut usize, *mut usize) -> c_int;

/// A driver that answers.
#[derive(Debug)]
pub(super) struct Libcuda {
    pub calls: Calls,
    pub parameter_size: Option<ParameterSize>,
    /// CUDA version `[major, minor]` that it speaks.
    pub version: [i32; 2],
    /// How many devices it has.
    pub devices: usize,
}

/// Why there is no driver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NoDriver {
    /// This machine has none.
    Absent(String),
    /// It is there, but does not work.
    Unusable(String),
}

impl NoDriver {
    /// One sentence.
    pub fn why(&self) -> &str {
        match self {
            Self::Absent(why) | Self::Unusable(why) => why,
        }
    }
}

/// A status other than success.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FailureStatus(pub c_int);

impl FailureStatus {
    /// `CUDA_ERROR_OUT_OF_MEMORY`.
    pub const OUT_OF_MEMORY: Self = Self(CUresult::CUDA_ERROR_OUT_OF_MEMORY as c_int);
    const NO_DEVICE: Self = Self(CUresult::CUDA_ERROR_NO_DEVICE as c_int);
    const STUB: Self = Self(CUresult::CUDA_ERROR_STUB_LIBRARY as c_int);

    /// Of a call's answer.
    pub fn check(answer: c_int) -> Result<(), Self> {
        if answer == 0 { Ok(()) } else { Err(Self(answer)) }
    }
}

impl Libcuda {
    /// The driver of this machine; it is loaded once.
    pub fn get() -> Result<&'static Self, NoDriver> {
        static DRIVER: OnceLock<Result<Libcuda, NoDriver>> = OnceLock::new();
        DRIVER.get_or_init(Self::open).as_ref().map_err(Clone::clone)
    }

    fn open() -> Result<Self, NoDriver> {
        let mut broken = None;
        for name in NAMES {
            match load(name) {
                Ok(library) => return Self::of(library),
                Err(why) if cfg!(target_os = "linux") && !(why.contains(name) && why.contains("No such file")) => {
                    broken.get_or_insert(why);
                }
                Err(_) => {}
            }
        }
        Err(match broken {
            Some(why) => NoDriver::Unusable(format!("the CUDA driver is there but cannot be loaded: {why}")),
            None => {
                NoDriver::Absent(format!("the CUDA driver was not found ({} is not on the loader's path)", NAMES[0]))
            }
        })
    }

    /// The driver in `library`.
    pub fn of(library: &'static Library) -> Result<Self, NoDriver> {
        let unusable = |why: String| NoDriver::Unusable(format!("the CUDA driver is there but unusable: {why}"));
        // SAFETY: this is its documented signature, the status as an integer.
        let ask = unsafe { function::<unsafe extern "C" fn(*mut c_int) -> c_int>(library, "cuDriverGetVersion") };
        let mut version = 0;
        // SAFETY: the pointer is to a live integer, which the call writes. It may come before cuInit.
        let status = unsafe { ask.map_err(unusable)?(&raw mut version) };
        if status != 0 {
            return Err(unusable(format!("cuDriverGetVersion failed with status {status}")));
        }
        let version = [version / 1000, version % 1000 / 10];
        if version < OLDEST_DRIVER {
            let ([major, minor], [oldest, its_minor]) = (version, OLDEST_DRIVER);
            return Err(NoDriver::Unusable(format!(
                "the CUDA driver is too old: it speaks CUDA {major}.{minor}, {oldest}.{its_minor} or newer is needed"
            )));
        }
        let calls = Calls::of(library).map_err(unusable)?;
        // SAFETY: this is its documented signature, the status as an integer.
        let parameter_size = unsafe { function(library, "cuFuncGetParamInfo") }.ok();
        let mut driver = Self { calls, parameter_size, version, devices: 0 };
        let mut count = 0;
        // SAFETY: cuInit takes flags, which must be 0, and no pointer.
        match FailureStatus::check(unsafe { (calls.cuInit)(0) }) {
            Ok(()) => {
                // SAFETY: the pointer is to a live integer, which the call writes, and cuInit has succeeded.
                let counted = FailureStatus::check(unsafe { (calls.cuDeviceGetCount)(&raw mut count) });
                counted.map_err(|status| unusable(driver.failure("cuDeviceGetCount", status)))?;
            }
            Err(FailureStatus::NO_DEVICE) => {}
            Err(status) => return Err(unusable(driver.failure("cuInit", status))),
        }
        driver.devices = usize::try_from(count).unwrap_or(0);
        Ok(driver)
    }

    /// `cuInit failed: CUDA_ERROR_NOT_READY (device not ready)`.
    pub fn failure(&self, call: &str, status: FailureStatus) -> String {
        let text = |ask: unsafe extern "C" fn(c_int, *mut *const c_char) -> c_int| {
            let mut text: *const c_char = std::ptr::null();
            // SAFETY: the pointer is to a live pointer, which the call sets to a text of its own or to null.
            let answer = unsafe { ask(status.0, &raw mut text) };
            let known = answer == 0 && !text.is_null();
            // SAFETY: texts of the driver are constants that end with a zero, and it is never unloaded.
            known.then(|| unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned())
        };
        let hint = if status == FailureStatus::STUB {
            "; the toolkit's stub was loaded in the driver's place, take its folder off the loader's path"
        } else {
            ""
        };
        match (text(self.calls.cuGetErrorName), text(self.calls.cuGetErrorString)) {
            (Some(name), Some(what)) => format!("{call} failed: {name} ({what}){hint}"),
            _ => format!("{call} failed with status {}{hint}", status.0),
        }
    }

    /// The handle of device `index`.
    pub fn device(&self, index: usize) -> Result<CUdevice, String> {
        let mut device = 0;
        let ordinal = c_int::try_from(index).map_err(|_| format!("there is no device {index}"))?;
        // SAFETY: the pointer is to a live handle, which the call writes.
        FailureStatus::check(unsafe { (self.calls.cuDeviceGet)(&raw mut device, ordinal) })
            .map_err(|status| self.failure("cuDeviceGet", status))?;
        Ok(device)
    }

    /// What a device is called.
    pub fn name(&self, device: CUdevice) -> Result<String, String> {
        let mut name = [0u8; 256];
        // SAFETY: `name` is live, its length is passed, and the device is from [`Libcuda::device`].
        FailureStatus::check(unsafe {
            (self.calls.cuDeviceGetName)(name.as_mut_ptr().cast(), name.len() as c_int, device)
        })
        .map_err(|status| self.failure("cuDeviceGetName", status))?;
        let end = name.iter().position(|&b| b == 0).unwrap_or(name.len());
        Ok(String::from_utf8_lossy(&name[..end]).into_owned())
    }

    /// Compute capability `[major, minor]` of a device.
    pub fn capability(&self, device: CUdevice) -> Result<[i32; 2], String> {
        use CUdevice_attribute::{
            CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR,
        };
        let ask = |attribute| self.attribute(attribute, device);
        Ok([ask(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?, ask(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?])
    }

    /// Multiprocessors of a device.
    pub fn processors(&self, device: CUdevice) -> Result<usize, String> {
        let count = self.attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, device)?;
        usize::try_from(count).map_err(|_| format!("the driver reports {count} multiprocessors"))
    }

    fn attribute(&self, attribute: CUdevice_attribute, device: CUdevice) -> Result<i32, String> {
        let mut value = 0;
        // SAFETY: the pointer is to a live integer, which the call writes; the device is from [`Libcuda::device`].
        FailureStatus::check(unsafe { (self.calls.cuDeviceGetAttribute)(&raw mut value, attribute, device) })
            .map_err(|status| self.failure("cuDeviceGetAttribute", status))?;
        Ok(value)
    }
}
