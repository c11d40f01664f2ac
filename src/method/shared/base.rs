//! A method as a parameter of another method, for the wrappers.

use crate::engine::{Batch, Engine, Job};
use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::map::{Map, MapDims, Sign, Space};
use crate::method::{Context, Method, ParameterValues, Spec};

/// Copies per call of the base method.
pub(crate) const TOGETHER: usize = 16;

/// The parsed and built parameter `base`.
pub(crate) struct BaseMethod {
    name: String,
    method: Box<dyn Method>,
}

impl BaseMethod {
    /// The base of the wrapper `id`.
    pub fn new(id: &str, values: &ParameterValues, context: &Context<'_>) -> Result<Self> {
        let within = |e: Error| e.within(format!("{id}:base={}", values.text("base").unwrap_or_default()));
        let spec = of(values)?;
        Ok(Self { name: spec.entry.id.into(), method: spec.build(context).map_err(within)? })
    }

    /// The base's job, if it is exactly one.
    pub fn job(&self) -> Option<(Job, Sign)> {
        self.method.job()
    }

    /// The axes of the base's maps, which must be in input space.
    pub fn map_dims(&self, graph: &Graph) -> Result<MapDims> {
        let (dims, shape) = (self.method.map_dims(graph)?, graph.input_shape());
        match dims.dims() {
            [.., h, w] if [*h, *w] == [shape.h, shape.w] => Ok(dims),
            _ => Err(Error::settings(format!(
                "base {} gives maps of {:?} and not of the input; choose an upsampling",
                self.name,
                dims.dims()
            ))),
        }
    }

    /// The base's maps, which must be in input space because maps of different pictures are compared pixel by pixel.
    pub fn explain(&self, engine: &mut Engine, graph: &Graph, x: &Batch, targets: &[usize]) -> Result<Vec<Map>> {
        let maps =
            self.method.explain(engine, graph, x, targets).map_err(|e| e.within(format!("base {}", self.name)))?;
        if maps.len() != x.len() {
            return Err(Error::device(format!("base {}: {} maps for {} pictures", self.name, maps.len(), x.len())));
        }
        match maps.iter().find(|m| m.space != Space::Input || m.values.len() != maps[0].values.len()) {
            None => Ok(maps),
            Some(map) => Err(Error::settings(format!(
                "base {} gives maps of {:?} and not of the input; choose an upsampling",
                self.name, map.space
            ))),
        }
    }
}

/// The base with all its parameters.
fn of(values: &ParameterValues) -> Result<Spec> {
    Spec::parse(values.text("base")?)
}

/// Whether the base draws random numbers.
pub(crate) fn draws(values: &ParameterValues) -> bool {
    of(values).is_ok_and(|base| base.draws())
}

/// Whether the base's maps are never negative.
pub(crate) fn not_negative(values: &ParameterValues) -> bool {
    of(values).is_ok_and(|base| base.promises().contains(&crate::method::Promise::NotNegative))
}
