//! Every operation on every subject: first on small integers, where results must be equal, then on reals, where they
//! must lie within the rounding error that their sums allow.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod checks;
mod convolutions;
mod geometries;
mod linear;
mod nets;
mod pointwise;
mod pools;
#[path = "../reference/mod.rs"]
mod reference;
mod subjects;

use std::cell::RefCell;
use std::sync::Arc;

use checks::*;
use convolutions::*;
use geometries::*;
use linear::*;
use nets::*;
use pointwise::*;
use pools::*;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError};
use reference::cases::{self, Case, Geometry, Numbers};
use reference::{
    Dense, ReluRule, backward, backward_magnitude, forward, forward_is_exact, forward_magnitude, op_divides, op_terms,
};
use subjects::*;
use verilume::ErrorKind;
#[cfg(feature = "cuda")]
use verilume::device::Products;
use verilume::device::cpu::{Convolution, Kernels};
#[cfg(feature = "cuda")]
use verilume::engine::DeviceChoice;
use verilume::engine::{Batch, Engine, Pullback, Settings};
use verilume::graph::{Encoding, Graph, GraphBuilder, Linear, NodeId, Op, Weight};
use verilume::rule::Composite;
use verilume::tensor::{Padding, Precision, Shape, Tensor, Window};

/// Every test on one subject: a set of kernels that this machine lacks is shown as ignored.
macro_rules! tests_of {
    ($name:ident, $subject:expr $(, $attribute:meta)?) => {
        mod $name {
            use super::*;

            tests_of!(@ $subject, [$($attribute)?],
                convolutions_and_linear_layers,
                pools,
                pointwise_and_moving_operations,
                every_node_of_small_nets_is_exact_on_integers,
                pixels_that_no_window_reads_have_no_gradient,
                results_do_not_depend_on_the_batch,
                convolutions_that_skip_the_whole_input,
                zeros_are_skipped,
                every_way_that_weights_are_stored,
                convolutions_of_any_geometry,
                pools_of_any_geometry,
                linear_operations_and_their_pullbacks_are_adjoint,
                items_of_a_batch_do_not_meet,
            );
        }
    };
    // Numbers of few bits hold the integers of single layers, not those of whole nets.
    (few bits: $name:ident, $subject:expr, $attribute:meta) => {
        mod $name {
            use super::*;

            tests_of!(@ $subject, [$attribute],
                convolutions_and_linear_layers,
                pools,
                pointwise_and_moving_operations,
                pixels_that_no_window_reads_have_no_gradient,
                results_do_not_depend_on_the_batch,
                convolutions_that_skip_the_whole_input,
                every_way_that_weights_are_stored,
                convolutions_of_any_geometry,
                linear_operations_and_their_pullbacks_are_adjoint,
                items_of_a_batch_do_not_meet,
                large_tiles_do_as_small_ones,
            );
        }
    };
    (@ $subject:expr, $attributes:tt, $($test:ident,)+) => {
        $(tests_of!(@one $subject, $attributes, $test);)+
    };
    (@one $subject:expr, [$($attribute:meta)?], $test:ident) => {
        $(#[$attribute])?
        #[test]
        fn $test() {
            super::$test(&$subject);
        }
    };
}

tests_of!(the_reference, Reference);

tests_of!(portable_f64, Cpu::new(Precision::F64, Kernels::Portable));

tests_of!(portable_f32, Cpu::new(Precision::F32, Kernels::Portable));

tests_of!(avx2, Cpu::new(Precision::F32, Kernels::Avx2), needs::avx2);

tests_of!(avx512, Cpu::new(Precision::F32, Kernels::Avx512), needs::avx512);

#[cfg(feature = "cuda")]
tests_of!(emulated_f32, Emulated::new(Products::F32, Convolution::Exact), needs::cxx);

#[cfg(feature = "cuda")]
tests_of!(
    few bits: emulated_fast,
    Emulated::new(Products::F32, Convolution::Fast),
    needs::cxx
);

#[cfg(feature = "cuda")]
tests_of!(
    few bits: emulated_f16,
    Emulated::new(Products::F16, Convolution::Fast),
    needs::cxx
);

#[cfg(feature = "cuda")]
tests_of!(
    few bits: emulated_bf16,
    Emulated::new(Products::Bf16, Convolution::Fast),
    needs::cxx
);

/// Without transforms on the way forward, integers are exact where a pooling's adjoint leaves most numbers zero: the way back
/// is not transformed there, or it would round them.
macro_rules! exact_tests_of {
    ($name:ident, $kernels:expr, $attribute:meta) => {
        mod $name {
            use super::*;

            tests_of!(@ Cpu::convolving(Precision::F32, $kernels, Convolution::Exact), [$attribute],
                convolutions_and_linear_layers,
                zeros_are_skipped,
            );
        }
    };
}

exact_tests_of!(avx2_exact, Kernels::Avx2, needs::avx2);

exact_tests_of!(avx512_exact, Kernels::Avx512, needs::avx512);
