//! Arrays of inputs in `.npy` and `.safetensors` files, read row by row.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use crate::error::open_file;
use crate::error::{Error, Result};
use crate::tensor::{MOST_HEADER_BYTES, Tensor, safetensors_header};
use safetensors::Dtype;
use safetensors::tensor::TensorInfo;

use super::npy;
use super::room::Room;

/// A row of an array.
#[derive(Debug, Clone, PartialEq)]
pub enum Row {
    /// Numbers in the net's space.
    Normalised(Tensor),
    /// Levels `[C, H, W]`.
    Levels(Vec<u8>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Endianness {
    Little,
    Big,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Number {
    F16(Endianness),
    Bf16,
    F32(Endianness),
    F64(Endianness),
    Level,
}

/// Which axis varies fastest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AxisOrder {
    /// The last.
    C,
    /// The first.
    Fortran,
}

/// Position of the channels in a row of levels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ChannelAxis {
    First,
    Last,
}

impl Number {
    fn bytes(self) -> usize {
        match self {
            Number::Level => 1,
            Number::F16(_) | Number::Bf16 => 2,
            Number::F32(_) => 4,
            Number::F64(_) => 8,
        }
    }
}

/// An open array of inputs. Its numbers stay in the file.
#[derive(Debug)]
pub struct ArrayFile {
    path: PathBuf,
    file: File,
    number: Number,
    order: AxisOrder,
    start: u64,
    rows: usize,
    /// Shape of a row in the file.
    stored: Vec<usize>,
    /// Shape with the channels first.
    dims: Vec<usize>,
    channels: ChannelAxis,
    /// Whether the file has levels besides the numbers that are used.
    has_both: bool,
    single: bool,
    /// The labels, or why they cannot be read: only targets need them.
    labels: Option<Result<Vec<i64>, String>>,
    /// All numbers of a file in Fortran order, where a row is scattered; empty until a row is read.
    scattered: Vec<u8>,
    room: Room,
}

impl ArrayFile {
    /// Whether `path` has the extension of an array.
    pub fn is_array(path: &Path) -> bool {
        extension(path).is_some_and(|e| e == "npy" || e == "safetensors")
    }

    /// Opens an array whose rows keep to `room`, and checks that the file is complete.
    ///
    /// # Errors
    /// When the file cannot be read, is truncated, or holds numbers that are not inputs; the message names it.
    pub fn open(path: &Path, room: Room) -> Result<Self> {
        let file = open_file(path)?;
        let is_npy = extension(path).is_some_and(|e| e == "npy");
        let opened = if is_npy { open_npy(file) } else { open_safetensors(file, room) };
        let mut array = opened.map_err(|why| Error::input(format!("{}: {why}", path.display())))?;
        (array.path, array.room) = (path.to_owned(), room);
        // An error that affects every row is reported for the file, not for each row.
        array.check_room().map_err(|e| e.within(path.display()))?;
        Ok(array)
    }

    /// Number of rows; 1 for an array `[C,H,W]`.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Shape of one row; for levels always `[C, H, W]`.
    pub fn dims(&self) -> &[usize] {
        &self.dims
    }

    /// Whether the file holds one input without a row axis.
    pub fn is_single(&self) -> bool {
        self.single
    }

    /// The tensor `labels`, one class per row, if the file has it.
    ///
    /// # Errors
    /// When the tensor cannot be read or its length is not the number of rows.
    pub fn labels(&self) -> Result<Option<&[i64]>> {
        match &self.labels {
            None => Ok(None),
            Some(Ok(labels)) if labels.len() == self.rows => Ok(Some(labels)),
            Some(Ok(labels)) => Err(Error::input(format!("{} labels for {} rows", labels.len(), self.rows))),
            Some(Err(why)) => Err(Error::input(why.clone())),
        }
    }

    /// Whether it holds picture levels.
    pub fn has_levels(&self) -> bool {
        self.number == Number::Level
    }

    /// What was assumed about the file: which of two tensors, or which of two axis orders.
    pub fn assumed(&self) -> Option<String> {
        if self.has_both {
            return Some("the tensor `input` is taken, and `images` is not".to_owned());
        }
        (self.channels == ChannelAxis::Last).then(|| "order of bytes: height x width x channel".to_owned())
    }

    /// Refuses rows, and arrays in Fortran order, that exceed the memory bound.
    fn check_room(&self) -> Result<()> {
        let length: usize = self.stored.iter().product();
        let size = self.number.bytes();
        // Besides the bytes, the row made from them and the net's input are in memory.
        self.room
            .check(|| format!("a row of shape {:?}", self.stored), (length as u64).saturating_mul(size as u64 + 8))?;
        if self.order == AxisOrder::Fortran && self.scattered.is_empty() {
            let what = || "an array in Fortran order, whose rows lie scattered (C order is read row by row)".into();
            self.room.check(what, (self.rows as u64).saturating_mul((length * size) as u64))?;
        }
        Ok(())
    }

    /// Reads row `i`.
    ///
    /// # Errors
    /// When the file cannot be read, and when the row, or an array in Fortran order, exceeds the memory bound.
    pub fn row(&mut self, i: usize) -> Result<Row> {
        let length: usize = self.stored.iter().product();
        let size = self.number.bytes();
        let path = self.path.clone();
        self.check_room()?;
        let fail = |e| Error::io(&path, e);
        let bytes = match self.order {
            AxisOrder::C => self.bytes((i * length * size) as u64, length * size).map_err(fail)?,
            AxisOrder::Fortran => {
                // The row axis varies fastest: a row's elements are `rows` apart. Among the row's own axes, the first
                // varies fastest.
                if self.scattered.is_empty() {
                    self.scattered = self.bytes(0, self.rows * length * size).map_err(fail)?;
                }
                let mut row = Vec::with_capacity(length * size);
                for flat in 0..length {
                    let (mut rest, mut place, mut step) = (flat, 0, 1);
                    let mut coordinates = vec![0; self.stored.len()];
                    for (axis, &extent) in self.stored.iter().enumerate().rev() {
                        coordinates[axis] = rest % extent;
                        rest /= extent;
                    }
                    for (&at, &extent) in coordinates.iter().zip(&self.stored) {
                        place += at * step;
                        step *= extent;
                    }
                    let at = (place * self.rows + i) * size;
                    row.extend_from_slice(&self.scattered[at..at + size]);
                }
                row
            }
        };
        self.decode(&bytes)
    }

    fn bytes(&mut self, offset: u64, length: usize) -> std::io::Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        self.file.seek(SeekFrom::Start(self.start + offset))?;
        self.file.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn decode(&self, bytes: &[u8]) -> Result<Row> {
        fn each<const N: usize, T>(bytes: &[u8], convert: impl Fn([u8; N]) -> T) -> Vec<T> {
            let (chunks, _) = bytes.as_chunks::<N>();
            chunks.iter().map(|&c| convert(c)).collect()
        }
        let dims = self.dims.clone();
        let tensor = match self.number {
            Number::Level => {
                let &[channels, _, _] = self.dims.as_slice() else { return Ok(Row::Levels(bytes.to_vec())) };
                return Ok(Row::Levels(match self.channels {
                    ChannelAxis::First => bytes.to_vec(),
                    ChannelAxis::Last => {
                        (0..channels).flat_map(|c| bytes.iter().skip(c).step_by(channels)).copied().collect()
                    }
                }));
            }
            Number::F16(Endianness::Big) => Tensor::f32(dims, each(bytes, |b| half::f16::from_be_bytes(b).to_f32())),
            Number::F16(_) => Tensor::f32(dims, each(bytes, |b| half::f16::from_le_bytes(b).to_f32())),
            Number::Bf16 => Tensor::f32(dims, each(bytes, |b| half::bf16::from_le_bytes(b).to_f32())),
            Number::F32(Endianness::Big) => Tensor::f32(dims, each(bytes, f32::from_be_bytes)),
            Number::F32(_) => Tensor::f32(dims, each(bytes, f32::from_le_bytes)),
            Number::F64(Endianness::Big) => Tensor::f64(dims, each(bytes, f64::from_be_bytes)),
            Number::F64(_) => Tensor::f64(dims, each(bytes, f64::from_le_bytes)),
        };
        Ok(Row::Normalised(tensor?))
    }
}

/// The extension in lower case.
pub fn extension(path: &Path) -> Option<String> {
    Some(path.extension()?.to_str()?.to_ascii_lowercase())
}

type OpenedArray = std::result::Result<ArrayFile, String>;

/// Shape of picture levels with the channels first, and where the channels are in the file. A shape that allows both
/// readings is refused: the wrong one would scramble every picture.
fn with_channels_first(shape: &[usize]) -> std::result::Result<(Vec<usize>, ChannelAxis), String> {
    let (leading, a, b, c) = match *shape {
        [a, b, c] => (vec![], a, b, c),
        [n, a, b, c] => (vec![n], a, b, c),
        _ => return Err(format!("levels of shape {shape:?} are not pictures, [N,C,H,W] or [N,H,W,C]")),
    };
    let channels = |n| matches!(n, 1 | 3);
    let row = |dims: [usize; 3]| leading.iter().copied().chain(dims).collect();
    match (channels(a), channels(c)) {
        (true, false) => Ok((row([a, b, c]), ChannelAxis::First)),
        (false, true) => Ok((row([c, a, b]), ChannelAxis::Last)),
        (true, true) if a * b * c == 1 => Ok((row([a, b, c]), ChannelAxis::First)),
        (true, true) => Err(format!(
            "levels of shape {shape:?}: the channels may be the first or the last axis of a picture; normalised numbers \
             are always [N,C,H,W]"
        )),
        (false, false) => Err(format!("levels of shape {shape:?}, not [N,C,H,W] or [N,H,W,C] with 1 or 3 channels")),
    }
}

/// Splits a file's shape into the number of rows and the shape of one; rank 3 and rank 1 are a single input.
fn assemble(file: File, number: Number, order: AxisOrder, start: u64, shape: Vec<usize>) -> OpenedArray {
    let count = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d)).filter(|&n| n > 0);
    let bytes = count.and_then(|n| n.checked_mul(number.bytes()));
    let have = file.metadata().map_err(|e| e.to_string())?.len();
    let Some(end) = bytes.and_then(|b| start.checked_add(b as u64)) else {
        return Err(format!("an array of shape {shape:?} holds nothing that can be explained"));
    };
    if end > have {
        return Err(format!("the file is cut off: an array of shape {shape:?} ends at byte {end}, the file at {have}"));
    }
    let (first, channels) = match number {
        Number::Level => with_channels_first(&shape)?,
        _ => (shape.clone(), ChannelAxis::First),
    };
    let axes = match shape.as_slice() {
        [_] | [_, _, _] => 0,
        [_, rest @ ..] if matches!(rest.len(), 1 | 3) => 1,
        _ => return Err(format!("an array of shape {shape:?} is neither [N,C,H,W] nor [C,H,W]")),
    };
    Ok(ArrayFile {
        path: PathBuf::new(),
        file,
        number,
        order,
        start,
        rows: shape[..axes].iter().product(),
        stored: shape[axes..].to_vec(),
        dims: first[axes..].to_vec(),
        channels,
        has_both: false,
        single: axes == 0,
        labels: None,
        scattered: Vec::new(),
        room: Room::default(),
    })
}

fn open_npy(mut file: File) -> OpenedArray {
    let header = npy::read(&mut file)?;
    let (order, kind) = header.descr.split_at(header.descr.len().min(1));
    let number = match (order, kind) {
        ("|" | "<" | ">" | "=", "u1") => Number::Level,
        ("<" | "=", "f2") => Number::F16(Endianness::Little),
        ("<" | "=", "f4") => Number::F32(Endianness::Little),
        ("<" | "=", "f8") => Number::F64(Endianness::Little),
        (">", "f2") => Number::F16(Endianness::Big),
        (">", "f4") => Number::F32(Endianness::Big),
        (">", "f8") => Number::F64(Endianness::Big),
        _ => {
            return Err(format!(
                "numbers of type {} are not supported: f16, f32, f64 (normalised numbers) or u8 (levels)",
                header.descr
            ));
        }
    };
    let start = file.stream_position().map_err(|e| e.to_string())?;
    assemble(file, number, if header.fortran { AxisOrder::Fortran } else { AxisOrder::C }, start, header.shape)
}

fn open_safetensors(mut file: File, room: Room) -> OpenedArray {
    let mut length = [0; 8];
    file.read_exact(&mut length).map_err(|_| "not a .safetensors file: shorter than its header".to_string())?;
    let length = u64::from_le_bytes(length);
    if length > MOST_HEADER_BYTES as u64 {
        return Err(format!("not a .safetensors file: a header of {length} bytes"));
    }
    let mut header = Vec::new();
    (&mut file).take(length).read_to_end(&mut header).map_err(|e| e.to_string())?;
    if header.len() as u64 != length {
        return Err("the file is cut off".into());
    }
    let metadata = safetensors_header(&header).map_err(|e| format!("not a .safetensors file: bad header: {e}"))?;
    let data = 8 + length;
    let labels = metadata.info("labels").map(|info| read_labels(&mut file, data, info, room));
    let Some(info) = metadata.info("input").or_else(|| metadata.info("images")) else {
        return Err("the file has neither a tensor `input` nor `images`".into());
    };
    let levels = metadata.info("input").is_none();
    let number = match (info.dtype, levels) {
        (Dtype::U8, true) => Number::Level,
        (Dtype::F16, false) => Number::F16(Endianness::Little),
        (Dtype::BF16, false) => Number::Bf16,
        (Dtype::F32, false) => Number::F32(Endianness::Little),
        (Dtype::F64, false) => Number::F64(Endianness::Little),
        (other, true) => return Err(format!("tensor `images` has type {other:?}, not U8")),
        (other, false) => return Err(format!("tensor `input` has type {other:?}, not a floating-point type")),
    };
    let array = assemble(file, number, AxisOrder::C, data + info.data_offsets.0 as u64, info.shape.clone())
        .map_err(|why| if levels { format!("tensor `images`: {why}") } else { why })?;
    let has_both = metadata.info("input").is_some() && metadata.info("images").is_some();
    Ok(ArrayFile { labels, has_both, ..array })
}

fn read_labels(file: &mut File, data: u64, info: &TensorInfo, room: Room) -> std::result::Result<Vec<i64>, String> {
    let cut = |_| "the file is cut off".to_string();
    let length = info.data_offsets.1 - info.data_offsets.0;
    let have = file.metadata().map_err(|e| e.to_string())?.len();
    if data + info.data_offsets.1 as u64 > have {
        return Err("the file is cut off".into());
    }
    let held = (length as u64).saturating_mul(9);
    room.check(|| format!("a tensor `labels` of shape {:?}", info.shape), held).map_err(|e| e.to_string())?;
    let mut bytes = vec![0; length];
    file.seek(SeekFrom::Start(data + info.data_offsets.0 as u64)).map_err(cut)?;
    file.read_exact(&mut bytes).map_err(cut)?;
    let (size, signed) = match info.dtype {
        Dtype::U8 => (1, false),
        Dtype::I8 => (1, true),
        Dtype::U16 => (2, false),
        Dtype::I16 => (2, true),
        Dtype::U32 => (4, false),
        Dtype::I32 => (4, true),
        Dtype::U64 => (8, false),
        Dtype::I64 => (8, true),
        other => return Err(format!("tensor `labels` has type {other:?}, not an integer type")),
    };
    let label = |b: &[u8]| {
        let bits = b.iter().rev().fold(0u64, |n, &byte| n << 8 | u64::from(byte));
        let unused = 64 - 8 * size as u32;
        // No net has more classes than i64 can count.
        if signed { (bits << unused) as i64 >> unused } else { i64::try_from(bits).unwrap_or(i64::MAX) }
    };
    Ok(bytes.chunks_exact(size).map(label).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write_npy(path: &Path, descr: &str, fortran: bool, shape: &[usize], numbers: &[u8]) {
        let fortran = if fortran { "True" } else { "False" };
        let shape: String = shape.iter().map(|n| format!("{n},")).collect();
        let text = format!("{{'descr': '{descr}', 'fortran_order': {fortran}, 'shape': ({shape})}}\n");
        let length = (text.len() as u16).to_le_bytes();
        std::fs::write(path, [b"\x93NUMPY\x01\0", length.as_slice(), text.as_bytes(), numbers].concat()).unwrap();
    }

    #[test]
    fn rows_are_the_same_in_either_order() {
        let folder = tempfile::tempdir().unwrap();
        let dims = [3, 2, 5, 7];
        let value = |n: usize, c: usize, h: usize, w: usize| (((n * 2 + c) * 5 + h) * 7 + w) as f64;
        let mut rows = Vec::new();
        for order in [AxisOrder::C, AxisOrder::Fortran] {
            let path = folder.path().join(format!("{order:?}.npy"));
            let total: usize = dims.iter().product();
            let mut bytes = Vec::new();
            for mut k in 0..total {
                let mut at = [0; 4];
                let axes = if order == AxisOrder::C { [3, 2, 1, 0] } else { [0, 1, 2, 3] };
                for axis in axes {
                    at[axis] = k % dims[axis];
                    k /= dims[axis];
                }
                bytes.extend(value(at[0], at[1], at[2], at[3]).to_be_bytes());
            }
            write_npy(&path, ">f8", order == AxisOrder::Fortran, &dims, &bytes);
            let mut array = ArrayFile::open(&path, Room::default()).unwrap();
            assert_eq!((array.rows(), array.dims(), array.is_single()), (3, [2, 5, 7].as_slice(), false));
            rows.push((0..3).map(|i| array.row(i).unwrap()).collect::<Vec<_>>());
        }
        assert_eq!(rows[0], rows[1]);
        let Row::Normalised(last) = &rows[0][2] else { panic!("levels") };
        assert_eq!(last.at(69), 209.0);
    }

    #[test]
    fn an_array_that_cannot_be_held_is_one_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.npy");
        let shape = [600_000, 4];
        let open = |fortran| {
            write_npy(&path, "<f4", fortran, &shape, &vec![0; 600_000 * 4 * 4]);
            ArrayFile::open(&path, Room { allowed: Some(2 << 20) })
        };
        let why = open(true).unwrap_err().to_string();
        assert!(why.contains("x.npy") && why.contains("Fortran"), "{why}");
        assert!(open(false).unwrap().row(7).is_ok());
    }

    #[test]
    fn of_two_tensors_of_inputs_the_one_taken_is_said() {
        use safetensors::tensor::TensorView;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.safetensors");
        let (numbers, levels) = (vec![0u8; 2 * 3 * 4], vec![0u8; 2 * 3]);
        let input = || ("input", TensorView::new(Dtype::F32, vec![2, 3], &numbers).unwrap());
        let images = ("images", TensorView::new(Dtype::U8, vec![2, 1, 1, 3], &levels).unwrap());
        std::fs::write(&path, safetensors::serialize([input(), images], None).unwrap()).unwrap();
        let both = ArrayFile::open(&path, Room::default()).unwrap();
        assert!(both.assumed().is_some_and(|said| said.contains("`images` is not")));
        std::fs::write(&path, safetensors::serialize([input()], None).unwrap()).unwrap();
        assert_eq!(ArrayFile::open(&path, Room::default()).unwrap().assumed(), None);
    }

    #[test]
    fn channels_are_found_or_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.npy");
        let bytes: Vec<u8> = (0..2 * 4 * 5 * 3).collect();
        write_npy(&path, "|u1", false, &[2, 4, 5, 3], &bytes);
        let mut last = ArrayFile::open(&path, Room::default()).unwrap();
        assert_eq!((last.rows(), last.dims()), (2, [3, 4, 5].as_slice()));
        assert!(last.assumed().is_some_and(|said| said.contains("height x width x channel")));
        let Row::Levels(levels) = last.row(1).unwrap() else { panic!("numbers") };
        // Channel 2, row 1, column 3 of picture 1.
        assert_eq!(levels[(2 * 4 + 1) * 5 + 3], bytes[((4 + 1) * 5 + 3) * 3 + 2]);
        write_npy(&path, "|u1", false, &[2, 3, 4, 5], &bytes);
        let mut first = ArrayFile::open(&path, Room::default()).unwrap();
        assert_eq!((first.dims(), first.assumed()), ([3, 4, 5].as_slice(), None));
        assert_eq!(first.row(0).unwrap(), Row::Levels(bytes[..60].to_vec()));
        for (shape, word) in [
            ([2, 3, 5, 3].as_slice(), "may be the first or the last"),
            (&[2, 1, 5, 3], "may be the first or the last"),
            (&[3, 5, 1], "may be the first or the last"),
            (&[2, 4, 5, 2], "1 or 3 channels"),
            (&[2, 5, 4], "1 or 3 channels"),
            (&[2, 9], "not pictures"),
        ] {
            write_npy(&path, "|u1", false, shape, &bytes);
            let message = ArrayFile::open(&path, Room::default()).unwrap_err().to_string();
            assert!(message.contains(word), "{message}");
        }
    }

    #[test]
    fn hostile_files_are_errors() {
        let folder = tempfile::tempdir().unwrap();
        let huge = b"\x93NUMPY\x01\x00\x46\x00{'descr': '<f4', 'fortran_order': False, 'shape': (9, 3, 999, 999)}   \n";
        let cases: [(&str, &[u8]); 5] = [
            ("a.npy", b"plain text"),
            ("b.npy", b""),
            ("c.npy", huge),
            ("d.safetensors", b"\xff\xff\xff\xff\xff\xff\xff\x7f{}"),
            ("e.safetensors", b"\x02\0\0\0\0\0\0\0{}"),
        ];
        for (name, bytes) in cases {
            let path = folder.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            let message = ArrayFile::open(&path, Room::default()).unwrap_err().to_string();
            assert!(message.contains(name), "{message}");
        }
    }
}
