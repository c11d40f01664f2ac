//! `verilume kernels test`: every case on the device and on the CPU in double precision.

use anyhow::{Result, bail};
use serde_json::json;

use super::cases::{self, KernelCase, Numbers};
use super::measure::{Trial, excess};
use super::{SOME_FAILED, settings, table};
use crate::cli::args::kernels::TestArgs;
use crate::cli::computing;
use crate::cli::exit::ExitCode;
use crate::cli::talk::{StandardOutput, Voice, say};
use crate::device::cuda::{SelfTest, self_test};
use crate::engine::{DeviceChoice, Engine, Settings};
use crate::text::counted;

/// Engines under test, with what the device is called.
pub(super) fn engines(args: &TestArgs) -> Result<(Settings, Vec<(String, Engine)>)> {
    let settings = settings(&args.on)?;
    let devices: Vec<DeviceChoice> = match settings.device {
        DeviceChoice::Emulated(seed) => (0..args.seeds as u64).map(|i| DeviceChoice::Emulated(seed + i)).collect(),
        one => vec![one],
    };
    let engine = |device: DeviceChoice| -> Result<(String, Engine)> {
        let engine = computing::open(&Settings { device, ..settings.clone() }, Voice::Normal)?;
        let name = match device {
            DeviceChoice::Emulated(seed) => format!("emulated:{seed}"),
            _ => engine.describe().device,
        };
        Ok((name, engine))
    };
    let engines = devices.into_iter().map(engine).collect::<Result<_>>()?;
    Ok((settings, engines))
}

/// Cases that `filter` leaves.
pub(super) fn chosen(filter: Option<&str>) -> Result<Vec<KernelCase>> {
    let mut cases = cases::all();
    cases.retain(|case| filter.is_none_or(|text| case.name.contains(text)));
    if cases.is_empty() {
        bail!("--filter {}: no case has this in its name", filter.unwrap_or_default());
    }
    Ok(cases)
}

/// What is said of a case on a device.
pub(super) struct CaseVerdict {
    pub case: String,
    pub device: String,
    pub what: &'static str,
    pub failure: Option<String>,
}

/// Prints verdicts; fails if one is a failure.
pub(super) fn report(verdicts: Vec<CaseVerdict>, as_json: bool) -> Result<ExitCode> {
    let mut answer = StandardOutput::default();
    let failed = verdicts.iter().filter(|v| v.failure.is_some()).count();
    let all = verdicts.len();
    if as_json {
        for CaseVerdict { case, device, what, failure } in &verdicts {
            let line = json!({"case": case, "device": device, "what": what, "ok": failure.is_none(), "error": failure});
            answer.line(&line.to_string())?;
        }
    } else {
        let row = |v: CaseVerdict| [v.case, v.device, v.what.into(), v.failure.unwrap_or_else(|| "ok".into())];
        answer.line(&table(["case", "device", "numbers", "result"], verdicts.into_iter().map(row), 4))?;
    }
    say(&format!("{}, {failed} failed", counted(all, "trial")));
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::from(SOME_FAILED) })
}

/// What is taken for granted of the device: fragments, conversions, long sums.
fn self_tests(settings: &Settings, filter: Option<&str>) -> Result<Vec<CaseVerdict>> {
    let (gpu, device) = match settings.device {
        DeviceChoice::Cuda(index) => (Some(index), format!("cuda:{index}")),
        DeviceChoice::Emulated(_) => (None, "emulated".to_owned()),
        DeviceChoice::Auto | DeviceChoice::Cpu => return Ok(Vec::new()),
    };
    let tests = self_test(gpu, settings.kernel_dir.as_deref())?;
    let verdict = |t: SelfTest| CaseVerdict {
        case: format!("{}: {}", t.name, t.detail),
        device: device.clone(),
        what: "self-test",
        failure: (!t.passed).then_some(t.detail),
    };
    let wanted = |t: &SelfTest| filter.is_none_or(|text| t.name.contains(text));
    Ok(tests.into_iter().filter(wanted).map(verdict).collect())
}

/// Runs the command.
pub fn run(args: &TestArgs) -> Result<ExitCode> {
    let cases = chosen(args.filter.as_deref())?;
    let (settings, mut engines) = engines(args)?;
    let mut twin = Engine::new(&settings.twin())?;
    let mut verdicts = self_tests(&settings, args.filter.as_deref())?;
    for case in &cases {
        for (numbers, what) in [(Numbers::Integers, "integers"), (Numbers::Reals, "reals")] {
            let trial = Trial { case, numbers };
            let truth = trial.truth(&mut twin, &settings)?;
            for (device, engine) in &mut engines {
                let failure = match trial.run(engine) {
                    Err(e) => Some(e.to_string()),
                    Ok(got) => got.iter().zip(&truth).find_map(|(got, (truth, limits))| {
                        let why = excess(&got.values, &truth.values, limits)?;
                        Some(format!("{}: {why}", got.name))
                    }),
                };
                verdicts.push(CaseVerdict { case: case.name.clone(), device: device.clone(), what, failure });
            }
        }
    }
    report(verdicts, args.on.json)
}
