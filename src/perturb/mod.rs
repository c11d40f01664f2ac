//! Where copies of a picture come from.

pub mod quadrature;
