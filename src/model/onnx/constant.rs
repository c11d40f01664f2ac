//! Numbers that do not depend on the picture, and arithmetic on them.

use std::cell::Cell;
use std::sync::Arc;

use prost::bytes::Bytes;

use super::wire::{SparseTensorProto, TensorProto};
use crate::error::{Error, Result};
use crate::graph::{Encoding, Weight};

thread_local! {
    /// How many more numbers may be computed: a small file can ask for more than any memory holds.
    static ALLOWED: Cell<usize> = const { Cell::new(0) };
}

/// Most numbers of a tensor.
const MOST_NUMBERS: usize = 1 << 40;

/// Lets so many numbers be computed from now on, in this thread.
pub(super) fn allow(numbers: usize) {
    ALLOWED.set(numbers);
}

/// Takes `numbers` from what may be computed.
pub(super) fn spend(numbers: usize) -> Result<()> {
    let left = ALLOWED.get().checked_sub(numbers);
    let left = left.ok_or_else(|| Error::model("the graph computes more constants than its size explains"))?;
    ALLOWED.set(left);
    Ok(())
}

/// Numbers in C order.
#[derive(Debug, Clone)]
pub(super) enum Numbers {
    /// As the file stores them.
    Stored(Bytes, Encoding),
    /// Real numbers.
    Real(Arc<[f64]>),
    /// Whole numbers, and 0 or 1 for false and true.
    Whole(Arc<[i64]>),
}

/// A tensor of constants.
#[derive(Debug, Clone)]
pub(super) struct Constant {
    pub(super) dims: Vec<usize>,
    pub(super) numbers: Numbers,
}

/// Number of elements of a shape that is computed.
pub(super) fn count(dims: &[usize]) -> Result<usize> {
    let count = dims.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
    let count = count.ok_or_else(|| Error::model(format!("a constant of shape {dims:?} is too large")))?;
    spend(count)?;
    Ok(count)
}

/// Names of ONNX's number types.
fn type_name(code: i32) -> String {
    let names = [
        "UNDEFINED",
        "FLOAT",
        "UINT8",
        "INT8",
        "UINT16",
        "INT16",
        "INT32",
        "INT64",
        "STRING",
        "BOOL",
        "FLOAT16",
        "DOUBLE",
        "UINT32",
        "UINT64",
        "COMPLEX64",
        "COMPLEX128",
        "BFLOAT16",
        "FLOAT8E4M3FN",
        "FLOAT8E4M3FNUZ",
        "FLOAT8E5M2",
        "FLOAT8E5M2FNUZ",
        "UINT4",
        "INT4",
        "FLOAT4E2M1",
    ];
    usize::try_from(code).ok().and_then(|i| names.get(i)).map_or_else(|| format!("type {code}"), |n| (*n).to_owned())
}

/// Element types whose numbers are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Element {
    /// Real numbers in this encoding.
    Real(Encoding),
    /// Whole numbers of so many bytes, with or without sign.
    Whole(usize, bool),
}

impl Element {
    /// Of ONNX's code.
    pub(super) fn of(code: i32) -> Result<Self> {
        Ok(match code {
            1 => Element::Real(Encoding::F32),
            10 => Element::Real(Encoding::F16),
            11 => Element::Real(Encoding::F64),
            16 => Element::Real(Encoding::Bf16),
            2 | 9 => Element::Whole(1, false),
            3 => Element::Whole(1, true),
            4 => Element::Whole(2, false),
            5 => Element::Whole(2, true),
            6 => Element::Whole(4, true),
            7 => Element::Whole(8, true),
            12 => Element::Whole(4, false),
            13 => Element::Whole(8, false),
            _ => return Err(Error::model(format!("numbers of type {} are not supported", type_name(code)))),
        })
    }

    fn bytes(self) -> usize {
        match self {
            Element::Real(encoding) => encoding.bytes(),
            Element::Whole(bytes, _) => bytes,
        }
    }
}

/// Sizes of a tensor as the file states them.
fn sizes(dims: &[i64]) -> Result<Vec<usize>> {
    dims.iter().map(|&d| usize::try_from(d).map_err(|_| Error::model(format!("a size of {d}")))).collect()
}

fn whole_number(raw: &[u8], signed: bool) -> Result<i64> {
    let mut bytes = [if signed && raw.last().is_some_and(|b| b & 0x80 != 0) { 0xff } else { 0 }; 8];
    bytes[..raw.len()].copy_from_slice(raw);
    let n = i64::from_le_bytes(bytes);
    if !signed && n < 0 {
        return Err(Error::model("a whole number above 2^63"));
    }
    Ok(n)
}

impl Constant {
    /// A single real number.
    pub(super) fn scalar(x: f64) -> Self {
        Self::real(Vec::new(), vec![x])
    }

    /// Real numbers.
    pub(super) fn real(dims: Vec<usize>, numbers: Vec<f64>) -> Self {
        Self { dims, numbers: Numbers::Real(numbers.into()) }
    }

    /// Whole numbers.
    pub(super) fn whole(dims: Vec<usize>, numbers: Vec<i64>) -> Self {
        Self { dims, numbers: Numbers::Whole(numbers.into()) }
    }

    /// A vector of whole numbers.
    pub(super) fn list(numbers: Vec<i64>) -> Self {
        Self::whole(vec![numbers.len()], numbers)
    }

    /// Number of elements.
    pub(super) fn len(&self) -> usize {
        match &self.numbers {
            Numbers::Stored(bytes, encoding) => bytes.len() / encoding.bytes(),
            Numbers::Real(numbers) => numbers.len(),
            Numbers::Whole(numbers) => numbers.len(),
        }
    }

    /// Whether the numbers are whole ones.
    pub(super) fn is_whole(&self) -> bool {
        matches!(self.numbers, Numbers::Whole(_))
    }

    /// The numbers of a tensor; `external` reads bytes from another file.
    pub(super) fn read(tensor: &TensorProto, external: impl FnOnce(&TensorProto) -> Result<Bytes>) -> Result<Self> {
        let dims = sizes(&tensor.dims)?;
        let element = Element::of(tensor.data_type)?;
        let count = dims
            .iter()
            .try_fold(1usize, |n, &d| n.checked_mul(d.max(1)))
            .filter(|&n| n <= MOST_NUMBERS)
            .map(|n| if dims.contains(&0) { 0 } else { n })
            .ok_or_else(|| Error::model(format!("a shape of {dims:?}")))?;
        let fits = |have: usize| {
            if have == count {
                return Ok(());
            }
            Err(Error::model(format!("a shape of {dims:?} needs {count} numbers, there are {have}")))
        };
        let raw = if tensor.data_location == 1 { external(tensor)? } else { tensor.raw_data.clone() };
        let typed = tensor.float_data.len() + tensor.int32_data.len() + tensor.int64_data.len();
        let typed = typed + tensor.double_data.len() + tensor.uint64_data.len();
        if !raw.is_empty() && typed > 0 {
            return Err(Error::model("its numbers are stored twice"));
        }
        if typed == 0 {
            if raw.len() != count * element.bytes() {
                return Err(Error::model(format!(
                    "a shape of {dims:?} needs {} bytes, there are {}",
                    count * element.bytes(),
                    raw.len()
                )));
            }
            return Ok(match element {
                Element::Real(encoding) => Self { dims, numbers: Numbers::Stored(raw, encoding) },
                Element::Whole(bytes, signed) => {
                    let numbers: Result<Vec<i64>> = raw.chunks_exact(bytes).map(|b| whole_number(b, signed)).collect();
                    Self::whole(dims, numbers?)
                }
            });
        }
        match element {
            Element::Real(Encoding::F32) => {
                fits(tensor.float_data.len())?;
                let bytes = tensor.float_data.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
                Ok(Self { dims, numbers: Numbers::Stored(bytes.into(), Encoding::F32) })
            }
            Element::Real(Encoding::F64) => {
                fits(tensor.double_data.len())?;
                Ok(Self::real(dims, tensor.double_data.clone()))
            }
            Element::Real(encoding) => {
                // The bits of half-precision numbers, one in each whole number.
                fits(tensor.int32_data.len())?;
                let bits = |&v: &i32| u16::try_from(v).map_err(|_| Error::model(format!("{v} are not 16 bits")));
                let bits = tensor.int32_data.iter().map(bits).collect::<Result<Vec<u16>>>()?;
                let bytes: Vec<u8> = bits.iter().flat_map(|v| v.to_le_bytes()).collect();
                Ok(Self { dims, numbers: Numbers::Stored(bytes.into(), encoding) })
            }
            Element::Whole(8, true) => {
                fits(tensor.int64_data.len())?;
                Ok(Self::whole(dims, tensor.int64_data.clone()))
            }
            Element::Whole(8, false) | Element::Whole(4, false) => {
                fits(tensor.uint64_data.len())?;
                let whole = |&v: &u64| i64::try_from(v).map_err(|_| Error::model("a whole number above 2^63"));
                Ok(Self::whole(dims, tensor.uint64_data.iter().map(whole).collect::<Result<_>>()?))
            }
            Element::Whole(..) => {
                fits(tensor.int32_data.len())?;
                Ok(Self::whole(dims, tensor.int32_data.iter().map(|&v| i64::from(v)).collect()))
            }
        }
    }

    /// The numbers of a sparse tensor, written out.
    pub(super) fn read_sparse(
        sparse: &SparseTensorProto,
        external: impl Fn(&TensorProto) -> Result<Bytes>,
    ) -> Result<Self> {
        let dims = sizes(&sparse.dims)?;
        let (Some(values), Some(indices)) = (&sparse.values, &sparse.indices) else {
            return Err(Error::model("a sparse tensor without values or indices"));
        };
        let (values, indices) = (Self::read(values, &external)?, Self::read(indices, &external)?);
        let flat = indices.to_whole()?;
        let mut all = vec![0.0; count(&dims)?];
        let values = values.to_real();
        let rank = match indices.dims[..] {
            [n] if n == values.len() => 1,
            [n, rank] if n == values.len() && rank == dims.len() && rank > 0 => rank,
            _ => return Err(Error::model("a sparse tensor whose indices do not fit its values")),
        };
        for (place, value) in flat.chunks_exact(rank).zip(values.iter()) {
            let mut at = Some(0usize);
            for (axis, &i) in place.iter().enumerate() {
                let size = if rank == 1 { all.len() } else { dims[axis] };
                let i = usize::try_from(i).ok().filter(|&i| i < size);
                at = at.zip(i).map(|(at, i)| if rank == 1 { i } else { at * size + i });
            }
            let at = at.ok_or_else(|| Error::model("a sparse tensor with an index outside its shape"))?;
            all[at] = *value;
        }
        Ok(Self::real(dims, all))
    }

    /// All numbers as real ones.
    pub(super) fn to_real(&self) -> Arc<[f64]> {
        match &self.numbers {
            Numbers::Real(numbers) => numbers.clone(),
            Numbers::Whole(numbers) => numbers.iter().map(|&v| v as f64).collect(),
            Numbers::Stored(raw, encoding) => match encoding {
                Encoding::F16 => raw.as_chunks().0.iter().map(|b| half::f16::from_le_bytes(*b).to_f64()).collect(),
                Encoding::Bf16 => raw.as_chunks().0.iter().map(|b| half::bf16::from_le_bytes(*b).to_f64()).collect(),
                Encoding::F32 => raw.as_chunks().0.iter().map(|b| f64::from(f32::from_le_bytes(*b))).collect(),
                Encoding::F64 => raw.as_chunks().0.iter().map(|b| f64::from_le_bytes(*b)).collect(),
            },
        }
    }

    /// All numbers as whole ones.
    ///
    /// # Errors
    /// When they are real.
    pub(super) fn to_whole(&self) -> Result<Arc<[i64]>> {
        match &self.numbers {
            Numbers::Whole(numbers) => Ok(numbers.clone()),
            _ => Err(Error::model("real numbers where whole ones are expected")),
        }
    }

    /// The only number, if there is one.
    pub(super) fn single(&self) -> Option<f64> {
        (self.len() == 1).then(|| self.to_real()[0])
    }

    /// The same numbers with other dimensions.
    pub(super) fn with_dims(&self, dims: Vec<usize>) -> Self {
        Self { dims, numbers: self.numbers.clone() }
    }

    /// A weight `dims` of these numbers in their order, which are not copied where the file stores them.
    pub(super) fn weight(&self, dims: [usize; 4]) -> Result<Weight> {
        match &self.numbers {
            Numbers::Stored(bytes, encoding) => Weight::stored(dims, Arc::new(bytes.clone()), 0, *encoding),
            _ => {
                let bytes: Vec<u8> = self.to_real().iter().flat_map(|v| v.to_le_bytes()).collect();
                Weight::stored(dims, Arc::new(bytes), 0, Encoding::F64)
            }
        }
    }

    /// The elements at `places`, in that order.
    ///
    /// # Errors
    /// When the graph has computed too many numbers.
    pub(super) fn picked(&self, dims: Vec<usize>, places: impl Iterator<Item = usize>) -> Result<Self> {
        count(&dims)?;
        let numbers = match &self.numbers {
            Numbers::Stored(bytes, encoding) => {
                let size = encoding.bytes();
                let mut out = Vec::with_capacity(dims.iter().product::<usize>() * size);
                places.for_each(|i| out.extend_from_slice(&bytes[i * size..(i + 1) * size]));
                Numbers::Stored(out.into(), *encoding)
            }
            Numbers::Real(numbers) => Numbers::Real(places.map(|i| numbers[i]).collect()),
            Numbers::Whole(numbers) => Numbers::Whole(places.map(|i| numbers[i]).collect()),
        };
        Ok(Self { dims, numbers })
    }

    /// Axes in another order.
    pub(super) fn transposed(&self, perm: &[usize]) -> Result<Self> {
        let dims: Vec<usize> = perm.iter().map(|&a| self.dims[a]).collect();
        let steps = steps(&self.dims);
        let steps: Vec<usize> = perm.iter().map(|&a| steps[a]).collect();
        let places = Places::new(&dims, &steps);
        self.picked(dims, places)
    }

    /// Repeated along axes of size 1, and along new ones before the first.
    pub(super) fn expanded(&self, dims: &[usize]) -> Result<Self> {
        if dims == self.dims {
            return Ok(self.clone());
        }
        let steps = broadcast_steps(&self.dims, dims)?;
        count(dims)?;
        self.picked(dims.to_vec(), Places::new(dims, &steps))
    }
}

/// Distance between neighbours along each axis, in C order.
pub(super) fn steps(dims: &[usize]) -> Vec<usize> {
    let mut steps = vec![1; dims.len()];
    for axis in (1..dims.len()).rev() {
        steps[axis - 1] = steps[axis] * dims[axis];
    }
    steps
}

/// Distance between neighbours along each axis of `all` in an array of shape `dims` that is repeated to fill it.
pub(super) fn broadcast_steps(dims: &[usize], all: &[usize]) -> Result<Vec<usize>> {
    let own = steps(dims);
    let before = all.len().checked_sub(dims.len());
    let before = before.ok_or_else(|| Error::model(format!("{dims:?} does not fill {all:?}")))?;
    (0..all.len())
        .map(|axis| match axis.checked_sub(before).map(|a| (dims[a], own[a])) {
            None | Some((1, _)) => Ok(0),
            Some((size, step)) if size == all[axis] => Ok(step),
            Some(_) => Err(Error::model(format!("{dims:?} does not fill {all:?}"))),
        })
        .collect()
}

/// The shape of an elementwise operation on `a` and `b`.
pub(super) fn broadcast(a: &[usize], b: &[usize]) -> Result<Vec<usize>> {
    let rank = a.len().max(b.len());
    let at = |dims: &[usize], axis: usize| (axis + dims.len()).checked_sub(rank).map_or(1, |i| dims[i]);
    (0..rank)
        .map(|axis| match (at(a, axis), at(b, axis)) {
            (x, y) if x == y => Ok(x),
            (1, y) => Ok(y),
            (x, 1) => Ok(x),
            _ => Err(Error::model(format!("shapes {a:?} and {b:?} do not go together"))),
        })
        .collect()
}

/// Positions in memory of the elements of an array of shape `dims`, with `steps` between neighbours.
pub(super) struct Places {
    dims: Vec<usize>,
    steps: Vec<usize>,
    index: Vec<usize>,
    at: usize,
    left: usize,
}

impl Places {
    pub(super) fn new(dims: &[usize], steps: &[usize]) -> Self {
        let left = dims.iter().product();
        Self { dims: dims.to_vec(), steps: steps.to_vec(), index: vec![0; dims.len()], at: 0, left }
    }
}

impl Iterator for Places {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        self.left = self.left.checked_sub(1)?;
        let at = self.at;
        for axis in (0..self.dims.len()).rev() {
            self.index[axis] += 1;
            self.at += self.steps[axis];
            if self.index[axis] < self.dims[axis] {
                break;
            }
            self.at -= self.steps[axis] * self.dims[axis];
            self.index[axis] = 0;
        }
        Some(at)
    }
}

/// The axes that a file names, each once.
pub(super) fn axes_of(axes: &[i64], rank: usize) -> Result<Vec<usize>> {
    let found: Vec<usize> = axes.iter().map(|&axis| axis_of(axis, rank)).collect::<Result<_>>()?;
    let twice = (0..found.len()).find(|&i| found[..i].contains(&found[i]));
    twice.map_or(Ok(found.clone()), |i| Err(Error::model(format!("axis {} is named twice", axes[i]))))
}

/// The axis of an array of rank `rank` that a file calls `axis`.
pub(super) fn axis_of(axis: i64, rank: usize) -> Result<usize> {
    let from_end = if axis < 0 { axis.checked_add(rank as i64) } else { Some(axis) };
    let axis_found = from_end.and_then(|a| usize::try_from(a).ok()).filter(|&a| a < rank);
    axis_found.ok_or_else(|| Error::model(format!("there is no axis {axis} of {rank}")))
}
