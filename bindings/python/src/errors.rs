//! From the library's errors to exceptions.

use pyo3::prelude::*;
use verilume::{Error, ErrorKind};

/// The name of a kind, as `VerilumeError.kind` has it.
pub fn name(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::Input => "input",
        ErrorKind::Model => "model",
        ErrorKind::Settings => "settings",
        ErrorKind::Shape => "shape",
        ErrorKind::Limit => "limit",
        ErrorKind::NoDevice => "no_device",
        ErrorKind::Kernel => "kernel",
        ErrorKind::Io => "io",
        ErrorKind::Cancelled => "cancelled",
        _ => "device",
    }
}

/// Whether an error concerns one input of many, so that its neighbours are explained all the same.
pub fn is_of_input(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::Input | ErrorKind::Shape | ErrorKind::Limit | ErrorKind::Io)
}

/// The exception for an error: the package has a class for each kind.
pub fn raised(py: Python<'_>, e: &Error) -> PyErr {
    let made =
        py.import("verilume._errors").and_then(|module| module.call_method1("of", (name(e.kind()), e.to_string())));
    made.map_or_else(|other| other, PyErr::from_value)
}
