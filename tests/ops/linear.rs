//! What the CPU's linear layers do with weights and inputs.

use super::*;

/// Linear layers read weights where they are stored: aligned and not, in every encoding.
pub(crate) fn every_way_that_weights_are_stored(subject: &dyn Subject) {
    for numbers in [Numbers::Integers, Numbers::Reals] {
        for (i, case) in cases::stored(numbers).iter().enumerate() {
            check(subject, case, numbers, 300 + 2 * i as u64).unwrap();
        }
    }
}

/// A linear layer of one graph, with a bias that is zero with a sign in every third row.
pub(crate) fn linear_layer(weight: Weight) -> Case {
    let c = weight.row_len();
    let bias = (0..weight.rows()).map(|k| if k % 3 == 0 { -0.0 } else { k as f64 / 8.0 - 1.0 }).collect();
    Case::of("linear", 1, Shape::vector(c), Op::Linear(Linear { weight, bias: Some(bias) }))
}

pub(crate) fn bits_of(d: &Dense) -> Vec<u64> {
    d.data.iter().map(|v| v.to_bits()).collect()
}

/// Half precision stands for single precision's numbers, at any address: the same bits in both directions.
pub(crate) fn halves_are_what_they_stand_for(subject: &dyn Subject) {
    // Several blocks of columns and of rows, and tails of both.
    let (c, k) = (2085, 37);
    let wide = |encoding: Encoding, bits: u16| match encoding {
        Encoding::F16 => half::f16::from_bits(bits).to_f32(),
        _ => half::bf16::from_bits(bits).to_f32(),
    };
    for encoding in [Encoding::F16, Encoding::Bf16] {
        // All exponents below 1: subnormal numbers too.
        let below = if encoding == Encoding::F16 { 0xbbff } else { 0xbfff };
        let halves: Vec<u16> = (0..k * c).map(|i| cases::scrambled(31, i) as u16 & below).collect();
        let widened: Vec<f32> = halves.iter().map(|&bits| wide(encoding, bits)).collect();
        let whole = linear_layer(Weight::owned([k, c, 1, 1], &widened).unwrap());
        for odd in [0, 1] {
            let bytes: Vec<u8> = vec![0; odd].into_iter().chain(halves.iter().flat_map(|h| h.to_le_bytes())).collect();
            let half = linear_layer(Weight::stored([k, c, 1, 1], Arc::new(bytes), odd, encoding).unwrap());
            for n in 1..=17 {
                let x = Numbers::Reals.maps(32, n, Shape::vector(c));
                let [got, want] = [&half, &whole].map(|case| {
                    let out = subject.outputs(&case.graph, &x, &[case.node]).swap_remove(0);
                    let seed = Numbers::Reals.maps(33, n, out.shape);
                    let input = case.graph.input();
                    let back = subject.pullback(&case.graph, &x, case.node, &seed, ReluRule::Vjp, input);
                    [out, back].map(|d| bits_of(&d))
                });
                assert!(got == want, "{}: {} at {odd}, {n} copies", subject.name(), encoding.name());
            }
        }
    }
}

/// Columns that are zero in every copy are not read: the same bits as beside a copy that is zero nowhere.
pub(crate) fn zeros_are_left_out_unseen(subject: &dyn Subject) {
    let (c, k) = (2085, 37);
    let mut weights: Vec<f32> = Numbers::Reals.fill(41, k * c, 1).iter().map(|&w| w as f32).collect();
    // Products so small that a fused sum is rounded to −0, which any product with zero but those of the tail makes +0.
    weights[..c].fill(1e-30);
    weights[..32].fill(-1e-30);
    weights[c - 5..c].fill(-1e-30);
    let case = linear_layer(Weight::owned([k, c, 1, 1], &weights).unwrap());
    let dense = Numbers::Reals.maps(42, 1, Shape::vector(c));
    assert!(dense.data.iter().all(|&x| x != 0.0));
    let number = |n: usize, i: usize| dense.data[(i + 13 * n) % c];
    let random = |salt: u64, i: usize| cases::scrambled(salt, i) % 100;
    type Pattern<'a> = (&'a str, Box<dyn Fn(usize, usize) -> f64 + 'a>);
    let kept = |keep: bool, x: f64| if keep { x } else { 0.0 };
    let patterns: [Pattern<'_>; 9] = [
        ("half of the vectors", Box::new(|n, i| kept(random(43, i / 16) < 50, number(n, i)))),
        ("nine vectors of ten", Box::new(|n, i| kept(random(44, i / 16) >= 90, number(n, i)))),
        ("other vectors in every copy", Box::new(|n, i| kept(random(45 + n as u64, i / 8) >= 95, number(n, i)))),
        ("vectors of odd place", Box::new(|n, i| kept(i / 16 % 2 == 0, number(n, i)))),
        ("channels of 49", Box::new(|n, i| kept(random(46, i / 49) < 30, number(n, i)))),
        ("single numbers", Box::new(|n, i| kept(random(47, i) < 60, number(n, i)))),
        ("all but one", Box::new(|n, i| kept(i == 1500, number(n, i)))),
        ("zeros of both signs", Box::new(|n, i| if (n + i) % 3 == 0 { -0.0 } else { 0.0 })),
        ("tiny", Box::new(|_, i| kept(i < 32, 1e-30))),
    ];
    for (what, pattern) in &patterns {
        let items: Vec<Vec<f64>> = (0..17).map(|n| (0..c).map(|i| pattern(n, i)).collect()).collect();
        let outputs = |x: &Dense| subject.outputs(&case.graph, x, &[case.node]).swap_remove(0);
        let beside: Vec<Vec<u64>> = items
            .iter()
            .map(|item| {
                let pair = item.iter().chain(&dense.data).copied().collect();
                bits_of(&outputs(&Dense::new(dense.shape, pair)).item(0))
            })
            .collect();
        for n in 1..=17 {
            let out = outputs(&Dense::new(dense.shape, items[..n].concat()));
            for (i, want) in beside[..n].iter().enumerate() {
                assert!(bits_of(&out.item(i)) == *want, "{}: {what}, copy {i} of {n}", subject.name());
            }
        }
    }
}

/// What the CPU's linear layers do with weights and inputs, on one set of kernels.
macro_rules! linear_tests_of {
    ($name:ident, $precision:ident, $kernels:ident $(, $attribute:meta)?) => {
        mod $name {
            use super::*;

            $(#[$attribute])?
            #[test]
            fn halves_are_what_they_stand_for() {
                super::halves_are_what_they_stand_for(&Cpu::new(Precision::$precision, Kernels::$kernels));
            }

            $(#[$attribute])?
            #[test]
            fn zeros_are_left_out_unseen() {
                super::zeros_are_left_out_unseen(&Cpu::new(Precision::$precision, Kernels::$kernels));
            }
        }
    };
}

linear_tests_of!(linear_portable_f64, F64, Portable);

linear_tests_of!(linear_portable_f32, F32, Portable);

linear_tests_of!(linear_avx2, F32, Avx2, needs::avx2);

linear_tests_of!(linear_avx512, F32, Avx512, needs::avx512);
