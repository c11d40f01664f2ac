//! [`Tensor`]: a dense host array in C order.

use std::borrow::Cow;

use super::{Precision, Scalar};
use crate::error::{Error, Result};

/// The numbers of a [`Tensor`].
#[derive(Debug, Clone, PartialEq)]
pub enum Data {
    /// Single precision.
    F32(Vec<f32>),
    /// Double precision.
    F64(Vec<f64>),
}

/// A dense host array in C order (last axis fastest), of either precision.
///
/// Tensors carry numbers into and out of the engine; arithmetic on feature maps is done by devices.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    dims: Vec<usize>,
    data: Data,
}

impl Tensor {
    /// From `data` in C order.
    ///
    /// # Errors
    /// When the number of elements is not the product of `dims`.
    pub fn new(dims: impl Into<Vec<usize>>, data: Data) -> Result<Self> {
        let dims = dims.into();
        let have = match &data {
            Data::F32(v) => v.len(),
            Data::F64(v) => v.len(),
        };
        if dims.iter().try_fold(1usize, |n, &d| n.checked_mul(d)) != Some(have) {
            return Err(Error::input(format!("{have} numbers do not fill a tensor of shape {dims:?}")));
        }
        Ok(Self { dims, data })
    }

    /// From single-precision numbers in C order; errors as [`Tensor::new`].
    pub fn f32(dims: impl Into<Vec<usize>>, values: Vec<f32>) -> Result<Self> {
        Self::new(dims, Data::F32(values))
    }

    /// From double-precision numbers in C order; errors as [`Tensor::new`].
    pub fn f64(dims: impl Into<Vec<usize>>, values: Vec<f64>) -> Result<Self> {
        Self::new(dims, Data::F64(values))
    }

    /// From double-precision numbers, rounded to `precision`; errors as [`Tensor::new`].
    pub fn rounded(dims: impl Into<Vec<usize>>, values: Vec<f64>, precision: Precision) -> Result<Self> {
        match precision {
            Precision::F32 => Self::f32(dims, values.into_iter().map(|v| v as f32).collect()),
            Precision::F64 => Self::f64(dims, values),
        }
    }

    /// Dimensions and numbers.
    pub(crate) fn into_parts(self) -> (Vec<usize>, Data) {
        (self.dims, self.data)
    }

    /// Extent of each axis.
    pub fn dims(&self) -> &[usize] {
        &self.dims
    }

    /// The numbers.
    pub fn data(&self) -> &Data {
        &self.data
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        match &self.data {
            Data::F32(v) => v.len(),
            Data::F64(v) => v.len(),
        }
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Precision of the numbers.
    pub fn precision(&self) -> Precision {
        match self.data {
            Data::F32(_) => Precision::F32,
            Data::F64(_) => Precision::F64,
        }
    }

    /// The numbers in single precision, copied only if necessary.
    pub fn to_f32(&self) -> Cow<'_, [f32]> {
        match &self.data {
            Data::F32(v) => Cow::Borrowed(v),
            Data::F64(v) => Cow::Owned(v.iter().map(|&x| x as f32).collect()),
        }
    }

    /// The numbers in double precision, copied only if necessary.
    pub fn to_f64(&self) -> Cow<'_, [f64]> {
        match &self.data {
            Data::F32(v) => Cow::Owned(v.iter().map(|&x| f64::from(x)).collect()),
            Data::F64(v) => Cow::Borrowed(v),
        }
    }

    /// Element `i` in C order, in double precision.
    pub fn at(&self, i: usize) -> f64 {
        match &self.data {
            Data::F32(v) => f64::from(v[i]),
            Data::F64(v) => v[i],
        }
    }

    /// Item `i` along the first axis.
    ///
    /// # Errors
    /// When there is no such item.
    pub fn item(&self, i: usize) -> Result<Tensor> {
        let Some((&n, rest)) = self.dims.split_first() else {
            return Err(Error::input("a scalar tensor has no items".to_string()));
        };
        if i >= n {
            return Err(Error::input(format!("item {i} of a tensor with {n} items")));
        }
        let size: usize = rest.iter().product();
        let range = i * size..(i + 1) * size;
        let data = match &self.data {
            Data::F32(v) => Data::F32(v[range].to_vec()),
            Data::F64(v) => Data::F64(v[range].to_vec()),
        };
        Ok(Self { dims: rest.to_vec(), data })
    }

    /// Stacks tensors of equal shape along a new first axis, in the highest precision among them.
    ///
    /// # Errors
    /// When `items` is empty or shapes differ.
    pub fn stack(items: &[Tensor]) -> Result<Tensor> {
        let first = items.first().ok_or_else(|| Error::input("nothing to stack"))?;
        if let Some(odd) = items.iter().find(|t| t.dims != first.dims) {
            return Err(Error::input(format!("cannot stack shapes {:?} and {:?}", first.dims, odd.dims)));
        }
        let mut dims = vec![items.len()];
        dims.extend(&first.dims);
        let data = if items.iter().any(|t| t.precision() == Precision::F64) {
            Data::F64(items.iter().flat_map(|t| t.to_f64().into_owned()).collect())
        } else {
            Data::F32(items.iter().flat_map(|t| t.to_f32().into_owned()).collect())
        };
        Ok(Self { dims, data })
    }

    /// The same numbers with other dimensions.
    ///
    /// # Errors
    /// When the number of elements differs.
    pub fn reshape(self, dims: impl Into<Vec<usize>>) -> Result<Tensor> {
        Self::new(dims, self.data)
    }

    /// Three axes in another order: axis `i` of the result is axis `order[i]`.
    ///
    /// # Errors
    /// When there are not three axes.
    pub fn turned(&self, order: [usize; 3]) -> Result<Tensor> {
        let &[a, b, c] = self.dims.as_slice() else {
            return Err(Error::input(format!("an array of shape {:?} has not three axes", self.dims)));
        };
        let (dims, steps) = ([a, b, c], [b * c, c, 1]);
        let (to, by) = (order.map(|axis| dims[axis]), order.map(|axis| steps[axis]));
        let mut places = Vec::with_capacity(self.len());
        for i in 0..to[0] {
            for j in 0..to[1] {
                places.extend((0..to[2]).map(|k| i * by[0] + j * by[1] + k * by[2]));
            }
        }
        let data = match &self.data {
            Data::F32(v) => Data::F32(places.into_iter().map(|i| v[i]).collect()),
            Data::F64(v) => Data::F64(places.into_iter().map(|i| v[i]).collect()),
        };
        Ok(Tensor { dims: to.to_vec(), data })
    }

    /// Applies `f` to each number in double precision and rounds the result back.
    #[must_use]
    pub fn map(self, f: impl Fn(f64) -> f64) -> Tensor {
        let data = match self.data {
            Data::F32(v) => Data::F32(v.into_iter().map(|x| f(f64::from(x)) as f32).collect()),
            Data::F64(v) => Data::F64(v.into_iter().map(f).collect()),
        };
        Tensor { dims: self.dims, data }
    }

    /// Sets every number.
    pub(crate) fn fill(&mut self, value: f64) {
        match &mut self.data {
            Data::F32(v) => v.fill(value as f32),
            Data::F64(v) => v.fill(value),
        }
    }

    /// Position in C order of the first NaN or infinity.
    pub fn first_not_finite(&self) -> Option<usize> {
        match &self.data {
            Data::F32(v) => v.iter().position(|x| !x.is_finite()),
            Data::F64(v) => v.iter().position(|x| !x.is_finite()),
        }
    }

    /// The numbers, if they are stored as `T`.
    pub(crate) fn stored<T: Scalar>(&self) -> Option<&[T]> {
        match &self.data {
            Data::F32(v) if T::PRECISION == Precision::F32 => Some(bytemuck::cast_slice(v)),
            Data::F64(v) if T::PRECISION == Precision::F64 => Some(bytemuck::cast_slice(v)),
            _ => None,
        }
    }

    /// The numbers as `T`; borrowed if they are stored that way.
    pub(crate) fn numbers<T: Scalar>(&self) -> Cow<'_, [T]> {
        self.stored().map(Cow::Borrowed).unwrap_or_else(|| {
            let mut numbers = vec![T::ZERO; self.len()];
            self.write_to(&mut numbers);
            Cow::Owned(numbers)
        })
    }

    /// The numbers in double precision, one after the other.
    pub(crate) fn each(&self) -> impl ExactSizeIterator<Item = f64> + Clone + '_ {
        (0..self.len()).map(|i| self.at(i))
    }

    /// Writes the numbers into `out` as `T`.
    pub(crate) fn write_to<T: Scalar>(&self, out: &mut [T]) {
        match &self.data {
            Data::F32(v) => out.iter_mut().zip(v).for_each(|(o, &x)| *o = T::from_f64(f64::from(x))),
            Data::F64(v) => out.iter_mut().zip(v).for_each(|(o, &x)| *o = T::from_f64(x)),
        }
    }
}
