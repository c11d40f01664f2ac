//! Memory of vectors that are no longer needed, kept for reuse. Fresh memory comes from the system page by page, which takes
//! longer than a copy's statistic, and a program with deadlines wants no call of the allocator at all.

use std::any::{Any, TypeId};

use crate::error::Result;
use crate::tensor::{Data, Precision, Tensor};

/// Empty vectors, by the type of their elements. An engine has one, and each worker has one for the tasks of steps.
#[derive(Debug, Default)]
pub(crate) struct Spare {
    shelves: Vec<(TypeId, Box<dyn Any + Send>)>,
    bytes: usize,
}

impl Spare {
    /// Most bytes that are kept: some dozen maps of a typical picture.
    const MOST_BYTES: usize = 64 << 20;

    /// Bytes kept at present.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    fn shelf<T: Send + 'static>(&mut self) -> Option<&mut Vec<Vec<T>>> {
        let of = TypeId::of::<T>();
        let at = self.shelves.iter().position(|(kind, _)| *kind == of).unwrap_or_else(|| {
            self.shelves.push((of, Box::new(Vec::<Vec<T>>::new())));
            self.shelves.len() - 1
        });
        self.shelves[at].1.downcast_mut()
    }

    /// An empty vector with room for `len` elements: the smallest that has it, else a new one.
    pub fn take<T: Send + 'static>(&mut self, len: usize) -> Vec<T> {
        if len == 0 {
            return Vec::new();
        }
        let fits = |shelf: &mut Vec<Vec<T>>| {
            let large = shelf.iter().enumerate().filter(|(_, v)| v.capacity() >= len);
            let at = large.min_by_key(|(_, v)| v.capacity()).map(|(i, _)| i);
            at.map(|i| shelf.swap_remove(i))
        };
        match self.shelf().and_then(fits) {
            Some(vector) => {
                self.bytes -= vector.capacity() * size_of::<T>();
                vector
            }
            None => Vec::with_capacity(len),
        }
    }

    /// Empties `vector` and gives it room for `len` elements.
    pub fn make<T: Send + 'static>(&mut self, vector: &mut Vec<T>, len: usize) {
        if vector.capacity() < len {
            let larger = self.take(len);
            self.keep(std::mem::replace(vector, larger));
        }
        vector.clear();
    }

    /// The elements of `items` in a vector of [`Spare::take`].
    pub fn of<T: Send + 'static>(&mut self, items: impl ExactSizeIterator<Item = T>) -> Vec<T> {
        let mut vector = self.take(items.len());
        vector.extend(items);
        vector
    }

    /// Keeps the memory of a vector whose elements are dropped.
    pub fn keep<T: Send + 'static>(&mut self, mut vector: Vec<T>) {
        vector.clear();
        let bytes = vector.capacity() * size_of::<T>();
        if bytes == 0 || self.bytes + bytes > Self::MOST_BYTES {
            return;
        }
        if let Some(shelf) = self.shelf() {
            shelf.push(vector);
            self.bytes += bytes;
        }
    }

    /// As [`Spare::keep`], for vectors of vectors.
    pub fn keep_all<T: Send + 'static>(&mut self, mut vectors: Vec<Vec<T>>) {
        vectors.drain(..).for_each(|vector| self.keep(vector));
        self.keep(vectors);
    }

    /// As [`Spare::keep`], for tensors.
    pub fn keep_tensors(&mut self, mut tensors: Vec<Tensor>) {
        tensors.drain(..).for_each(|tensor| self.keep_tensor(tensor));
        self.keep(tensors);
    }

    /// Keeps the memory of a tensor.
    pub fn keep_tensor(&mut self, tensor: Tensor) {
        let (dims, data) = tensor.into_parts();
        self.keep(dims);
        match data {
            Data::F32(v) => self.keep(v),
            Data::F64(v) => self.keep(v),
        }
    }

    /// A tensor with the numbers of another.
    pub fn copy(&mut self, tensor: &Tensor) -> Result<Tensor> {
        let dims = self.of(tensor.dims().iter().copied());
        match tensor.data() {
            Data::F32(v) => Tensor::f32(dims, self.of(v.iter().copied())),
            Data::F64(v) => Tensor::f64(dims, self.of(v.iter().copied())),
        }
    }

    /// `len` zeros.
    pub fn zeros(&mut self, len: usize) -> Vec<f64> {
        let mut zeros = self.take(len);
        zeros.resize(len, 0.0);
        zeros
    }

    /// Numbers in double precision as a tensor in `precision`; their memory is kept if the tensor does not take it.
    pub fn round(&mut self, dims: &[usize], values: Vec<f64>, precision: Precision) -> Result<Tensor> {
        let dims = self.of(dims.iter().copied());
        match precision {
            Precision::F64 => Tensor::f64(dims, values),
            Precision::F32 => {
                let rounded = self.of(values.iter().map(|&v| v as f32));
                self.keep(values);
                Tensor::f32(dims, rounded)
            }
        }
    }
}

/// Lists of elements, one behind the other.
pub(crate) struct Lists<T> {
    items: Vec<T>,
    ends: Vec<usize>,
}

impl<T: Send + 'static> Lists<T> {
    /// The elements of `list(i)` for every `i` below `count`.
    pub fn new<L: Iterator<Item = T>>(spare: &mut Spare, count: usize, list: impl Fn(usize) -> L) -> Self {
        let len = (0..count).map(|i| list(i).count()).sum();
        let (mut items, mut ends) = (spare.take(len), spare.take(count));
        for i in 0..count {
            items.extend(list(i));
            ends.push(items.len());
        }
        Self { items, ends }
    }

    /// List `i`.
    pub fn get(&self, i: usize) -> &[T] {
        &self.items[if i == 0 { 0 } else { self.ends[i - 1] }..self.ends[i]]
    }

    /// Leaves its memory.
    pub fn keep(self, spare: &mut Spare) {
        spare.keep(self.items);
        spare.keep(self.ends);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_used_again() {
        let mut spare = Spare::default();
        let (small, large) = (spare.take::<f64>(10), spare.take::<f64>(1000));
        let places = [small.as_ptr(), large.as_ptr()];
        spare.keep(large);
        spare.keep(small);
        assert_eq!(spare.bytes(), 8 * 1010);
        // The smallest that is large enough, whatever the order; other types have their own.
        let other = spare.take::<u64>(5);
        assert_eq!((other.capacity(), spare.bytes()), (5, 8 * 1010));
        let (large, small) = (spare.take::<f64>(11), spare.zeros(10));
        assert_eq!([small.as_ptr(), large.as_ptr()], places);
        assert_eq!(spare.bytes(), 0);
        let tensor = spare.round(&[2, 2], vec![1.0, 2.0, 3.0, 4.1], Precision::F32).unwrap();
        assert_eq!(tensor, Tensor::f32([2, 2], vec![1.0, 2.0, 3.0, 4.1]).unwrap());
        let place = tensor.to_f32().as_ptr();
        spare.keep_tensor(tensor);
        let again = spare.copy(&Tensor::f32([2, 2], vec![5.0; 4]).unwrap()).unwrap();
        assert_eq!((again.to_f32().as_ptr(), again.at(3)), (place, 5.0));
    }

    #[test]
    fn not_more_than_a_bound_is_kept() {
        let mut spare = Spare::default();
        let half = Spare::MOST_BYTES / 2;
        (0..3).for_each(|_| spare.keep(Vec::<u8>::with_capacity(half)));
        assert_eq!(spare.bytes(), 2 * half);
    }
}
