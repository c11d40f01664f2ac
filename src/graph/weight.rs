//! Weights as stored, read in the precision that a device needs.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use half::slice::HalfFloatSliceExt;

use crate::error::{Error, Result};
use crate::tensor::Scalar;

/// Bytes that outlive every graph that uses them: a mapped file, an embedded array, a vector.
pub type Bytes = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// How stored numbers are encoded (little endian).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// IEEE half precision.
    F16,
    /// bfloat16.
    Bf16,
    /// IEEE single precision.
    F32,
    /// IEEE double precision.
    F64,
}

impl Encoding {
    /// `f16`, `bf16`, `f32` or `f64`.
    pub const fn name(self) -> &'static str {
        match self {
            Encoding::F16 => "f16",
            Encoding::Bf16 => "bf16",
            Encoding::F32 => "f32",
            Encoding::F64 => "f64",
        }
    }

    /// Bytes of one number.
    pub const fn bytes(self) -> usize {
        match self {
            Encoding::F16 | Encoding::Bf16 => 2,
            Encoding::F32 => 4,
            Encoding::F64 => 8,
        }
    }
}

/// A function of a weight's numbers that is read in their place, element by element.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Part {
    /// The numbers themselves.
    #[default]
    Whole,
    /// `max(w, 0)`.
    Positive,
    /// `min(w, 0)`.
    Negative,
    /// `w²`.
    Square,
    /// 1 for every weight.
    Ones,
    /// `w + γ·max(w, 0)`.
    PositiveRaised(Factor),
    /// `w + γ·min(w, 0)`.
    NegativeRaised(Factor),
}

/// A factor that can be compared and hashed: a double, by its bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Factor(u64);

impl From<f64> for Factor {
    fn from(x: f64) -> Self {
        Self(x.to_bits())
    }
}

impl Factor {
    /// The number.
    pub const fn get(self) -> f64 {
        f64::from_bits(self.0)
    }
}

impl Part {
    /// The value for weight `w`.
    pub fn of(self, w: f64) -> f64 {
        match self {
            Part::Whole => w,
            Part::Positive => w.max(0.0),
            Part::Negative => w.min(0.0),
            Part::Square => w * w,
            Part::Ones => 1.0,
            Part::PositiveRaised(gamma) => w + gamma.get() * w.max(0.0),
            Part::NegativeRaised(gamma) => w + gamma.get() * w.min(0.0),
        }
    }
}

/// Identifies the numbers of a weight: equal ids mean equal numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct WeightId(u64, Part);

impl WeightId {
    /// Identifies the stored numbers, independent of the part.
    pub(crate) const fn stored(self) -> u64 {
        self.0
    }
}

/// The weight of a convolution `[k, c / groups, kh, kw]` or a linear layer `[k, c, 1, 1]`.
///
/// The numbers stay where they are stored; devices convert the rows that they need. Folding a batch norm multiplies
/// each output row by a factor, which is kept separately in double precision.
#[derive(Clone)]
pub struct Weight {
    id: u64,
    dims: [usize; 4],
    bytes: Bytes,
    offset: usize,
    encoding: Encoding,
    row_scale: Option<Arc<[f64]>>,
    part: Part,
    mirrored: bool,
}

impl std::fmt::Debug for Weight {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Weight({:?} {:?}{})",
            self.dims,
            self.encoding,
            if self.row_scale.is_some() { " scaled" } else { "" }
        )
    }
}

fn next_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

impl Weight {
    /// A weight of shape `dims`, stored in `bytes` from byte `offset` on. The numbers should be finite in the precision
    /// of the computation: an infinity may be missed, because products with zeros are skipped; otherwise it makes the
    /// results an error that names the layer.
    ///
    /// # Errors
    /// When the bytes end before the numbers do, or there are no numbers.
    pub fn stored(dims: [usize; 4], bytes: Bytes, offset: usize, encoding: Encoding) -> Result<Self> {
        let count = dims.iter().try_fold(1usize, |n, &d| n.checked_mul(d)).filter(|&n| n > 0);
        let end = count.and_then(|n| n.checked_mul(encoding.bytes())).and_then(|n| n.checked_add(offset));
        let have = (*bytes).as_ref().len();
        if end.is_none_or(|end| end > have) {
            return Err(Error::model(format!("a weight of shape {dims:?} does not fit into {have} bytes")));
        }
        Ok(Self { id: next_id(), dims, bytes, offset, encoding, row_scale: None, part: Part::Whole, mirrored: false })
    }

    /// Copies numbers in C order; errors as [`Weight::stored`].
    pub fn owned(dims: [usize; 4], values: &[f32]) -> Result<Self> {
        let bytes: Vec<u8> = bytemuck::cast_slice(values).to_vec();
        Self::stored(dims, Arc::new(bytes), 0, Encoding::F32)
    }

    /// Takes numbers in C order; errors as [`Weight::stored`].
    pub(crate) fn taking(dims: [usize; 4], values: Vec<f32>) -> Result<Self> {
        struct Floats(Vec<f32>);
        impl AsRef<[u8]> for Floats {
            fn as_ref(&self) -> &[u8] {
                bytemuck::cast_slice(&self.0)
            }
        }
        Self::stored(dims, Arc::new(Floats(values)), 0, Encoding::F32)
    }

    /// The numbers with the sign changed, followed by the numbers themselves: twice as many output channels. Signs are
    /// changed in the stored bits, so nothing is rounded.
    ///
    /// # Errors
    /// When the weight is a part of another, or already mirrored.
    pub fn mirrored(&self) -> Result<Self> {
        if self.part != Part::Whole || self.mirrored {
            return Err(Error::model("mirror a whole weight, once"));
        }
        let size = self.encoding.bytes();
        let own = &(*self.bytes).as_ref()[self.offset..self.offset + self.len() * size];
        let mut bytes = own.to_vec();
        // Little endian: the sign is the highest bit of a number's last byte.
        bytes.iter_mut().skip(size - 1).step_by(size).for_each(|byte| *byte ^= 0x80);
        bytes.extend_from_slice(own);
        let [k, c, kh, kw] = self.dims;
        let row_scale = self.row_scale.as_ref().map(|scale| [&scale[..], &scale[..]].concat().into());
        Ok(Self { row_scale, mirrored: true, ..Self::stored([2 * k, c, kh, kw], Arc::new(bytes), 0, self.encoding)? })
    }

    /// Whether the first half of the output channels are the second half with the sign changed ([`Weight::mirrored`]).
    pub fn is_mirrored(&self) -> bool {
        self.mirrored
    }

    /// Whether `other` holds the same numbers in the same shape, bit for bit.
    #[cfg(feature = "onnx")]
    pub(super) fn is_same(&self, other: &Weight) -> bool {
        fn stored(w: &Weight) -> &[u8] {
            &(*w.bytes).as_ref()[w.offset..w.offset + w.len() * w.encoding.bytes()]
        }
        let form = |w: &Weight| (w.dims, w.encoding, w.part, w.mirrored);
        form(self) == form(other)
            && self.row_scale == other.row_scale
            && (std::ptr::eq(stored(self), stored(other)) || stored(self) == stored(other))
    }

    /// Identifies these numbers: equal ids mean equal numbers.
    pub fn id(&self) -> WeightId {
        WeightId(self.id, self.part)
    }

    /// The same weight with its numbers replaced by `part`; if it is a part already, `part` applies to the whole
    /// weight.
    pub fn part(&self, part: Part) -> Self {
        Self { part, ..self.clone() }
    }

    /// `[k, c / groups, kh, kw]`.
    pub fn dims(&self) -> [usize; 4] {
        self.dims
    }

    /// Output channels.
    pub fn rows(&self) -> usize {
        self.dims[0]
    }

    /// Numbers per output channel.
    pub fn row_len(&self) -> usize {
        self.dims[1] * self.dims[2] * self.dims[3]
    }

    /// Total number of elements.
    pub fn len(&self) -> usize {
        self.rows() * self.row_len()
    }

    /// Always false: a weight holds at least one number.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// How the numbers are stored.
    pub fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// The same weight with output channel `k` multiplied by `scale[k]`.
    ///
    /// # Errors
    /// When `scale` does not have one factor per output channel, or the weight is a part of another.
    pub fn scaled(&self, scale: &[f64]) -> Result<Self> {
        if self.part != Part::Whole {
            return Err(Error::model("scale the whole weight before taking a part of it"));
        }
        if scale.len() != self.rows() {
            return Err(Error::model(format!("{} factors for {} output channels", scale.len(), self.rows())));
        }
        let row_scale = match &self.row_scale {
            None => scale.into(),
            Some(old) => old.iter().zip(scale).map(|(a, b)| a * b).collect(),
        };
        Ok(Self { id: next_id(), row_scale: Some(row_scale), ..self.clone() })
    }

    /// Writes numbers `columns` of output channel `row`, converted (and scaled in double precision), to `out`.
    pub(crate) fn read<T: Scalar>(&self, row: usize, columns: Range<usize>, out: &mut [T]) {
        let scale = self.row_scale.as_ref().map_or(1.0, |s| s[row]);
        let size = self.encoding.bytes();
        let start = self.offset + (row * self.row_len() + columns.start) * size;
        let raw = &(*self.bytes).as_ref()[start..start + columns.len() * size];
        let convert = |x: f64| T::from_f64(self.part.of(x * scale));
        let out = &mut out[..columns.len()];
        if self.row_scale.is_none()
            && self.part == Part::Whole
            && let Ok(singles) = bytemuck::try_cast_slice_mut::<T, f32>(out)
            && T::PRECISION == crate::tensor::Precision::F32
            && self.widen(raw, singles)
        {
            return;
        }
        match self.encoding {
            Encoding::F16 => {
                for (o, b) in out.iter_mut().zip(raw.as_chunks().0) {
                    *o = convert(half::f16::from_le_bytes(*b).to_f64());
                }
            }
            Encoding::Bf16 => {
                for (o, b) in out.iter_mut().zip(raw.as_chunks().0) {
                    *o = convert(half::bf16::from_le_bytes(*b).to_f64());
                }
            }
            Encoding::F32 => {
                for (o, b) in out.iter_mut().zip(raw.as_chunks().0) {
                    *o = convert(f64::from(f32::from_le_bytes(*b)));
                }
            }
            Encoding::F64 => {
                for (o, b) in out.iter_mut().zip(raw.as_chunks().0) {
                    *o = convert(f64::from_le_bytes(*b));
                }
            }
        }
    }

    /// Converts half-precision numbers to single precision, many at a time. Returns false if it cannot: for other
    /// encodings, misaligned numbers or a big-endian machine.
    fn widen(&self, raw: &[u8], out: &mut [f32]) -> bool {
        if cfg!(target_endian = "big") {
            return false;
        }
        match self.encoding {
            Encoding::F16 => {
                let Ok(halves) = bytemuck::try_cast_slice::<u8, half::f16>(raw) else { return false };
                halves.convert_to_f32_slice(out);
            }
            Encoding::Bf16 => {
                for (o, b) in out.iter_mut().zip(raw.as_chunks().0) {
                    *o = f32::from_bits(u32::from(u16::from_le_bytes(*b)) << 16);
                }
            }
            Encoding::F32 | Encoding::F64 => return false,
        }
        true
    }

    /// All numbers `[k][row]` in place, if they are stored as aligned, unscaled `T`.
    pub(crate) fn in_place<T: Scalar>(&self) -> Option<&[T]> {
        let matches = match self.encoding {
            Encoding::F32 => T::PRECISION == crate::tensor::Precision::F32,
            Encoding::F64 => T::PRECISION == crate::tensor::Precision::F64,
            Encoding::F16 | Encoding::Bf16 => false,
        };
        if !matches || self.row_scale.is_some() || self.part != Part::Whole || cfg!(target_endian = "big") {
            return None;
        }
        let raw = &(*self.bytes).as_ref()[self.offset..self.offset + self.len() * self.encoding.bytes()];
        bytemuck::try_cast_slice(raw).ok()
    }

    /// All numbers `[k][row]` in place, at any alignment, if they are stored unscaled in half precision.
    pub(crate) fn halves(&self) -> Option<(Encoding, &[u8])> {
        let matches = matches!(self.encoding, Encoding::F16 | Encoding::Bf16);
        if !matches || self.row_scale.is_some() || self.part != Part::Whole || cfg!(target_endian = "big") {
            return None;
        }
        let end = self.offset + self.len() * self.encoding.bytes();
        Some((self.encoding, &(*self.bytes).as_ref()[self.offset..end]))
    }

    /// All numbers in double precision, `[k, c / groups, kh, kw]` in C order.
    pub fn to_f64(&self) -> Vec<f64> {
        let row = self.row_len();
        let mut out = vec![0.0; self.len()];
        for (k, out) in out.chunks_mut(row).enumerate() {
            self.read(k, 0..row, out);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_taken_whatever_the_encoding() {
        let numbers = [1.5f32, -2.0, 0.25, -0.5];
        let encode = |encoding: Encoding| -> Vec<u8> {
            let bytes = |v: f32| match encoding {
                Encoding::F16 => half::f16::from_f32(v).to_le_bytes().to_vec(),
                Encoding::Bf16 => half::bf16::from_f32(v).to_le_bytes().to_vec(),
                Encoding::F32 => v.to_le_bytes().to_vec(),
                Encoding::F64 => f64::from(v).to_le_bytes().to_vec(),
            };
            numbers.iter().flat_map(|&v| bytes(v)).collect()
        };
        for encoding in [Encoding::F16, Encoding::Bf16, Encoding::F32, Encoding::F64] {
            let weight = Weight::stored([2, 2, 1, 1], Arc::new(encode(encoding)), 0, encoding).unwrap();
            let mut out = [0f32; 2];
            weight.part(Part::Negative).read(1, 0..2, &mut out);
            assert_eq!(out, [0.0, -0.5], "{encoding:?}");
            weight.read(1, 0..2, &mut out);
            assert_eq!(out, [0.25, -0.5], "{encoding:?}");
            assert!(weight.part(Part::Ones).in_place::<f32>().is_none(), "{encoding:?}");
        }
    }
}
