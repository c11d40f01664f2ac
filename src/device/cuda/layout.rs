//! Values on the device: `[row][column][channel]`, bits in words of 32 channels a pixel.

use crate::program::{Form, WinnerWidth};
use crate::tensor::Shape;

/// Bytes of one copy's value.
pub(super) const fn bytes(form: Form) -> usize {
    match form {
        Form::Dense(shape) => shape.len() * size_of::<f32>(),
        Form::Bits(shape) => words(shape) * size_of::<u32>(),
        Form::Winners(shape, width) => shape.len() * width.bytes(),
    }
}

/// Words of one copy's bits.
pub(super) const fn words(shape: Shape) -> usize {
    shape.plane() * shape.c.div_ceil(32)
}

/// `[c][h][w]` to `[h][w][c]`.
pub(super) fn interleave<T: Copy>(dense: &[T], shape: Shape) -> impl Iterator<Item = T> + '_ {
    (0..shape.len()).map(move |i| dense[i % shape.c * shape.plane() + i / shape.c])
}

/// `[h][w][c]` to `[c][h][w]`.
pub(super) fn separate<T: Copy>(values: &[T], shape: Shape) -> impl Iterator<Item = T> + '_ {
    (0..shape.len()).map(move |i| values[i % shape.plane() * shape.c + i / shape.plane()])
}

/// Decisions in C order to the bytes of `form`.
pub(super) fn encode_decisions(decisions: &[u16], form: Form) -> Vec<u8> {
    let shape = form.shape();
    let all = interleave(decisions, shape);
    match form {
        Form::Winners(_, WinnerWidth::Two) => all.flat_map(u16::to_ne_bytes).collect(),
        Form::Winners(..) => all.map(|d| d as u8).collect(),
        _ => {
            let mut out = vec![0u32; words(shape)];
            for (i, d) in all.enumerate() {
                let (pixel, c) = (i / shape.c, i % shape.c);
                out[pixel * shape.c.div_ceil(32) + c / 32] |= u32::from(d & 1) << (c % 32);
            }
            bytemuck::cast_slice(&out).to_vec()
        }
    }
}

/// The bytes of `form` to decisions in C order.
pub(super) fn decode_decisions(raw: &[u8], form: Form) -> Vec<u16> {
    let shape = form.shape();
    match form {
        Form::Winners(_, WinnerWidth::Two) => {
            let all: Vec<u16> = raw.as_chunks().0.iter().map(|b| u16::from_ne_bytes(*b)).collect();
            separate(&all, shape).collect()
        }
        Form::Winners(..) => separate(raw, shape).map(u16::from).collect(),
        _ => {
            let all: Vec<u32> = raw.as_chunks().0.iter().map(|b| u32::from_ne_bytes(*b)).collect();
            let per_pixel = shape.c.div_ceil(32);
            let bit = |i: usize| {
                let (c, pixel) = (i / shape.plane(), i % shape.plane());
                (all[pixel * per_pixel + c / 32] >> (c % 32) & 1) as u16
            };
            (0..shape.len()).map(bit).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decisions_come_back() {
        let shape = Shape::new(35, 2, 3);
        for form in [Form::Bits(shape), Form::Winners(shape, WinnerWidth::One), Form::Winners(shape, WinnerWidth::Two)]
        {
            let most = if matches!(form, Form::Bits(_)) { 2 } else { 200 };
            let given: Vec<u16> = (0..shape.len()).map(|i| (i * 7919 % most) as u16).collect();
            let raw = encode_decisions(&given, form);
            assert_eq!(raw.len(), bytes(form));
            assert_eq!(decode_decisions(&raw, form), given);
        }
    }
}
