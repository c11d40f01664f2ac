//! Looks for the CUDA driver and the run-time compiler NVRTC without needing either.

use std::ffi::{c_char, c_int};
use std::path::PathBuf;

use libloading::Library;
use serde::Serialize;

/// What was found of CUDA on this machine.
#[derive(Debug, Clone, Serialize)]
pub struct CudaReport {
    /// The driver, or why it cannot be used.
    pub driver: Result<Driver, String>,
    /// The run-time compiler, or why it cannot be used.
    pub nvrtc: Result<Nvrtc, String>,
}

/// A driver that answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Driver {
    /// CUDA version `[major, minor]` that the driver speaks.
    pub version: [i32; 2],
    /// Names of the devices; may be empty.
    pub devices: Vec<String>,
}

/// A run-time compiler that answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Nvrtc {
    /// Version `[major, minor]`.
    pub version: [i32; 2],
    /// The file, or the name that the loader resolved.
    pub path: PathBuf,
}

impl CudaReport {
    /// Why device `index` cannot be used, in one sentence; `None` when driver, device and compiler are there.
    pub fn missing(&self, index: usize) -> Option<String> {
        let driver = match &self.driver {
            Err(why) => Some(why.clone()),
            Ok(d) if d.devices.is_empty() => Some("the CUDA driver reports no device".into()),
            Ok(d) if index >= d.devices.len() => {
                Some(format!("the CUDA driver reports {} device(s), no number {index}", d.devices.len()))
            }
            Ok(_) => None,
        };
        let both: Vec<String> = driver.into_iter().chain(self.nvrtc.as_ref().err().cloned()).collect();
        (!both.is_empty()).then(|| both.join("; "))
    }
}

/// Asks the driver and the compiler who they are. Loads libraries, never fails.
pub fn probe() -> CudaReport {
    CudaReport { driver: driver(), nvrtc: nvrtc() }
}

const DRIVER: &[&str] = if cfg!(windows) { &["nvcuda.dll"] } else { &["libcuda.so.1", "libcuda.so"] };
const NVRTC: &[&str] =
    if cfg!(windows) { &["nvrtc64_130_0.dll", "nvrtc64_120_0.dll"] } else { &["libnvrtc.so.13", "libnvrtc.so.12"] };
const NAME_BYTES: usize = 256;

type Init = unsafe extern "C" fn(u32) -> c_int;
type Int = unsafe extern "C" fn(*mut c_int) -> c_int;
type DeviceName = unsafe extern "C" fn(*mut c_char, c_int, c_int) -> c_int;
type TwoInts = unsafe extern "C" fn(*mut c_int, *mut c_int) -> c_int;

fn load(name: impl AsRef<std::ffi::OsStr>) -> Result<Library, String> {
    // SAFETY: loading runs the library's initialisers. The names are those of NVIDIA's driver and compiler, whose
    // initialisers have no precondition; folders other than the loader's come from the person's own environment.
    unsafe { Library::new(name.as_ref()) }.map_err(|e| {
        let cause = std::error::Error::source(&e).map_or_else(String::new, |cause| format!(": {cause}"));
        format!("{e}{cause}")
    })
}

fn function<'l, F>(library: &'l Library, name: &'static str) -> Result<libloading::Symbol<'l, F>, String> {
    // SAFETY: every caller names the documented C signature of `name` as `F`.
    unsafe { library.get(name.as_bytes()) }.map_err(|_| format!("the library has no {name}"))
}

fn check(call: &str, status: c_int) -> Result<(), String> {
    if status == 0 { Ok(()) } else { Err(format!("{call} failed with status {status}")) }
}

fn driver() -> Result<Driver, String> {
    let loaded: Vec<_> = DRIVER.iter().map(load).collect();
    let Some(library) = loaded.into_iter().find_map(Result::ok) else {
        return Err(format!("the CUDA driver was not found ({} is not on the loader's path)", DRIVER[0]));
    };
    let ask = || -> Result<Driver, String> {
        let init = function::<Init>(&library, "cuInit")?;
        let driver_version = function::<Int>(&library, "cuDriverGetVersion")?;
        let device_count = function::<Int>(&library, "cuDeviceGetCount")?;
        let device_name = function::<DeviceName>(&library, "cuDeviceGetName")?;
        // SAFETY: cuInit takes flags, which must be 0, and no pointer.
        check("cuInit", unsafe { init(0) })?;
        let (mut version, mut count) = (0, 0);
        // SAFETY: the pointer is to a live integer, which the call writes.
        check("cuDriverGetVersion", unsafe { driver_version(&raw mut version) })?;
        // SAFETY: as above, and cuInit has succeeded.
        check("cuDeviceGetCount", unsafe { device_count(&raw mut count) })?;
        let mut devices = Vec::new();
        for device in 0..count {
            let mut name = [0u8; NAME_BYTES];
            // SAFETY: `name` is live and its length is passed; `device` is below the count (ordinals are handles).
            check("cuDeviceGetName", unsafe {
                device_name(name.as_mut_ptr().cast::<c_char>(), NAME_BYTES as c_int, device)
            })?;
            let end = name.iter().position(|&b| b == 0).unwrap_or(NAME_BYTES);
            devices.push(String::from_utf8_lossy(&name[..end]).into_owned());
        }
        Ok(Driver { version: [version / 1000, version % 1000 / 10], devices })
    };
    let answer = ask().map_err(|why| format!("the CUDA driver is there but unusable: {why}"));
    // The driver registers threads and exit handlers: unloading it is not safe.
    std::mem::forget(library);
    answer
}

fn nvrtc() -> Result<Nvrtc, String> {
    let mut folders: Vec<PathBuf> = Vec::new();
    folders.extend(std::env::var_os("VERILUME_NVRTC_DIR").map(PathBuf::from));
    folders.extend(std::env::var_os("CUDA_HOME").map(|home| PathBuf::from(home).join("lib64")));
    let mut candidates: Vec<PathBuf> = folders.iter().flat_map(|f| NVRTC.iter().map(move |n| f.join(n))).collect();
    candidates.retain(|path| path.is_file());
    candidates.extend(NVRTC.iter().map(PathBuf::from));
    let mut broken = Vec::new();
    for path in candidates {
        match load(&path).and_then(|library| nvrtc_version(&library)) {
            Ok(version) => return Ok(Nvrtc { version, path }),
            Err(why) if path.is_absolute() => broken.push(format!("{}: {why}", path.display())),
            Err(_) => {}
        }
    }
    let place = "set VERILUME_NVRTC_DIR to the folder that holds it";
    Err(if broken.is_empty() {
        format!("NVRTC was not found ({} is not on the loader's path; {place})", NVRTC.join(" or "))
    } else {
        format!("NVRTC is there but unusable ({})", broken.join("; "))
    })
}

fn nvrtc_version(library: &Library) -> Result<[i32; 2], String> {
    let ask = function::<TwoInts>(library, "nvrtcVersion")?;
    let (mut major, mut minor) = (0, 0);
    // SAFETY: both pointers are to live integers, which the call writes.
    check("nvrtcVersion", unsafe { ask(&raw mut major, &raw mut minor) })?;
    Ok([major, minor])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_names_what_is_missing() {
        let report = probe();
        let usable = report.driver.as_ref().is_ok_and(|d| !d.devices.is_empty()) && report.nvrtc.is_ok();
        assert_eq!(report.missing(0).is_none(), usable);
        assert!(report.missing(usize::MAX).is_some());
    }
}
