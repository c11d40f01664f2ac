//! What a model path is: which files it stands for, and what they are by their first bytes. Nothing in them is executed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::error::{Error, Result};
use crate::tensor::MOST_HEADER_BYTES;

/// Longest JSON text that is read, in bytes.
const MOST_JSON_BYTES: usize = 64 << 20;

/// Most entries of an archive whose names are looked at.
const MOST_ENTRIES: usize = 10_000;

/// Longest name of a file that a command repeats.
const MOST_NAME_CHARS: usize = 60;

/// What a file is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A safetensors file; it may be damaged.
    Safetensors,
    /// The list of a net's shards, `model.safetensors.index.json`.
    Index,
    /// An ONNX graph.
    Onnx,
    /// Anything else: one sentence that says what, and how to make of it what can be read.
    Other(String),
}

impl Kind {
    /// The error for a file that is not read as what it is.
    pub(super) fn refusal(self) -> Error {
        Error::model(match self {
            Self::Safetensors => "this is a safetensors file".to_string(),
            Self::Index => "this is the list of a net's shards; give it by its path".to_string(),
            Self::Onnx => "this is an ONNX graph, which this build does not read".to_string(),
            Self::Other(sentence) => sentence,
        })
    }
}

/// Files that are told by how they begin, and the sentence about each.
const MAGIC: &[(&[u8], &str)] = &[
    (
        b"version https://git-lfs",
        "this is a Git LFS pointer, not the weights: run `git lfs pull` in its folder to fetch them",
    ),
    (
        b"GGUF",
        "this is a GGUF file of llama.cpp, which stores no picture classifier that is read here: take the safetensors \
         file that it was made of",
    ),
    (b"\x93NUMPY", "this is an array (.npy), not a net: it can be an input"),
    (b"\x1f\x8b", "this file is compressed (gzip): unpack it with `gunzip`, and give what comes out"),
    (b"\x28\xb5\x2f\xfd", "this file is compressed (zstd): unpack it with `unzstd`, and give what comes out"),
    (b"\xfd7zXZ\0", "this file is compressed (xz): unpack it with `unxz`, and give what comes out"),
    (b"BZh", "this file is compressed (bzip2): unpack it with `bunzip2`, and give what comes out"),
    (b"7z\xbc\xaf\x27\x1c", "this is an archive (7z): unpack it, and give the net in it"),
    (b"\x89PNG\r\n", "this is a picture (PNG), not a net"),
    (b"\xff\xd8\xff", "this is a picture (JPEG), not a net"),
];

/// Looks at the first bytes of a file, and of an archive at the names in it. `path` gives the name for commands, and
/// tells what bytes leave open.
pub(super) fn kind_of(bytes: &[u8], path: &Path) -> Kind {
    let other = |sentence: &str| Kind::Other(sentence.to_string());
    if bytes.is_empty() {
        return other("the file is empty; expected safetensors or ONNX");
    }
    if let Some((length, rest)) = bytes.split_first_chunk()
        && rest.first() == Some(&b'{')
    {
        let (length, most) = (u64::from_le_bytes(*length), MOST_HEADER_BYTES.max(bytes.len()) as u64);
        return match length {
            n if n <= most => Kind::Safetensors,
            _ => other("not a safetensors file, or damaged: its first 8 bytes give a header longer than the file"),
        };
    }
    if let Some((_, sentence)) = MAGIC.iter().find(|(magic, _)| bytes.starts_with(magic)) {
        return other(sentence);
    }
    let names = Names::of(path);
    if bytes.starts_with(b"PK\x03\x04") {
        return Kind::Other(archive(bytes, &names));
    }
    if bytes.starts_with(b"\x89HDF\r\n\x1a\n") {
        return Kind::Other(names.keras("this is an HDF5 file, as Keras writes it"));
    }
    if bytes.get(4..8) == Some(b"TFL3") {
        let Names { name, stem } = &names;
        return Kind::Other(format!(
            "this is a TensorFlow Lite net; make ONNX of it: \
             `pip install tf2onnx` and `python -m tf2onnx.convert --tflite {name} --output {stem}.onnx`"
        ));
    }
    if is_pickle(bytes) {
        return Kind::Other(names.checkpoint("this is a pickled checkpoint, as PyTorch writes it"));
    }
    if bytes.get(257..262) == Some(b"ustar") {
        return other("this is an archive (tar): unpack it with `tar xf`, and give the net in it");
    }
    if let Some(kind) = text(bytes) {
        return kind;
    }
    let extension = path.extension().map(|e| e.to_ascii_lowercase()).unwrap_or_default();
    if extension == "pb" {
        return other(
            "this is a graph of TensorFlow; make ONNX of the folder that it was saved in: `pip install tf2onnx` and \
             `python -m tf2onnx.convert --saved-model FOLDER --output net.onnx`",
        );
    }
    if extension == "onnx" || begins_as_onnx(bytes) {
        return Kind::Onnx;
    }
    if names.name.ends_with(".onnx.data") || names.name.ends_with(".onnx_data") {
        return other("these are the weights of an ONNX net: give the .onnx file beside them, which reads them");
    }
    if bytes.iter().take(64).all(|&b| b == 0) {
        return other("the file begins with zeros, as one whose download was broken off: fetch it again");
    }
    // A header that was cut, or whose first bytes were lost.
    if extension == "safetensors" && bytes.len() < 9 {
        return Kind::Other(format!("truncated: {} bytes are too few for a safetensors file", bytes.len()));
    }
    if let Some(start) = words(bytes) {
        return Kind::Other(format!("this is a text, not a net; it begins with \"{start}\""));
    }
    let first: Vec<String> = bytes.iter().take(8).map(|b| format!("{b:02x}")).collect();
    Kind::Other(format!(
        "neither safetensors nor ONNX, nor another file that is told by how it begins ({})",
        first.join(" ")
    ))
}

/// The file's name and its stem, as commands repeat them.
struct Names {
    name: String,
    stem: String,
}

impl Names {
    fn of(path: &Path) -> Self {
        let text = |part: Option<&std::ffi::OsStr>| part.map(|p| p.to_string_lossy().into_owned()).unwrap_or_default();
        let (name, stem) = (text(path.file_name()), text(path.file_stem()));
        // What a shell or Python would not take as it is, is for the reader to fill in.
        let plain = |c: char| c.is_ascii_alphanumeric() || "._-+".contains(c);
        let usable = !name.is_empty() && !name.starts_with('-') && name.len() <= MOST_NAME_CHARS;
        if usable && name.chars().all(plain) {
            Self { name, stem }
        } else {
            Self { name: "FILE".into(), stem: "net".into() }
        }
    }

    fn checkpoint(&self, what: &str) -> String {
        let Self { name, stem } = self;
        format!(
            "{what}, which only Python opens; these two lines make safetensors of it: \
             `import torch, safetensors.torch; d = torch.load(\"{name}\", map_location=\"cpu\", weights_only=True)`, \
             `safetensors.torch.save_file({{k: v.clone().contiguous() for k, v in d.get(\"state_dict\", d).items()}}, \
             \"{stem}.safetensors\")`"
        )
    }

    fn keras(&self, what: &str) -> String {
        let Self { name, stem } = self;
        format!(
            "{what}; these two lines of Python make ONNX of it (Keras 3 with tf2onnx): `import keras`, \
             `keras.models.load_model(\"{name}\", compile=False).export(\"{stem}.onnx\", format=\"onnx\")`; \
             weights alone need the program that builds their net"
        )
    }
}

/// What a zip archive is, by the names in it.
fn archive(bytes: &[u8], names: &Names) -> String {
    let entries = entries(bytes);
    let ends = |end: &str| entries.iter().any(|entry| entry.ends_with(end));
    let within = |part: &str| entries.iter().any(|entry| entry.contains(part));
    let Names { name, stem } = names;
    if ends("/models/model.json") || ends("/archive_format") || ends("serialized_exported_program.json") {
        return format!(
            "this is an exported program of PyTorch (.pt2); these two lines of Python make ONNX of it: `import torch`, \
             `torch.onnx.export(torch.export.load(\"{name}\"), f=\"{stem}.onnx\")`"
        );
    }
    if ends("/constants.pkl") || within("/code/__torch__") {
        return format!(
            "this is a TorchScript net; these two lines of Python make ONNX of it, with the size of its pictures: \
             `import torch; net = torch.jit.load(\"{name}\", map_location=\"cpu\").eval()`, \
             `torch.onnx.export(net, torch.zeros(1, 3, 224, 224), \"{stem}.onnx\", dynamo=False)`"
        );
    }
    if ends("data.pkl") || within("/data/") {
        return names.checkpoint("this is a checkpoint of PyTorch");
    }
    if entries.iter().any(|entry| entry == "config.json") && ends(".weights.h5") || ends("model.weights.h5") {
        return names.keras("this is a net of Keras");
    }
    if entries.iter().any(|entry| entry.ends_with(".npy")) {
        return format!(
            "this is an archive of numpy's (.npz); these two lines of Python make safetensors of it: \
             `import numpy, safetensors.numpy`, \
             `safetensors.numpy.save_file(dict(numpy.load(\"{name}\")), \"{stem}.safetensors\")`"
        );
    }
    let inside = |end: &str| entries.iter().find(|entry| entry.to_lowercase().ends_with(end));
    match [".safetensors", ".onnx", ".pth", ".pt", ".h5", ".keras"].iter().find_map(|end| inside(end)) {
        Some(net) => format!("this is an archive (zip): unpack it with `unzip`, and give '{net}', which is in it"),
        None => "this is an archive (zip) without a net that is known: unpack it with `unzip` and look".into(),
    }
}

/// The names in a zip archive; of one that is cut, the first.
fn entries(bytes: &[u8]) -> Vec<String> {
    directory(bytes).filter(|names| !names.is_empty()).unwrap_or_else(|| entry(bytes, 30, 26, 0).into_iter().collect())
}

/// The name of `length at` bytes at `start`, counted from `from`.
fn entry(bytes: &[u8], start: usize, length: usize, from: usize) -> Option<String> {
    let n = usize::from(u16::from_le_bytes(bytes.get(from + length..from + length + 2)?.try_into().ok()?));
    Some(String::from_utf8_lossy(bytes.get(from + start..from + start + n)?).into_owned())
}

/// The names in the directory at the end of a zip archive, also of one beyond 4 GiB.
fn directory(bytes: &[u8]) -> Option<Vec<String>> {
    let long = |at: usize| -> Option<usize> {
        usize::try_from(u64::from_le_bytes(bytes.get(at..at.checked_add(8)?)?.try_into().ok()?)).ok()
    };
    let half = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?) as usize);
    let end = bytes.len().saturating_sub((1 << 16) + 22);
    let end = end + bytes[end..].windows(4).rposition(|four| four == b"PK\x05\x06")?;
    let mut at = half(end + 16)?;
    if at == u32::MAX as usize {
        let locator = end.checked_sub(20).filter(|&at| bytes[at..].starts_with(b"PK\x06\x07"))?;
        at = long(long(locator + 8)?.checked_add(48)?)?;
    }
    let mut names = Vec::new();
    while names.len() < MOST_ENTRIES && bytes.get(at..)?.starts_with(b"PK\x01\x02") {
        names.push(entry(bytes, 46, 28, at)?);
        let lengths = [28, 30, 32].map(|field| bytes.get(at + field..at + field + 2).map(|b| [b[0], b[1]]));
        let lengths = lengths.into_iter().collect::<Option<Vec<_>>>()?;
        at += 46 + lengths.into_iter().map(|b| usize::from(u16::from_le_bytes(b))).sum::<usize>();
    }
    Some(names)
}

/// Whether these are the first bytes of a pickle, of any protocol.
fn is_pickle(bytes: &[u8]) -> bool {
    match bytes {
        [0x80, 2..=5, ..] => true,
        // Protocol 1: an empty dictionary, list or tuple that is put into the memo.
        [b'}' | b']' | b')', b'q', ..] => true,
        // Protocol 0: a marked dictionary or list, or a class by module and name.
        [b'(', b'd' | b'l', b'p', b'0'..=b'9', ..] => true,
        [b'c', rest @ ..] => {
            let mut lines = rest.get(..rest.len().min(200)).unwrap_or_default().split(|&b| b == b'\n');
            let word = |line: Option<&[u8]>| {
                line.is_some_and(|l| !l.is_empty() && l.iter().all(|b| b.is_ascii_alphanumeric() || b"._".contains(b)))
            };
            word(lines.next()) && word(lines.next()) && lines.next().is_some()
        }
        _ => false,
    }
}

/// What a text is: a page, a server's answer, a list of shards; `None` if it is none of these.
fn text(bytes: &[u8]) -> Option<Kind> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes).trim_ascii_start();
    let start = bytes.get(..bytes.len().min(1000))?.to_ascii_lowercase();
    let other = |sentence: &str| Some(Kind::Other(sentence.to_string()));
    if start.starts_with(b"<!doctype html") || start.starts_with(b"<html") {
        return other(
            "this is a web page (HTML), not a net: the download brought a page; on huggingface.co take `resolve` in place \
             of `blob` in the address",
        );
    }
    if start.starts_with(b"<?xml") {
        let refused = start.windows(7).any(|w| w == b"<error>");
        return other(match refused {
            true => "this is a server's answer that it refused the download (XML), not a net: fetch the file again",
            false => "this is an XML text, not a net; of an OpenVINO net take the ONNX file that it was made of",
        });
    }
    if !matches!(bytes.first(), Some(b'{' | b'['))
        || std::str::from_utf8(&start).is_err_and(|e| e.error_len().is_some())
    {
        return None;
    }
    if bytes.len() > MOST_JSON_BYTES {
        return other("this is a long JSON text, not a net");
    }
    let Ok(value) = serde_json::from_slice::<Value>(bytes) else {
        return other("this is a JSON text that is cut or damaged, not a net: fetch it again");
    };
    if value.get("weight_map").is_some() {
        return Some(Kind::Index);
    }
    if let Some(said) = ["error", "message", "detail"].iter().find_map(|key| value.get(key)?.as_str()) {
        let said: String = said.chars().take(100).collect();
        return Some(Kind::Other(format!("this is a server's answer, not a net: \"{said}\"")));
    }
    let about = ["architectures", "architecture", "model_type", "pretrained_cfg", "image_mean"];
    other(match about.iter().any(|key| value.get(key).is_some()) {
        true => {
            "this text (JSON) describes a net and does not hold its weights: give the weights, or the folder of both"
        }
        false => "this is a JSON text, not a net",
    })
}

/// The first words of a plain text.
fn words(bytes: &[u8]) -> Option<&str> {
    let start = &bytes[..bytes.len().min(400)];
    let plain = |b: &u8| b.is_ascii_graphic() || b.is_ascii_whitespace();
    let line = start.iter().all(plain).then(|| std::str::from_utf8(start).ok())??.trim_start().lines().next()?;
    Some(line[..line.len().min(40)].trim_end()).filter(|line| !line.is_empty())
}

/// Whether the first fields are those of an ONNX `ModelProto`: the version of the format, then others in any order.
fn begins_as_onnx(bytes: &[u8]) -> bool {
    let [0x08, 1..=64, rest @ ..] = bytes else { return false };
    // The producer's name and version, the domain, a number, a text, the graph, the operations' version, metadata.
    match rest {
        [0x12 | 0x1a | 0x22 | 0x32, length, text @ ..] => {
            let n = usize::from(*length);
            n < 128 && text.get(..n).is_none_or(|text| text.iter().all(|b| b.is_ascii_graphic() || *b == b' '))
        }
        [0x28 | 0x3a | 0x42 | 0x72, ..] => true,
        _ => false,
    }
}

/// The end of the name of a list of shards.
const INDEX: &str = ".safetensors.index.json";

/// Most shards of a net.
const MOST_SHARDS: usize = 1000;

/// Most files that an error lists.
const MOST_LISTED: usize = 8;

/// What a model path stands for: one file, and the net's name.
pub(super) struct Found {
    pub(super) name: String,
    pub(super) path: PathBuf,
}

/// The file that `path` stands for: itself, or the one net in a folder.
///
/// # Errors
/// When it does not exist, is neither file nor folder, or is a folder with no net or with several.
pub(super) fn find(path: &Path) -> Result<Found> {
    // By path: opening a pipe would wait for its other end.
    let metadata = path.metadata().map_err(|e| Error::io(path, e))?;
    if metadata.is_dir() {
        return in_folder(path).map_err(|e| e.within(path.display()));
    }
    if !metadata.is_file() {
        return Err(Error::model(format!("{}: this is not a regular file; expected a net", path.display())));
    }
    let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
    let stem = || path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
    let name = name.strip_suffix(INDEX).map(str::to_owned).or_else(stem).unwrap_or_else(|| name.to_string());
    Ok(Found { name, path: path.to_owned() })
}

/// Names that say nothing of a net.
const GENERIC: [&str; 5] = ["model", "pytorch_model", "weights", "checkpoint", "model_best"];

/// What the net in the file `name` of `folder` is called: as its file, but where all nets have that name as its folder, and
/// in the hub's cache (`models--OWNER--NAME/snapshots/HASH`) as there.
pub(super) fn called(name: &str, folder: &Path) -> String {
    // A file beside the program has an empty folder.
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let Ok(folder) = folder.canonicalize() else { return name.to_string() };
    let named = |folder: &Path| folder.file_name().map(|name| name.to_string_lossy().into_owned());
    let is_snapshot = folder.parent().and_then(named).is_some_and(|parent| parent == "snapshots");
    let repository = folder.ancestors().nth(2).filter(|_| is_snapshot).and_then(named);
    let repository = repository.and_then(|name| Some(name.strip_prefix("models--")?.rsplit("--").next()?.to_string()));
    let own = named(&folder);
    if GENERIC.contains(&name) || own.as_deref() == Some(name) {
        return repository.or(own).unwrap_or_else(|| name.to_string());
    }
    name.to_string()
}

/// The net in a folder: `model.safetensors`, else `model.safetensors.index.json`, else the only net there.
fn in_folder(folder: &Path) -> Result<Found> {
    // `.` and a link have the name of what they stand for.
    let named = folder.canonicalize().map_err(|e| Error::io(folder, e))?;
    let name = named.file_name().map_or_else(|| "model".to_string(), |name| name.to_string_lossy().into_owned());
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(|e| Error::io(folder, e))? {
        let file = entry.map_err(|e| Error::io(folder, e))?.file_name().to_string_lossy().into_owned();
        if !file.starts_with('.') {
            files.push(file);
        }
    }
    files.sort();
    let has = |file: &str| files.iter().any(|f| f == file);
    let chosen = ["model.safetensors", "model.safetensors.index.json"].into_iter().find(|file| has(file));
    let ends = |ends: &[&str]| -> Vec<&str> {
        files.iter().map(String::as_str).filter(|f| ends.iter().any(|end| f.to_lowercase().ends_with(end))).collect()
    };
    let file = match (chosen, ends(&[INDEX]).as_slice(), ends(&[".safetensors", ".onnx"]).as_slice()) {
        (Some(file), ..) => file,
        (None, [file], _) | (None, _, [file]) => file,
        (None, _, []) => return Err(without_net(folder, &files)),
        (None, _, nets) => {
            if let Some((shard, of)) = nets.iter().find_map(|net| Some((net, shard(net)?))) {
                return Err(Error::model(format!(
                    "this folder holds the shards of a net, such as {shard}, but not their list {}",
                    of.index
                )));
            }
            return Err(Error::model(format!("this folder holds several nets; give one of them: {}", listed(nets))));
        }
    };
    Ok(Found { name, path: folder.join(file) })
}

fn listed<T: AsRef<str>>(names: &[T]) -> String {
    let shown: Vec<&str> = names.iter().take(MOST_LISTED).map(AsRef::as_ref).collect();
    let more = names.len().saturating_sub(MOST_LISTED);
    format!("{}{}", shown.join(", "), if more > 0 { format!(" and {more} more") } else { String::new() })
}

/// The error for a folder without safetensors or ONNX; it says what to make of a net of another kind in it.
fn without_net(folder: &Path, files: &[String]) -> Error {
    let other = [".bin", ".pth", ".pt", ".ckpt", ".pt2", ".h5", ".keras", ".tflite", ".npz", ".gguf"];
    let other = other.iter().find_map(|end| files.iter().find(|file| file.to_lowercase().ends_with(end)));
    let said = other.and_then(|file| {
        use std::io::Read;
        let mut bytes = Vec::new();
        let path = folder.join(file);
        crate::error::open_file(&path).ok()?.take(MOST_JSON_BYTES as u64).read_to_end(&mut bytes).ok()?;
        match kind_of(&bytes, &path) {
            Kind::Other(sentence) => Some(format!("of {file}: {sentence}")),
            _ => None,
        }
    });
    if let Some(said) = said {
        return Error::model(format!("this folder holds neither safetensors nor ONNX; {said}"));
    }
    if files.iter().any(|file| file == "saved_model.pb") {
        return Error::model(
            "this folder is a SavedModel of TensorFlow; make ONNX of it: `pip install tf2onnx` and \
             `python -m tf2onnx.convert --saved-model FOLDER --output net.onnx`",
        );
    }
    let inside = if files.is_empty() { "it is empty".into() } else { format!("it holds {}", listed(files)) };
    Error::model(format!("this folder holds no model.safetensors and no other net (.safetensors, .onnx); {inside}"))
}

/// A shard by its name.
struct Shard<'a> {
    of: &'a str,
    index: String,
}

/// What `model-00001-of-00002.safetensors` is a part of; `None` for a whole net.
fn shard(name: &str) -> Option<Shard<'_>> {
    let (rest, of) = name.strip_suffix(".safetensors")?.rsplit_once("-of-")?;
    let (net, number) = rest.rsplit_once('-')?;
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let several = of.trim_start_matches('0');
    (digits(of) && digits(number) && several != "1").then(|| Shard { of: several, index: format!("{net}{INDEX}") })
}

/// Refuses one shard alone.
///
/// # Errors
/// When the name says that it is one of several.
pub(super) fn expect_whole(path: &Path) -> Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let Some(Shard { of, index }) = shard(&name) else { return Ok(()) };
    Err(Error::model(format!(
        "this is one of {of} shards of a net: give their list, {index}, or the folder that holds them all"
    )))
}

/// The shards of a list in the order of their names, each with the tensors that it must hold.
///
/// # Errors
/// When the list is not of the expected form, or names a file that is not a plain name in its own folder.
pub(super) fn shards(index: &[u8]) -> Result<Vec<(String, Vec<String>)>> {
    let index = index.strip_prefix(b"\xef\xbb\xbf").unwrap_or(index);
    let value: Value = serde_json::from_slice(index).map_err(|e| Error::model(format!("not JSON: {e}")))?;
    let map = value.get("weight_map").and_then(Value::as_object);
    let map = map.ok_or_else(|| Error::model("`weight_map` is not an object of tensors and their files"))?;
    let mut shards: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (tensor, file) in map {
        let file = file.as_str().ok_or_else(|| Error::model(format!("`weight_map`: '{tensor}' has no file")))?;
        if file.is_empty() || file.starts_with('.') || file.contains(['/', '\\', ':', '\0']) {
            return Err(Error::model(format!(
                "`weight_map`: '{file}' is not the name of a file in this folder, where shards must lie"
            )));
        }
        shards.entry(file).or_default().push(tensor.clone());
    }
    if shards.is_empty() {
        return Err(Error::model("`weight_map` names no tensors"));
    }
    if shards.len() > MOST_SHARDS {
        return Err(Error::model(format!("{} shards, which is more than {MOST_SHARDS}", shards.len())));
    }
    Ok(shards.into_iter().map(|(file, tensors)| (file.to_string(), tensors)).collect())
}
