//! Which source positions and taps a convolution's output positions read, forwards and backwards.

use crate::program::ConvLayer;

/// Which way a signal goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum PassDirection {
    Forward,
    Adjoint,
}

/// One axis of a launch: output position `q · out_mul + out_add` for `q < grid` reads source position
/// `q · mul + add + i · step` through tap `first + i · every` for `i < taps`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Axis {
    pub grid: i32,
    pub mul: i32,
    pub add: i32,
    pub step: i32,
    pub taps: i32,
    pub first: i32,
    pub every: i32,
    pub out_mul: i32,
    pub out_add: i32,
}

/// Sizes of a convolution along one axis.
#[derive(Debug, Clone, Copy)]
struct Extents {
    input: i32,
    output: i32,
    kernel: i32,
    stride: i32,
    dilation: i32,
    pad: i32,
}

impl Extents {
    fn new(layer: &ConvLayer, axis: usize) -> Self {
        let pads = layer.window.pads(layer.input.h, layer.input.w);
        Self {
            input: [layer.input.h, layer.input.w][axis] as i32,
            output: [layer.output.h, layer.output.w][axis] as i32,
            kernel: layer.window.kernel[axis] as i32,
            stride: layer.window.stride[axis] as i32,
            dilation: layer.window.dilation[axis] as i32,
            pad: pads[axis][0] as i32,
        }
    }

    fn forward(self) -> Axis {
        Axis {
            grid: self.output,
            mul: self.stride,
            add: -self.pad,
            step: self.dilation,
            taps: self.kernel,
            first: 0,
            every: 1,
            out_mul: 1,
            out_add: 0,
        }
    }

    /// Input positions `phase`, `phase + stride`, … are reached through the same taps.
    fn adjoint(self, phase: i32) -> Axis {
        let every = self.stride / gcd(self.stride, self.dilation);
        let reaches = |tap: &i32| (phase + self.pad - tap * self.dilation).rem_euclid(self.stride) == 0;
        let first = (0..self.kernel.min(every)).find(reaches);
        let base = first.unwrap_or(0);
        Axis {
            grid: (self.input - phase + self.stride - 1) / self.stride,
            mul: 1,
            add: (phase + self.pad - base * self.dilation).div_euclid(self.stride),
            step: -(every * self.dilation / self.stride),
            taps: first.map_or(0, |f| (self.kernel - f + every - 1) / every),
            first: base,
            every,
            out_mul: self.stride,
            out_add: phase,
        }
    }
}

fn gcd(a: i32, b: i32) -> i32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// The launches that together write every output position of `layer` in `direction`, as `[rows, columns]` each.
pub(super) fn launches(layer: &ConvLayer, direction: PassDirection) -> Vec<[Axis; 2]> {
    let [rows, columns] = [0, 1].map(|axis| Extents::new(layer, axis));
    match direction {
        PassDirection::Forward => vec![[rows.forward(), columns.forward()]],
        PassDirection::Adjoint => {
            let phases = |e: Extents| (0..e.stride.min(e.input)).map(move |phase| e.adjoint(phase));
            phases(rows).flat_map(|row| phases(columns).map(move |column| [row, column])).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every (input, output, tap) triple of the definition is met once, from both sides.
    #[test]
    fn both_directions_meet_the_same_products() {
        for (input, kernel, stride, dilation, pad) in [
            (9, 3, 1, 1, 1),
            (9, 3, 2, 1, 1),
            (10, 5, 3, 2, 4),
            (7, 1, 2, 1, 0),
            (11, 4, 4, 2, 3),
            (3, 2, 5, 1, 0),
            (12, 3, 2, 4, 5),
        ] {
            let span = (kernel - 1) * dilation + 1;
            let output = (input + 2 * pad - span) / stride + 1;
            let e = Extents { input, output, kernel, stride, dilation, pad };
            let mut want: Vec<(i32, i32, i32)> = Vec::new();
            for o in 0..output {
                for tap in 0..kernel {
                    let i = o * stride + tap * dilation - pad;
                    if (0..input).contains(&i) {
                        want.push((i, o, tap));
                    }
                }
            }
            let collect = |axis: Axis, extent: i32, forward: bool| -> Vec<(i32, i32, i32)> {
                let all = (0..axis.grid).flat_map(|q| (0..axis.taps).map(move |i| (q, i)));
                all.filter_map(|(q, i)| {
                    let source = q * axis.mul + axis.add + i * axis.step;
                    let (to, tap) = (q * axis.out_mul + axis.out_add, axis.first + i * axis.every);
                    (0..extent).contains(&source).then_some(if forward { (source, to, tap) } else { (to, source, tap) })
                })
                .collect()
            };
            let mut got = collect(e.forward(), input, true);
            got.sort_unstable();
            want.sort_unstable();
            assert_eq!(got, want, "{e:?} forwards");
            let mut got: Vec<_> =
                (0..stride.min(input)).flat_map(|phase| collect(e.adjoint(phase), output, false)).collect();
            got.sort_unstable();
            assert_eq!(got, want, "{e:?} backwards");
        }
    }
}
