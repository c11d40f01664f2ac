//! What there is of CUDA on this machine, asked without needing any of it.

use std::path::PathBuf;

use serde::Serialize;

use super::library::{Libcuda, NoDriver};
use super::nvrtc;

/// Least compute capability: asynchronous copies and TF32 products begin with it.
pub(super) const LEAST_CAPABILITY: [i32; 2] = [8, 0];

/// What was found of CUDA on this machine.
#[derive(Debug, Clone, Serialize)]
pub struct CudaReport {
    /// The driver, or why it cannot be used.
    pub driver: Result<Driver, String>,
    /// The run-time compiler, or why it cannot be used.
    pub nvrtc: Result<NvrtcFound, String>,
    #[serde(skip)]
    absent: bool,
}

/// A driver that answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Driver {
    /// CUDA version `[major, minor]` that the driver speaks.
    pub version: [i32; 2],
    /// Names of the devices; may be empty.
    pub devices: Vec<String>,
    /// Compute capability `[major, minor]` of each device.
    pub capabilities: Vec<[i32; 2]>,
}

/// A run-time compiler that answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NvrtcFound {
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
            Ok(driver) => driver.refusal(index),
        };
        let both: Vec<String> = driver.into_iter().chain(self.nvrtc.as_ref().err().cloned()).collect();
        (!both.is_empty()).then(|| both.join("; "))
    }

    /// Whether there is a driver, usable or not: where there is none, nobody expects a GPU to be used.
    pub fn has_driver(&self) -> bool {
        !self.absent
    }
}

impl Driver {
    /// Why device `index` cannot be used.
    pub(super) fn refusal(&self, index: usize) -> Option<String> {
        let [major, minor] = LEAST_CAPABILITY;
        match (self.devices.len(), self.capabilities.get(index)) {
            (0, _) => Some("the CUDA driver reports no device".into()),
            (n, None) => {
                let devices = if n == 1 { "1 device".into() } else { format!("{n} devices") };
                Some(format!("the CUDA driver reports {devices}, no number {index}"))
            }
            (_, Some(have)) if *have < LEAST_CAPABILITY => Some(format!(
                "{} has compute capability {}.{}, {major}.{minor} or newer is needed",
                self.devices[index], have[0], have[1]
            )),
            _ => None,
        }
    }
}

/// Asks the driver and the compiler who they are. Loads libraries, never fails.
pub fn probe() -> CudaReport {
    let found = Libcuda::get();
    let absent = matches!(found, Err(NoDriver::Absent(_)));
    let driver = found.map_err(|none| none.why().to_owned()).and_then(describe);
    let version = driver.as_ref().ok().map(|driver| driver.version);
    let nvrtc = nvrtc::Nvrtc::open(version).map_err(|e| e.to_string());
    let nvrtc = nvrtc.map(|found| NvrtcFound { version: found.version(), path: found.path().to_path_buf() });
    CudaReport { driver, nvrtc, absent }
}

/// Names and capabilities of a driver's devices.
pub(super) fn describe(driver: &Libcuda) -> Result<Driver, String> {
    let mut answer = Driver { version: driver.version, devices: Vec::new(), capabilities: Vec::new() };
    for index in 0..driver.devices {
        let device = driver.device(index)?;
        answer.devices.push(driver.name(device)?);
        answer.capabilities.push(driver.capability(device)?);
    }
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::cuda::usable;

    #[test]
    fn a_probe_names_what_is_missing() {
        let report = probe();
        let device = report.driver.as_ref().is_ok_and(|driver| driver.refusal(0).is_none());
        assert_eq!(report.missing(0).is_none(), device && report.nvrtc.is_ok());
        assert!(report.missing(usize::MAX).is_some());
        assert_eq!(report.missing(0).is_none(), usable(0).is_ok());
        assert_eq!(usable(usize::MAX).unwrap_err().is_some(), report.has_driver());
    }

    #[test]
    fn a_device_is_refused_for_a_reason() {
        let mut driver = Driver { version: [13, 0], devices: Vec::new(), capabilities: Vec::new() };
        let why = |driver: &Driver, index| driver.refusal(index).unwrap_or_default();
        assert!(why(&driver, 0).contains("no device"));
        driver.devices = vec!["A".into(), "B".into()];
        driver.capabilities = vec![[7, 5], [9, 0]];
        assert_eq!(why(&driver, 0), "A has compute capability 7.5, 8.0 or newer is needed");
        assert_eq!(why(&driver, 1), "");
        assert_eq!(why(&driver, 2), "the CUDA driver reports 2 devices, no number 2");
        let nvrtc = NvrtcFound { version: [13, 0], path: PathBuf::new() };
        let report = CudaReport { driver: Ok(driver), nvrtc: Ok(nvrtc), absent: false };
        assert_eq!((report.missing(1), report.has_driver()), (None, true));
    }
}
