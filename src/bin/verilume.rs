//! The program `verilume`.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(verilume::cli::program(std::env::args_os().collect()))
}
