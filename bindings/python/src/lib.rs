//! The native part of the Python package `verilume`: what needs the library. All that can be said in Python is in the
//! package itself, which is the only user of this module; its names are no promise.

mod errors;
mod net;
mod work;

use std::ffi::OsString;

use numpy::{Element, PyArrayDyn, PyArrayMethods, PyReadonlyArray3, PyReadonlyArrayDyn};
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use verilume::image::Picture;
use verilume::map::{Map, Sign, Space};
use verilume::render::{self, Look};
use verilume::tensor::Tensor;

use errors::raised;

#[pymodule(gil_used = false)]
mod _native {
    use super::*;

    #[pymodule_export]
    use super::net::Net;
    #[pymodule_export]
    use super::{draw, methods, methods_text, metrics, png, program, tests};

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        verilume::cli::silence_decoders();
        module.add("version", env!("CARGO_PKG_VERSION"))
    }
}

/// Runs the program on `words`, its name first; returns its exit code.
#[pyfunction]
fn program(py: Python<'_>, words: Vec<OsString>) -> u8 {
    py.detach(|| verilume::cli::program(words))
}

/// The registry of methods, as JSON.
#[pyfunction]
fn methods() -> String {
    verilume::cli::methods_json().to_string()
}

/// The registry of methods, as the help of the command line has it.
#[pyfunction]
fn methods_text() -> String {
    verilume::cli::methods_text()
}

/// The registry of metrics, as JSON.
#[pyfunction]
fn metrics() -> String {
    verilume::cli::metrics_json().to_string()
}

/// The tests of trust, as JSON.
#[pyfunction]
fn tests() -> String {
    verilume::cli::tests_json().to_string()
}

/// A map, `[C, H, W]` or `[H, W]`, in colour: over `view`, `[h, w, 3]`, if it is given. `[h, w, 3]`.
#[pyfunction]
fn draw<'py>(
    map: PyReadonlyArrayDyn<'py, f32>,
    sign: &str,
    view: Option<PyReadonlyArray3<'py, u8>>,
    winsorise: Option<f64>,
) -> PyResult<Bound<'py, PyArrayDyn<u8>>> {
    let py = map.py();
    let sign = match sign {
        "signed" => Sign::Signed,
        "unsigned" => Sign::Unsigned,
        _ => Sign::Relative,
    };
    let dims = map.as_array().shape().to_vec();
    let values = Tensor::f32(dims, map.as_slice()?.to_vec()).map_err(|e| raised(py, &e))?;
    let map = Map::new(values, sign, Space::Input, 0, "");
    let mut look = Look::default();
    look.percentile = winsorise.or(look.percentile);
    let drawn = match view {
        Some(view) => picture(&view).and_then(|view| render::overlay(&view, &map, &look)),
        None => render::heatmap(&map, &look),
    };
    pixels(py, &drawn.map_err(|e| raised(py, &e))?)
}

/// A picture `[h, w, 3]` as the bytes of a PNG file.
#[pyfunction]
fn png<'py>(view: PyReadonlyArray3<'py, u8>) -> PyResult<Bound<'py, PyBytes>> {
    let py = view.py();
    let bytes = picture(&view).and_then(|view| render::png(&view));
    Ok(PyBytes::new(py, &bytes.map_err(|e| raised(py, &e))?))
}

/// A picture from an array `[h, w, 3]`.
fn picture(array: &PyReadonlyArray3<'_, u8>) -> verilume::Result<Picture> {
    let shape = array.as_array().shape().to_vec();
    match (&shape[..], array.as_slice()) {
        (&[h, w, 3], Ok(levels)) => Picture::new(w, h, levels.to_vec()),
        _ => Err(verilume::Error::input(format!("an array of shape {shape:?} is not a picture [height, width, 3]"))),
    }
}

/// An array `[h, w, 3]` from a picture.
fn pixels<'py>(py: Python<'py>, picture: &Picture) -> PyResult<Bound<'py, PyArrayDyn<u8>>> {
    array(py, &[picture.height(), picture.width(), 3], picture.rgb())
}

/// An array that owns a copy of `values`.
fn array<'py, T: Element + Copy>(py: Python<'py>, dims: &[usize], values: &[T]) -> PyResult<Bound<'py, PyArrayDyn<T>>> {
    let array = PyArrayDyn::<T>::zeros(py, dims, false);
    array.readwrite().as_slice_mut()?.copy_from_slice(values);
    Ok(array)
}
