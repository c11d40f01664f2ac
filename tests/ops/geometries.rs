//! Drawn convolutions and pools.

use super::*;

pub(crate) fn axes(range: std::ops::RangeInclusive<usize>) -> impl Strategy<Value = [usize; 2]> {
    [range.clone(), range]
}

pub(crate) fn padding() -> impl Strategy<Value = Padding> {
    let explicit = (0usize..4, 0usize..4, 0usize..4, 0usize..4);
    prop_oneof![
        4 => explicit.prop_map(|(top, bottom, left, right)| Padding::Explicit { top, bottom, left, right }),
        1 => Just(Padding::Same),
    ]
}

/// Batch, input shape and geometry of a convolution that fits.
pub(crate) fn convolution() -> impl Strategy<Value = (usize, Shape, Geometry)> {
    let channels = prop_oneof![
        (1usize..20, 1usize..20).prop_map(|(c, k)| (c, k, 1)),
        (1usize..5, 1usize..5, 1usize..9).prop_map(|(c, k, groups)| (c * groups, k * groups, groups)),
        (1usize..20, 1usize..3).prop_map(|(c, multiplier)| (c, c * multiplier, c)),
    ];
    let window = (axes(1..=5), axes(1..=3), axes(1..=2), padding());
    (1usize..4, channels, axes(1..=15), window, any::<bool>())
        .prop_map(|(n, (c, k, groups), [h, w], (kernel, stride, dilation, padding), bias)| {
            let geometry = Geometry { c, k, kernel, stride, dilation, padding, groups, bias };
            (n, Shape::new(c, h, w), geometry)
        })
        .prop_filter("the window fits", |(_, input, g)| g.conv(Numbers::Integers).output(&[*input]).is_ok())
}

/// Batch, input shape and a pool that fits.
pub(crate) fn pool() -> impl Strategy<Value = (usize, Shape, Op)> {
    let window = || {
        (axes(1..=5), axes(1..=4), axes(1..=2), padding(), any::<bool>())
            .prop_map(|(kernel, stride, dilation, padding, ceil)| Window { kernel, stride, dilation, padding, ceil })
    };
    let op = prop_oneof![
        window().prop_map(Op::MaxPool),
        (window(), any::<bool>()).prop_map(|(window, count_padding)| Op::AvgPool { window, count_padding }),
        axes(1..=9).prop_map(|out| Op::AdaptiveAvgPool { out }),
    ];
    (1usize..4, 1usize..20, axes(1..=15), op)
        .prop_map(|(n, c, [h, w], op)| (n, Shape::new(c, h, w), op))
        .prop_filter("the window fits", |(_, input, op)| op.output(&[*input]).is_ok())
}

pub(crate) fn config(cases: u32) -> Config {
    Config { cases, failure_persistence: None, ..Config::default() }
}
