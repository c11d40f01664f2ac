//! The tensors of a safetensors file. Each is checked when it is read, and each must be read.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use safetensors::Dtype;

use super::extras;
use crate::error::{Error, Result};
use crate::graph::{BatchNorm, Bytes, Encoding, Weight};
use crate::tensor::{MOST_HEADER_BYTES, safetensors_header};

#[derive(Clone)]
pub(super) struct StoredTensor {
    /// Name in the file.
    pub(super) name: String,
    /// Type in the file.
    written: Dtype,
    pub(super) dtype: Dtype,
    pub(super) shape: Vec<usize>,
    bytes: Bytes,
    /// First byte within `bytes`.
    offset: usize,
}

/// One tensor of a net.
#[derive(Debug, Clone, PartialEq)]
pub struct Blueprint {
    /// Name in the weights file.
    pub name: String,
    /// Dimensions.
    pub shape: Vec<usize>,
    pub(super) fill: WeightFill,
}

/// What random weights hold instead of trained values.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum WeightFill {
    /// Uniform around zero with this standard deviation.
    Spread(f32),
    /// Normal around zero with this standard deviation.
    Normal(f32),
    /// Uniform from 0.5 to 1.5: scales and variances. Plain ones would hide errors.
    Around,
}

/// The tensors of one file and which of them the net has used; or those that the draft of a published net asks for.
///
/// A tensor's key is the name by which the families know it; [`StoredTensor::name`] is the name in the file.
#[derive(Clone)]
pub(super) struct Tensors {
    metadata: BTreeMap<String, String>,
    pub(super) stored: BTreeMap<String, StoredTensor>,
    used: BTreeSet<String>,
    draft: Option<Draft>,
    /// Who writes the names that were replaced by the families' own; empty if nothing but a prefix was.
    pub(super) dialect: &'static str,
    /// Whether someone said what the net is.
    pub(super) told: bool,
    /// Probable mistakes, one sentence each.
    pub(super) warnings: Vec<String>,
    /// Properties of the net that its names and shapes do not determine.
    pub(super) assumed: Vec<&'static str>,
}

/// A published net that is built without a file, to learn its tensors.
#[derive(Clone)]
struct Draft {
    /// Its published name.
    net: &'static str,
    tensors: Vec<Blueprint>,
}

/// The expected shape, such as `[8, *, 3, 3]`.
fn shown(expected: &[Option<usize>]) -> String {
    let dims: Vec<String> = expected.iter().map(|d| d.map_or("*".into(), |d| d.to_string())).collect();
    format!("[{}]", dims.join(", "))
}

fn encoding(dtype: Dtype) -> Option<Encoding> {
    match dtype {
        Dtype::F16 => Some(Encoding::F16),
        Dtype::BF16 => Some(Encoding::Bf16),
        Dtype::F32 => Some(Encoding::F32),
        Dtype::F64 => Some(Encoding::F64),
        _ => None,
    }
}

/// Numbers that are looked at together, without a branch among them.
const LOOKED_AT: usize = 1 << 12;

/// Position of the first number whose exponent has all bits set: a NaN or an infinity. `carried` adds one to the last bit of
/// the exponent and gives the sign bit, which is set by the carry.
fn first_odd<const N: usize>(raw: &[u8], carried: impl Fn([u8; N]) -> u64) -> Option<usize> {
    let numbers = raw.as_chunks::<N>().0;
    let (part, odd) =
        numbers.chunks(LOOKED_AT).enumerate().find(|(_, part)| part.iter().fold(0, |any, b| any | carried(*b)) != 0)?;
    Some(part * LOOKED_AT + odd.iter().position(|b| carried(*b) != 0)?)
}

/// As [`first_odd`] for single precision, in its own width.
fn first_odd_single(raw: &[u8]) -> Option<usize> {
    let carried = |b: &[u8; 4]| ((u32::from_le_bytes(*b) & 0x7fff_ffff) + 0x0080_0000) & 0x8000_0000;
    let numbers = raw.as_chunks::<4>().0;
    let (part, odd) =
        numbers.chunks(LOOKED_AT).enumerate().find(|(_, part)| part.iter().fold(0, |any, b| any | carried(b)) != 0)?;
    Some(part * LOOKED_AT + odd.iter().position(|b| carried(b) != 0)?)
}

/// The first number that is NaN or infinite: its position and which of the two it is.
fn first_not_finite(raw: &[u8], encoding: Encoding) -> Option<(usize, &'static str)> {
    let half = |b: [u8; 2], last: u64| ((u64::from(u16::from_le_bytes(b)) & 0x7fff) + last) & 0x8000;
    let at = match encoding {
        Encoding::F16 => first_odd(raw, |b| half(b, 0x0400)),
        Encoding::Bf16 => first_odd(raw, |b| half(b, 0x0080)),
        Encoding::F32 => first_odd_single(raw),
        Encoding::F64 => first_odd(raw, |b| ((u64::from_le_bytes(b) & !(1 << 63)) + (1 << 52)) & 1 << 63),
    }?;
    let size = encoding.bytes();
    let number = Weight::stored([1; 4], Arc::new(raw[at * size..(at + 1) * size].to_vec()), 0, encoding).ok()?;
    Some((at, if number.to_f64()[0].is_nan() { "NaN" } else { "infinity" }))
}

/// Refuses numbers of shape `dims` that are not finite; the error says which and where.
#[cfg(feature = "onnx")]
pub(super) fn finite(raw: &[u8], encoding: Encoding, dims: &[usize]) -> std::result::Result<(), String> {
    match first_not_finite(raw, encoding) {
        Some((flat, what)) => Err(format!("{what} at {:?}", position(flat, dims))),
        None => Ok(()),
    }
}

/// The flat position as one index per axis.
fn position(mut flat: usize, shape: &[usize]) -> Vec<usize> {
    let mut index: Vec<usize> = shape
        .iter()
        .rev()
        .map(|&d| {
            let i = flat % d.max(1);
            flat /= d.max(1);
            i
        })
        .collect();
    index.reverse();
    index
}

impl Tensors {
    /// Reads the header of a safetensors file.
    pub(super) fn parse(bytes: Bytes) -> Result<Self> {
        let file = (*bytes).as_ref();
        let Some((length, rest)) = file.split_first_chunk() else {
            return Err(Error::model(format!("{} bytes are too few for a safetensors file", file.len())));
        };
        let length = u64::from_le_bytes(*length);
        let Some(length) = usize::try_from(length).ok().filter(|&n| n <= MOST_HEADER_BYTES) else {
            return Err(Error::model(format!("not a safetensors file: its header would take {length} bytes")));
        };
        let Some((header, data)) = rest.split_at_checked(length) else {
            return Err(Error::model(format!(
                "truncated, or not a safetensors file: a header of {length} bytes in a file of {}",
                file.len()
            )));
        };
        if header.first() != Some(&b'{') {
            return Err(Error::model("not a safetensors file: the header is not a JSON object"));
        }
        let metadata =
            safetensors_header(header).map_err(|e| Error::model(format!("the safetensors header is damaged: {e}")))?;
        if metadata.data_len() != data.len() {
            return Err(Error::model(format!(
                "{}: the header describes {} bytes of tensors, the file has {}",
                if metadata.data_len() > data.len() { "truncated" } else { "surplus bytes at the end" },
                metadata.data_len(),
                data.len()
            )));
        }
        let start = file.len() - data.len();
        let mut stored = BTreeMap::new();
        for (name, info) in metadata.tensors() {
            let (from, to) = info.data_offsets;
            if from > to || to > data.len() {
                return Err(Error::model(format!("tensor '{name}' lies outside the file")));
            }
            let (dtype, shape) = (info.dtype, info.shape.clone());
            let (bytes, offset) = (bytes.clone(), start + from);
            stored.insert(name.clone(), StoredTensor { name, written: dtype, dtype, shape, bytes, offset });
        }
        if stored.is_empty() {
            return Err(Error::model("the file holds no tensors"));
        }
        let metadata = metadata.metadata().iter().flatten().map(|(key, value)| (key.clone(), value.clone())).collect();
        let mut tensors = Self::of(metadata, stored, None);
        tensors.fold_products()?;
        Ok(tensors)
    }

    /// Adds the tensors of another file of the same net; of metadata with the same key the first count.
    ///
    /// # Errors
    /// When a tensor is in both.
    pub(super) fn join(&mut self, more: Self) -> Result<()> {
        for (name, tensor) in more.stored {
            if self.stored.contains_key(&name) {
                return Err(Error::model(format!("tensor '{name}' is in another shard too")));
            }
            self.stored.insert(name, tensor);
        }
        for (key, value) in more.metadata {
            self.metadata.entry(key).or_insert(value);
        }
        Ok(())
    }

    fn of(metadata: BTreeMap<String, String>, stored: BTreeMap<String, StoredTensor>, draft: Option<Draft>) -> Self {
        Self {
            metadata,
            stored,
            used: BTreeSet::new(),
            draft,
            dialect: "",
            told: false,
            warnings: Vec::new(),
            assumed: Vec::new(),
        }
    }

    /// No file, but a record of the tensors that the published net `net` asks for; their numbers are zeros.
    pub(super) fn draft(net: &'static str) -> Self {
        Self::of(BTreeMap::new(), BTreeMap::new(), Some(Draft { net, tensors: Vec::new() }))
    }

    /// The published name of the net that is drafted; `None` if there is a file.
    pub(super) fn drafted(&self) -> Option<&'static str> {
        self.draft.as_ref().map(|draft| draft.net)
    }

    /// The tensors that the net asked for, in that order.
    pub(super) fn blueprint(self) -> Vec<Blueprint> {
        self.draft.map_or_else(Vec::new, |draft| draft.tensors)
    }

    /// The header's `__metadata__`.
    pub(super) fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// All names in alphabetical order, without those of what training keeps beside a net.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.stored.keys().map(String::as_str).filter(|name| !extras::is_extra(name))
    }

    /// The same file with its tensors under other names.
    pub(super) fn with(&self, stored: BTreeMap<String, StoredTensor>, dialect: &'static str) -> Self {
        Self { stored, dialect, ..self.clone() }
    }

    /// The name in the file of the tensor that families call `name`.
    pub(super) fn in_file<'a>(&'a self, name: &'a str) -> &'a str {
        self.stored.get(name).map_or(name, |tensor| &tensor.name)
    }

    /// Replaces weights that are stored as products by what they come to: weight norm (Salimans 2016) and pruning masks.
    fn fold_products(&mut self) -> Result<()> {
        type Fold = fn(&StoredTensor, &StoredTensor) -> Result<Vec<f64>>;
        const PRODUCTS: [(&str, &str, &str, Fold); 4] = [
            ("weight_g", "weight_v", "weight", scaled_rows),
            ("parametrizations.weight.original0", "parametrizations.weight.original1", "weight", scaled_rows),
            ("weight_mask", "weight_orig", "weight", masked),
            ("bias_mask", "bias_orig", "bias", masked),
        ];
        for (factor, base, whole, fold) in PRODUCTS {
            let names: Vec<String> =
                self.stored.keys().filter_map(|name| name.strip_suffix(factor)).map(str::to_string).collect();
            for layer in names.iter().filter(|layer| layer.is_empty() || layer.ends_with('.')) {
                let (first, second) = (format!("{layer}{factor}"), format!("{layer}{base}"));
                let Some((by, of)) = self.stored.get(&first).zip(self.stored.get(&second)) else { continue };
                let values = fold(by, of)?;
                let folded = StoredTensor {
                    name: of.name.clone(),
                    written: of.dtype,
                    dtype: Dtype::F64,
                    shape: of.shape.clone(),
                    bytes: Arc::new(values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>()),
                    offset: 0,
                };
                let whole = format!("{layer}{whole}");
                if self.stored.contains_key(&whole) {
                    return Err(Error::model(format!(
                        "tensor '{whole}' is there, and as '{first}' and '{second}' too"
                    )));
                }
                [first, second].iter().for_each(|name| drop(self.stored.remove(name)));
                self.stored.insert(whole, folded);
            }
        }
        Ok(())
    }

    /// Weights of linear layers that nothing has read: names without `.weight`, alphabetical.
    pub(super) fn unread_layers(&self) -> Vec<&str> {
        let unread = self.names().filter(|name| !self.used.contains(*name));
        unread.filter_map(|name| name.strip_suffix(".weight").filter(|_| self.stored[name].shape.len() == 2)).collect()
    }

    /// How many tensors the net has read.
    pub(super) fn count_read(&self) -> usize {
        self.used.len()
    }

    /// Whether the net has read a tensor whose name has the same first part.
    pub(super) fn reads_beside(&self, name: &str) -> bool {
        self.used.iter().any(|used| extras::root(used) == extras::root(name))
    }

    /// Batch norms that nothing has read, as [`Tensors::unread_layers`].
    pub(super) fn unread_norms(&self) -> Vec<&str> {
        let unread = self.names().filter(|name| !self.used.contains(*name));
        unread.filter_map(|name| name.strip_suffix(".running_mean")).collect()
    }

    /// Reads a tensor of more than two dimensions as a matrix: the first dimension by all others.
    pub(super) fn flatten(&mut self, name: &str) {
        if let Some(tensor) = self.stored.get_mut(name).filter(|t| t.shape.len() > 2) {
            tensor.shape = vec![tensor.shape[0], tensor.shape[1..].iter().product()];
        }
    }

    /// Drops dimensions of one from a tensor's shape, but not the last `keep` dimensions.
    pub(super) fn squeeze(&mut self, name: &str, keep: usize) {
        if let Some(tensor) = self.stored.get_mut(name) {
            while tensor.shape.len() > keep && tensor.shape.last() == Some(&1) {
                tensor.shape.pop();
            }
        }
    }

    /// Adds dimensions of one until a tensor has `n`.
    pub(super) fn unsqueeze(&mut self, name: &str, n: usize) {
        if let Some(tensor) = self.stored.get_mut(name) {
            tensor.shape.resize(n.max(tensor.shape.len()), 1);
        }
    }

    /// Takes dimensions of one off a tensor until it is a vector, if it can be.
    pub(super) fn as_vector(&mut self, name: &str) {
        if let Some(tensor) = self.stored.get_mut(name)
            && tensor.shape.iter().filter(|&&n| n != 1).count() <= 1
        {
            tensor.shape = vec![tensor.shape.iter().product()];
        }
    }

    /// A property that is assumed.
    pub(super) fn assume(&mut self, what: &'static str) {
        self.assumed.push(what);
    }

    /// A probable mistake, in one sentence.
    pub(super) fn warn(&mut self, warning: impl Into<String>) {
        self.warnings.push(warning.into());
    }

    /// Whether there is a tensor of that name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.stored.contains_key(name)
    }

    /// Shape of a tensor, if it is there.
    pub(super) fn shape(&self, name: &str) -> Option<&[usize]> {
        self.stored.get(name).map(|t| t.shape.as_slice())
    }

    /// How many of the numbers used by the net are stored in each encoding.
    pub(super) fn encodings(&self) -> BTreeMap<&'static str, usize> {
        let mut counts = BTreeMap::new();
        for (_, tensor) in self.stored.iter().filter(|(name, _)| self.used.contains(*name)) {
            if let Some(encoding) = encoding(tensor.written) {
                *counts.entry(encoding.name()).or_insert(0) += tensor.shape.iter().product::<usize>();
            }
        }
        counts
    }

    /// Checks shape, type and numbers of a tensor and marks it as used; `None` accepts any size but zero. A draft
    /// records the tensor, to be filled by `fill`, and needs every size.
    fn take<const N: usize>(
        &mut self,
        name: &str,
        expected: [Option<usize>; N],
        fill: WeightFill,
    ) -> Result<([usize; N], Bytes, usize, Encoding)> {
        if let Some(draft) = &mut self.draft {
            let shape = expected.into_iter().collect::<Option<Vec<usize>>>();
            let dims = shape.as_deref().and_then(|shape| shape.try_into().ok());
            let Some((shape, dims)) = shape.clone().zip(dims) else {
                return Err(Error::model(format!("the draft of {} has no size for tensor '{name}'", draft.net)));
            };
            let zeros = vec![0u8; shape.iter().product::<usize>() * Encoding::F32.bytes()];
            draft.tensors.push(Blueprint { name: name.to_string(), shape, fill });
            return Ok((dims, Arc::new(zeros), 0, Encoding::F32));
        }
        let Some(tensor) = self.stored.get(name) else {
            let translated = match self.dialect {
                "" => String::new(),
                dialect => format!(" (the file has the names of {dialect}; this is the family's own)"),
            };
            let shape = shown(&expected);
            return Err(Error::model(format!("tensor '{name}' is missing; expected shape {shape}{translated}")));
        };
        let dims: Option<[usize; N]> = tensor.shape.as_slice().try_into().ok();
        let suits = |dims: &[usize; N]| dims.iter().zip(&expected).all(|(&d, e)| d > 0 && e.is_none_or(|e| e == d));
        let Some(dims) = dims.filter(suits) else {
            return Err(Error::model(format!(
                "tensor '{}' has shape {:?}, expected {}",
                tensor.name,
                tensor.shape,
                shown(&expected)
            )));
        };
        let Some(encoding) = encoding(tensor.dtype) else {
            return Err(Error::model(format!(
                "tensor '{}' is stored as {:?}, expected F16, BF16, F32 or F64",
                tensor.name, tensor.dtype
            )));
        };
        if let Some((flat, what)) = first_not_finite(tensor.raw(encoding), encoding) {
            return Err(Error::model(format!("tensor '{}' holds {what} at {:?}", tensor.name, position(flat, &dims))));
        }
        self.used.insert(name.to_string());
        Ok((dims, tensor.bytes.clone(), tensor.offset, encoding))
    }

    /// Weight of a convolution `[k, c / groups, kh, kw]`.
    pub(super) fn conv_weight(&mut self, name: &str, expected: [Option<usize>; 4], fill: WeightFill) -> Result<Weight> {
        let (dims, bytes, offset, encoding) = self.take(name, expected, fill)?;
        Weight::stored(dims, bytes, offset, encoding)
    }

    /// Weight of a linear layer `[k, c]`.
    pub(super) fn linear_weight(
        &mut self,
        name: &str,
        expected: [Option<usize>; 2],
        fill: WeightFill,
    ) -> Result<Weight> {
        let ([k, c], bytes, offset, encoding) = self.take(name, expected, fill)?;
        Weight::stored([k, c, 1, 1], bytes, offset, encoding)
    }

    /// The taps of a convolution `[1, 1, k]` along channels, an odd number up to `most`.
    pub(super) fn taps(&mut self, name: &str, most: usize) -> Result<Vec<f64>> {
        let (dims, bytes, offset, encoding) = self.take(name, [Some(1), Some(1), None], WeightFill::Spread(0.05))?;
        if dims[2].is_multiple_of(2) || dims[2] > most {
            return Err(Error::model(format!(
                "tensor '{name}' has shape {dims:?}, expected an odd number of taps up to {most}"
            )));
        }
        Ok(Weight::stored([1, 1, 1, dims[2]], bytes, offset, encoding)?.to_f64())
    }

    /// A vector of `len` numbers.
    pub(super) fn vector(&mut self, name: &str, len: usize, fill: WeightFill) -> Result<Arc<[f64]>> {
        let (_, bytes, offset, encoding) = self.take(name, [Some(len)], fill)?;
        let stored = Weight::stored([len, 1, 1, 1], bytes, offset, encoding)?;
        Ok(stored.to_f64().into())
    }

    /// `len` numbers of shape `[len, 1, 1]`.
    pub(super) fn plane_vector(&mut self, name: &str, len: usize, fill: WeightFill) -> Result<Arc<[f64]>> {
        let (_, bytes, offset, encoding) = self.take(name, [Some(len), Some(1), Some(1)], fill)?;
        Ok(Weight::stored([len, 1, 1, 1], bytes, offset, encoding)?.to_f64().into())
    }

    /// The batch norm `name` on `channels` channels.
    pub(super) fn batch_norm(&mut self, name: &str, channels: usize, eps: f64) -> Result<BatchNorm> {
        let mut vector = |kind: &str, fill| self.vector(&format!("{name}.{kind}"), channels, fill);
        let norm = BatchNorm {
            gamma: vector("weight", WeightFill::Around)?,
            beta: vector("bias", WeightFill::Normal(0.1))?,
            mean: vector("running_mean", WeightFill::Normal(0.1))?,
            variance: vector("running_var", WeightFill::Around)?,
            eps,
        };
        if let Some(k) = norm.variance.iter().position(|v| v + eps <= 0.0) {
            return Err(Error::model(format!(
                "tensor '{}' holds {} at [{k}], expected a variance",
                self.in_file(&format!("{name}.running_var")),
                norm.variance[k]
            )));
        }
        Ok(norm)
    }

    /// Leaves out all tensors whose names start with `prefix`: a part of the net that only training uses.
    pub(super) fn set_aside(&mut self, prefix: &str) {
        self.stored.retain(|name, _| !name.starts_with(prefix));
    }

    /// Refuses tensors that the net has not used, except batch norms' counters, which may have any type. What training
    /// keeps beside a net is left out with a warning.
    pub(super) fn finish(&mut self) -> Result<()> {
        let counts_batches = |name: &str| {
            let norm = name.strip_suffix("num_batches_tracked").map(|norm| format!("{norm}running_mean"));
            norm.is_some_and(|norm| self.used.contains(&norm))
        };
        let unused = self.stored.iter().filter(|(name, _)| !self.used.contains(*name) && !counts_batches(name));
        let beside = |(name, tensor): &(&String, &StoredTensor)| {
            extras::is_extra(name) || !self.reads_beside(name) && encoding(tensor.dtype).is_none()
        };
        let (beside, surplus): (Vec<_>, Vec<_>) = unused.partition(beside);
        let others = |n: usize| match n {
            1 => String::new(),
            2 => "(and 1 other) ".to_string(),
            n => format!("(and {} others) ", n - 1),
        };
        if let [(_, first), ..] = surplus[..] {
            return Err(Error::model(format!(
                "tensor '{}' {}has no place in the net",
                first.name,
                others(surplus.len())
            )));
        }
        if let [(_, first), ..] = beside[..] {
            let verb = if beside.len() == 1 { "is" } else { "are" };
            let scales = beside.iter().any(|(name, _)| extras::prepares(name));
            let note = if scales {
                ": if the net normalises its own input with them, its numbers are others unless mean and std are given"
            } else {
                ""
            };
            let warning =
                format!("tensor '{}' {}{verb} left out: no part of the net{note}", first.name, others(beside.len()));
            self.warnings.push(warning);
        }
        Ok(())
    }
}

impl StoredTensor {
    /// The bytes of its numbers.
    fn raw(&self, encoding: Encoding) -> &[u8] {
        &(*self.bytes).as_ref()[self.offset..self.offset + self.shape.iter().product::<usize>() * encoding.bytes()]
    }

    /// Its numbers; one number for no dimension.
    fn values(&self) -> Result<Vec<f64>> {
        let Some(encoding) = encoding(self.dtype) else {
            return Err(Error::model(format!("tensor '{}' is stored as {:?}, expected floats", self.name, self.dtype)));
        };
        let dims = [self.shape.iter().product(), 1, 1, 1];
        Ok(Weight::stored(dims, self.bytes.clone(), self.offset, encoding)?.to_f64().to_vec())
    }
}

/// Rows of `of`, each divided by its length and multiplied by its number in `by`. The rows lie along the one axis of
/// `by` that has more than one element, else along the first; a single number is for all rows together.
fn scaled_rows(by: &StoredTensor, of: &StoredTensor) -> Result<Vec<f64>> {
    let axis = by.shape.iter().position(|&d| d != 1).unwrap_or(0);
    let whole =
        by.shape.iter().product::<usize>() == 1 && (by.shape.len() != of.shape.len() || of.shape.first() != Some(&1));
    let suits = whole
        || by.shape.len() == of.shape.len()
            && by.shape.iter().zip(&of.shape).enumerate().all(|(i, (&b, &o))| b == if i == axis { o } else { 1 });
    if !suits {
        return Err(Error::model(format!(
            "tensor '{}' has shape {:?}, which is no length a row of '{}' {:?}",
            by.name, by.shape, of.name, of.shape
        )));
    }
    let (lengths, mut values) = (by.values()?, of.values()?);
    let inner: usize = if whole { 1 } else { of.shape[axis + 1..].iter().product() };
    let row = |i: usize| if whole { 0 } else { i / inner % lengths.len() };
    let mut squares = vec![0.0; lengths.len()];
    values.iter().enumerate().for_each(|(i, v)| squares[row(i)] += v * v);
    values.iter_mut().enumerate().for_each(|(i, v)| *v *= lengths[row(i)] / squares[row(i)].sqrt());
    Ok(values)
}

/// The product, element by element.
fn masked(by: &StoredTensor, of: &StoredTensor) -> Result<Vec<f64>> {
    if by.shape != of.shape {
        return Err(Error::model(format!(
            "tensor '{}' has shape {:?}, expected {:?} as '{}' has",
            by.name, by.shape, of.shape, of.name
        )));
    }
    Ok(of.values()?.iter().zip(by.values()?).map(|(v, m)| v * m).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_are_not_finite_are_found() {
        let numbers: Vec<f64> = (0..9000).map(|i| (f64::from(i) - 4500.0) * 0.5).collect();
        let encode = |encoding: Encoding, numbers: &[f64]| -> Vec<u8> {
            let bytes = |v: &f64| match encoding {
                Encoding::F16 => half::f16::from_f64(*v).to_le_bytes().to_vec(),
                Encoding::Bf16 => half::bf16::from_f64(*v).to_le_bytes().to_vec(),
                Encoding::F32 => (*v as f32).to_le_bytes().to_vec(),
                Encoding::F64 => v.to_le_bytes().to_vec(),
            };
            numbers.iter().flat_map(bytes).collect()
        };
        for encoding in [Encoding::F16, Encoding::Bf16, Encoding::F32, Encoding::F64] {
            assert_eq!(first_not_finite(&encode(encoding, &numbers), encoding), None, "{encoding:?}");
            for at in [0, 4095, 4096, 8999] {
                for (odd, name) in [(f64::NAN, "NaN"), (f64::INFINITY, "infinity"), (f64::NEG_INFINITY, "infinity")] {
                    let mut numbers = numbers.clone();
                    numbers[at] = odd;
                    assert_eq!(
                        first_not_finite(&encode(encoding, &numbers), encoding),
                        Some((at, name)),
                        "{encoding:?}"
                    );
                }
            }
        }
    }
}
