use crate::tensor::Tensor;
#[derive(Debug, Clone)]
pub struct Gap {
    pub promise: &'static str,
    pub value: f64,
    pub relative: f64,
}
#[derive(Debug, Clone)]
pub struct Map {
    pub values: Tensor,
    pub target: usize,
    pub gap: Option<Gap>,
    pub method: String,
}
