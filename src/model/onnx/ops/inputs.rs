//! What a node reads.

use crate::error::{Error, Result};
use crate::model::onnx::constant::Constant;
use crate::model::onnx::file::Node;
use crate::model::onnx::import::{Signal, Value};

/// Inputs of a node.
pub(super) struct Inputs<'i>(pub(super) &'i [Option<Value>]);

impl Inputs<'_> {
    pub(super) fn get(&self, i: usize) -> Option<&Value> {
        self.0.get(i).and_then(Option::as_ref)
    }

    pub(super) fn signal(&self, i: usize) -> Result<&Signal> {
        match self.get(i) {
            Some(Value::Signal(signal)) => Ok(signal),
            Some(Value::Constant(_)) => {
                Err(Error::model(format!("input {i} does not depend on the picture; it should")))
            }
            None => Err(Error::model(format!("input {i} is missing"))),
        }
    }

    pub(super) fn constant(&self, i: usize) -> Result<&Constant> {
        self.optional(i)?.ok_or_else(|| Error::model(format!("input {i} is missing")))
    }

    /// A constant that may be left out.
    pub(super) fn optional(&self, i: usize) -> Result<Option<&Constant>> {
        match self.get(i) {
            Some(Value::Constant(constant)) => Ok(Some(constant)),
            Some(Value::Signal(_)) => {
                Err(Error::model(format!("input {i} depends on the picture; that is not supported")))
            }
            None => Ok(None),
        }
    }

    /// All constants, `None` for signals.
    pub(super) fn constants(&self) -> Vec<Option<&Constant>> {
        self.0
            .iter()
            .map(|v| match v {
                Some(Value::Constant(c)) => Some(c),
                _ => None,
            })
            .collect()
    }
}

pub(super) fn mapped_constant(constant: &Constant, f: impl Fn(f64) -> f64) -> Constant {
    Constant::real(constant.dims.clone(), constant.to_real().iter().map(|&v| f(v)).collect())
}

/// The name of a layer: that of its weight without `.weight`, else the node's.
pub(super) fn layer_name(node: &Node, input: usize) -> String {
    let weight = node.input(input).and_then(|name| name.strip_suffix(".weight"));
    weight.unwrap_or(&node.name).to_owned()
}
