//! `verilume kernels compile`: what NVRTC makes of the kernels, held against their budgets.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;
use serde_json::json;

use super::{SOME_FAILED, table, units};
use crate::cli::args::kernels::CompileArgs;
use crate::cli::exit::ExitCode;
use crate::cli::talk::{StandardOutput, say, say_log};
use crate::device::cuda::kernels::{self, Built, Compiler};
use crate::report::replace;
use crate::text::counted;

/// Registers that each kernel may use, by architecture.
const BUDGET: &str = include_str!("../../../kernels/budget.csv");

#[derive(Debug, Deserialize)]
struct BudgetRow {
    kernel: String,
    arch: String,
    registers: u32,
}

/// Kernel and architecture to registers.
type Budget = BTreeMap<(String, String), u32>;

/// Runs the command.
pub fn run(args: &CompileArgs) -> Result<ExitCode> {
    if args.write_budget.is_some() && !args.kernel.is_empty() {
        bail!("--write-budget writes the table of all kernels; leave --kernel out");
    }
    let units = units(&args.kernel)?;
    let compiler = Compiler::open(args.kernel_dir.as_deref())?;
    let archs: Vec<&str> = match args.arch.is_empty() {
        true => kernels::ARCHITECTURES.to_vec(),
        false => args.arch.iter().map(String::as_str).collect::<BTreeSet<_>>().into_iter().collect(),
    };
    let is_real = |arch: &str| {
        let number = arch.strip_prefix("sm_").map(|n| n.trim_end_matches(['a', 'f']));
        number.is_some_and(|n| n.parse::<u32>().is_ok_and(|n| n >= 50))
    };
    if let Some(arch) = archs.iter().find(|arch| !is_real(arch)) {
        bail!("--arch {arch}: an architecture is sm_80, sm_90a, ...; what is not one has no registers yet");
    }
    let wanted = |built: &Built| {
        args.kernel.is_empty() || args.kernel.iter().any(|name| name == built.kernel || name == built.unit)
    };
    let mut answer = StandardOutput::default();
    let (mut all, mut failed) = (Vec::new(), 0);
    for (unit, arch) in units.iter().flat_map(|unit| archs.iter().map(move |arch| (unit, arch))) {
        match compiler.compile(unit, arch) {
            Ok(built) => {
                for kernel in built.into_iter().filter(wanted) {
                    if args.json {
                        answer.line(&serde_json::to_string(&kernel)?)?;
                    }
                    all.push(kernel);
                }
            }
            Err(e) => {
                failed += 1;
                if args.json {
                    answer.line(&json!({"unit": unit, "arch": arch, "error": e.to_string()}).to_string())?;
                }
                say_log(&format!("error: {e}"));
            }
        }
    }
    if !args.json && !all.is_empty() {
        let row = |b: &Built| {
            let [registers, shared, spill, stack] =
                [b.registers, b.shared_bytes, b.spill_bytes, b.stack_bytes].map(|n| n.to_string());
            [
                b.kernel.into(),
                b.arch.clone(),
                registers,
                shared,
                spill,
                stack,
                b.unit.into(),
                format!("{:.2}", b.seconds),
            ]
        };
        let header = ["kernel", "arch", "registers", "shared bytes", "spill bytes", "stack bytes", "unit", "seconds"];
        answer.line(&table(header, all.iter().map(row), 2))?;
    }
    if failed > 0 {
        say(&format!("{} did not compile", counted(failed, "unit")));
    }
    if let Some(path) = &args.write_budget {
        replace(path, written(&all, compiler.version()).as_bytes())?;
    }
    let above = if args.check { excess(&all, &budget()?) } else { Vec::new() };
    above.iter().for_each(|line| say(line));
    Ok(if failed == 0 && above.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(SOME_FAILED) })
}

fn written(all: &[Built], [major, minor]: [i32; 2]) -> String {
    let mut lines: Vec<String> = all.iter().map(|b| format!("{},{},{}\n", b.kernel, b.arch, b.registers)).collect();
    lines.sort_unstable();
    format!("# registers of a thread, by NVRTC {major}.{minor}\nkernel,arch,registers\n{}", lines.concat())
}

fn budget() -> Result<Budget> {
    let mut reader = csv::ReaderBuilder::new().comment(Some(b'#')).from_reader(BUDGET.as_bytes());
    let rows = reader.deserialize::<BudgetRow>().map(|row| row.map(|r| ((r.kernel, r.arch), r.registers)));
    rows.collect::<Result<_, _>>().context("kernels/budget.csv")
}

/// A line for each kernel that spills or is above its budget.
fn excess(all: &[Built], budget: &Budget) -> Vec<String> {
    let mut lines = Vec::new();
    for Built { kernel, arch, registers, spill_bytes, .. } in all {
        if *spill_bytes > 0 {
            lines.push(format!("{kernel} for {arch}: {spill_bytes} bytes are spilled"));
        }
        match budget.get(&(kernel.to_string(), arch.clone())) {
            Some(most) if registers > most => {
                lines.push(format!("{kernel} for {arch}: {registers} registers, its budget is {most}"));
            }
            Some(_) => {}
            None => lines.push(format!("{kernel} for {arch}: {registers} registers, it has no budget")),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn built(registers: u32, spill_bytes: u32) -> Built {
        let (stack_bytes, shared_bytes, seconds) = (0, 0, 0.0);
        Built {
            kernel: "add",
            arch: "sm_80".into(),
            registers,
            shared_bytes,
            spill_bytes,
            stack_bytes,
            unit: "u",
            seconds,
        }
    }

    #[test]
    fn what_is_above_its_budget_is_named() {
        let budget = Budget::from([(("add".into(), "sm_80".into()), 20)]);
        assert!(excess(&[built(20, 0)], &budget).is_empty());
        assert_eq!(excess(&[built(21, 0)], &budget), ["add for sm_80: 21 registers, its budget is 20"]);
        assert_eq!(excess(&[built(1, 8)], &budget), ["add for sm_80: 8 bytes are spilled"]);
        assert_eq!(excess(&[built(1, 0)], &Budget::new()).len(), 1);
    }

    #[test]
    fn every_kernel_has_a_budget_for_every_architecture() {
        let budget = budget().unwrap();
        for kernel in kernels::list() {
            for arch in kernels::ARCHITECTURES {
                assert!(budget.contains_key(&(kernel.kernel.into(), arch.into())), "{} for {arch}", kernel.kernel);
            }
        }
        assert_eq!(budget.len(), kernels::list().len() * kernels::ARCHITECTURES.len());
    }
}
