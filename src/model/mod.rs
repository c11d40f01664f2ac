//! From a safetensors file to a graph: the architecture is read from the names and shapes of the tensors.

mod alexnet;
mod assembly;
mod blueprint;
mod changes;
mod cifar;
mod config;
mod convnext;
mod densenet;
mod dla;
mod efficientnet;
mod efficientnet_lite;
mod extras;
mod files;
mod ghostnet;
mod googlenet;
mod graphs;
mod inception_v3;
mod info;
mod inverted;
mod labels;
mod lenet;
mod mlp;
mod mobilenet_v1;
mod mobilenet_v2;
mod mobilenet_v3;
mod names;
#[cfg(feature = "onnx")]
mod onnx;
mod preprocess;
mod regnet;
mod repvgg;
mod resnet;
mod resnet_blocks;
mod shufflenet_v2;
mod squeezenet;
mod table;
mod tensors;
mod timm_mobile;
mod transformers_efficientnet;
mod vgg;
mod vovnet;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

pub use blueprint::{blueprint, known_nets};
pub use info::{LayerInfo, ModelInfo};
pub use labels::{Labels, is_synset};
use sha2::{Digest, Sha256};

use crate::error::{Error, Result, open_file};
use crate::graph::{Bytes, Graph, Link};
use crate::image::Preprocess;
use crate::near;
use crate::tensor::Shape;
use crate::text::hex;
use config::{Sizes, Statement};
use files::Kind;
use preprocess::Preparation;
pub use table::{ARCHITECTURES, Architecture};
pub use tensors::Blueprint;
use tensors::Tensors;

/// Longest side of an input, in elements.
const MAX_SIDE: usize = 1 << 16;

/// Most graphs of other sizes that are cached.
const MAX_KEPT_GRAPHS: usize = 64;

/// Most names that an error lists.
const SHOWN_NAMES: usize = 6;

/// An architecture's reading of a file.
struct BuiltNet {
    graph: Graph,
    architecture: String,
    /// Kind and depths, independent of the width: what a published name stands for.
    form: String,
    preparation: Preparation,
    labels: Labels,
    /// Properties of the net that names and shapes do not determine.
    assumed: Vec<&'static str>,
}

impl BuiltNet {
    /// A classifier of pictures that is known by its form alone.
    fn of_pictures(
        graph: Graph,
        form: impl Into<String>,
        assumed: Vec<&'static str>,
        preparation: Preparation,
    ) -> Self {
        let (form, labels) = (form.into(), Labels::for_pictures(graph.classes()));
        Self { architecture: form.clone(), form, assumed, preparation, labels, graph }
    }
}

/// A setting that is assumed unless someone gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Setting {
    /// The mean that is subtracted from pictures.
    Mean,
    /// The standard deviation that divides them.
    Std,
    /// The crop size, and the short side before cropping.
    Size,
    /// The filter of the resize.
    Interpolation,
    /// The names of the classes.
    Labels,
}

/// All settings.
const ALL_SETTINGS: [Setting; 5] =
    [Setting::Mean, Setting::Std, Setting::Size, Setting::Interpolation, Setting::Labels];

impl Setting {
    /// The settings of the picture preparation, with their names.
    const OF_PREPARATION: [(Setting, &'static str); 4] = [
        (Setting::Mean, "mean"),
        (Setting::Std, "std"),
        (Setting::Size, "size"),
        (Setting::Interpolation, "interpolation"),
    ];
}

fn known() -> String {
    let known: Vec<String> = ARCHITECTURES.iter().map(|a| format!("{} ({})", a.name, a.nets)).collect();
    known.join(", ")
}

/// The architecture named `wanted`.
fn named(wanted: &str) -> Result<&'static Architecture> {
    near::find(wanted, ARCHITECTURES.iter(), |a| [a.name])
        .ok_or_else(|| Error::settings(format!("no architecture is named '{wanted}'; known are {}", known())))
}

/// The first architecture that matches names and shapes, or the one that is `given`. The tensors then have the names by
/// which it knows them.
fn recognised(tensors: &mut Tensors, given: Option<&'static Architecture>) -> Result<&'static Architecture> {
    let rows = ARCHITECTURES.iter().filter(|row| given.is_none_or(|given| given.name == row.name));
    for prefix in tensors.prefixes() {
        for row in rows.clone() {
            match tensors.rename(&prefix, row.dialects, row.recognise) {
                Ok(false) => {}
                // What tells the family from others does not matter if it is given.
                Err(_) if given.is_some() => return Ok(row),
                found => return found.map(|_| row),
            }
        }
    }
    if let Some(given) = given {
        return Ok(given);
    }
    let names: Vec<&str> = tensors.names().take(SHOWN_NAMES).collect();
    let more = tensors.names().count().saturating_sub(SHOWN_NAMES);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    Err(Error::model(format!(
        "the tensors are of no known architecture{}; any other net is read from ONNX; the tensors are {}{more}; known are {}",
        resemblance(tensors),
        names.join(", "),
        known()
    )))
}

/// Most tensors of a file that is compared with every family.
const MOST_COMPARED: usize = 10_000;

/// The family whose names a file shares most, or of which most is read before something differs, and the first tensor in
/// which it differs.
fn resemblance(tensors: &Tensors) -> String {
    let mut best: Option<(usize, String)> = None;
    if tensors.names().count() > MOST_COMPARED {
        return String::new();
    }
    for row in ARCHITECTURES {
        let known = match (row.drafts)().first() {
            Some(net) => blueprint(net).unwrap_or_default().into_iter().map(|tensor| tensor.name).collect(),
            None => BTreeSet::new(),
        };
        for mut called in tensors.all_names(row.dialects) {
            let shared = called.names().filter(|name| known.contains(*name)).count();
            let Err(e) = (row.build)(&mut called).and_then(|_| called.finish()) else { continue };
            let alike = shared.max(called.count_read());
            if best.as_ref().is_none_or(|(most, _)| alike > *most) {
                best = Some((alike, format!("; most like {}, but {e}", row.name)));
            }
        }
    }
    best.filter(|(alike, _)| *alike > 1 && 4 * alike >= tensors.names().count())
        .map_or_else(String::new, |(_, text)| text)
}

/// A net as read, with what was given and what was assumed.
struct ReadNet {
    built: BuiltNet,
    /// Settings of the preparation and class names that someone gave.
    told: Vec<Setting>,
    /// The part of the size that is assumed although the rest was given.
    assumed_size: Option<String>,
    read: Vec<String>,
    warnings: Vec<String>,
}

/// Families of which files have the tensors of another family: the name of a file may tell them.
const TWINS: [&str; 3] = [efficientnet_lite::TENSORFLOW, efficientnet_lite::TIMM, timm_mobile::TENSORFLOW];

/// Parts of names of published nets that differ from nets with the same tensors, and how.
const UNREAD: [(&str, &str); 6] = [
    ("blur", LOW_PASS),
    ("netaa", LOW_PASS),
    ("nextaa", LOW_PASS),
    ("_aa_", LOW_PASS),
    ("cafferesnet", "the stride in the first convolution of a block and no padding in the pool"),
    ("resnest50_fast", "average pools before the convolutions of blocks"),
];

const LOW_PASS: &str = "low-pass filters before its strides";

/// What is assumed of most nets.
const USUALLY_ASSUMED: &str = "no dilation, no anti-aliasing, means over all positions before the head";

/// A name as timm would write it.
fn as_published(name: &str) -> String {
    config::published_name(&name.replace('-', "_"))
}

/// The family of `TWINS` that the name of the file tells: one whose net of that name is the one in the file. A name that
/// holds another published name besides tells nothing.
fn told_by_name(tensors: &Tensors, name: &str) -> Result<Option<&'static Architecture>> {
    // Whole parts, such as those of `timm_tf_efficientnet_b0_ns`.
    let name = format!("_{}_", as_published(name));
    let holds = |name: &str, published: &str| name.contains(&format!("_{published}_"));
    let rows = || ARCHITECTURES.iter().flat_map(|row| row.published.iter().map(move |net| (row, *net)));
    let named = rows().filter(|(row, (published, _))| TWINS.contains(&row.name) && holds(&name, published));
    let Some((row, (published, form))) = named.max_by_key(|(_, (published, _))| published.len()) else {
        return Ok(None);
    };
    let rest = name.replacen(&format!("_{published}_"), "__", 1);
    if rows().any(|(_, (other, _))| holds(&rest, other)) {
        return Ok(None);
    }
    for prefix in tensors.prefixes() {
        let mut trial = tensors.clone();
        if trial.rename(&prefix, row.dialects, row.recognise)? {
            trial.told = true;
            return Ok((row.build)(&mut trial).is_ok_and(|built| built.form == form).then_some(row));
        }
    }
    Ok(None)
}

/// Reads the net. Sources in order of precedence: the caller's `arch`, the metadata, the files in the folder `beside` the
/// weights, then names and shapes, and between families with the same tensors the `name` of the file ([`files::called`]).
fn read(tensors: &mut Tensors, name: &str, arch: Option<&str>, beside: Option<&Path>) -> Result<ReadNet> {
    let (mut statements, mut warnings) = (Vec::new(), Vec::new());
    // If an option names the net, a statement that cannot be used is not an error.
    let mut spare = |e: Error| match arch {
        None => Err(Error::model(format!("{e}; --arch NAME leaves it aside"))),
        Some(_) => {
            warnings.push(format!("{e}; it is ignored because --arch is given"));
            Ok(None)
        }
    };
    statements.extend(config::of_metadata(tensors.metadata()).or_else(&mut spare)?);
    for file in beside.map(config::beside).unwrap_or_default() {
        statements.extend(file.or_else(&mut spare)?);
    }
    statements.extend(config::of_published_weights(&statements));
    let mut said = None;
    if arch.is_none() {
        for statement in &statements {
            said = said.or(statement.named(ARCHITECTURES)?.map(|(architecture, _)| (architecture, statement.place)));
        }
    }
    let given = arch.map(named).transpose()?.or(said.map(|(architecture, _)| architecture));
    let by_name = if given.is_none() { told_by_name(tensors, name)? } else { None };
    tensors.told = given.or(by_name).is_some();
    let architecture = recognised(tensors, given.or(by_name))?;
    let built = (architecture.build)(tensors).and_then(|built| tensors.finish().map(|()| built));
    let mut built = built.map_err(|e| match said {
        Some((architecture, place)) => e.within(format!("read as {}, as {place} says", architecture.name)),
        None => e.within(format!("read as {}", architecture.name)),
    })?;
    warnings.append(&mut tensors.warnings);
    built.assumed.append(&mut tensors.assumed);
    let heard = hear(&statements, Some(architecture), arch, &mut built)?;
    warnings.extend(heard.warnings);
    if given.is_none()
        && let Some((_, what)) = UNREAD.iter().find(|(part, _)| as_published(name).contains(part))
    {
        warnings.push(format!(
            "'{name}' is what a net with {what} is called; no tensor tells that, and it is read without: ONNX is the way"
        ));
    }
    if given.is_some() {
        built.assumed.clear();
    } else if by_name.is_some() {
        built.assumed.insert(0, "the family that the file or its folder is named after");
    }
    // TensorFlow's own files of the Lites lack timm's prefix.
    let is_clear = by_name.is_some_and(|row| row.name != efficientnet_lite::TIMM);
    if given.is_none()
        && !is_clear
        && let Some((twin, difference)) = architecture.twin
    {
        let (name, form) = (architecture.name, &built.architecture);
        warnings.push(format!(
            "taken for {form}, but the files of {twin} have the same names and shapes and differ in {difference}: \
             --arch {name} or --arch {twin} settles it"
        ));
    }
    Ok(ReadNet { built, told: heard.told, assumed_size: heard.assumed_size, read: heard.read, warnings })
}

/// What statements changed of a net.
struct Heard {
    told: Vec<Setting>,
    assumed_size: Option<String>,
    read: Vec<String>,
    warnings: Vec<String>,
}

/// Puts what `statements` say in the place of assumptions, the first that says something first. The net is one of the
/// family `row`, or has a graph of its own; `arch` is the caller's word for it.
fn hear(
    statements: &[Statement],
    row: Option<&Architecture>,
    arch: Option<&str>,
    built: &mut BuiltNet,
) -> Result<Heard> {
    let (mut told, mut sizes, mut used) = (Vec::new(), Sizes::default(), Vec::new());
    let (mut read, mut warnings) = (Vec::new(), Vec::new());
    for statement in statements {
        let other = row.and_then(|row| statement.other_net(ARCHITECTURES, row, built));
        if let Some(other) = other.filter(|_| arch.is_some()) {
            warnings.push(format!("{} says '{other}'; it is ignored because --arch is given", statement.place));
            continue;
        }
        match statement.check(ARCHITECTURES, row, built) {
            Ok(()) => {
                statement.apply(built, &mut told, &mut sizes);
                read.extend(statement.read(&used));
                used.push(statement);
                warnings.extend(statement.warnings.iter().cloned());
            }
            Err(e) if statement.is_list() => warnings.push(format!("{e}; it is ignored")),
            Err(e) => match (arch, row) {
                (Some(_), _) => warnings.push(format!("{e}; it is ignored because --arch is given")),
                (None, Some(row)) => {
                    return Err(Error::model(format!("{e}; mend it, or give --arch {}", row.name)));
                }
                (None, None) => return Err(e),
            },
        }
    }
    config::transform_input(&used, built, &told);
    let assumed_size = sizes.apply(built, &mut told)?;
    Ok(Heard { told, assumed_size, read, warnings })
}

/// An input's shape, and how arrays of it lie in files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InputForm {
    /// Channels, rows and columns.
    pub shape: Shape,
    /// Whether arrays may be `[h, w, c]`, as in the net's own file, besides `[c, h, w]`.
    pub channels_last: bool,
}

impl InputForm {
    /// The same shape for arrays `[c, h, w]`.
    #[must_use]
    pub fn channels_first(self) -> Self {
        Self { channels_last: false, ..self }
    }
}

/// How a file is read, where it leaves a choice.
#[derive(Debug, Clone, Copy, Default)]
pub struct Reading<'r> {
    /// The architecture, a name of [`ARCHITECTURES`]; for files of tensors only.
    pub arch: Option<&'r str>,
    /// The output, or any tensor, whose numbers are the logits; for graphs only.
    pub output: Option<&'r str>,
    /// How logits become probabilities.
    pub head: Option<Link>,
}

/// A net with its weights, preparation and labels.
pub struct Model {
    name: String,
    architecture: String,
    channels_last: bool,
    /// The files that hold its numbers, shards in the order of their names.
    files: Vec<Bytes>,
    unfolded: Graph,
    folded: Arc<Graph>,
    /// The graph that it was read from.
    #[cfg(feature = "onnx")]
    source: Option<onnx::Source>,
    resized: Mutex<HashMap<Shape, Arc<Graph>>>,
    preprocess: Preprocess,
    labels: Labels,
    assumed: Vec<&'static str>,
    /// Name of the preparation; empty if there is none.
    preparation: &'static str,
    told: Vec<Setting>,
    assumed_size: Option<String>,
    read: Vec<String>,
    warnings: Vec<String>,
    encodings: BTreeMap<&'static str, usize>,
    sha256: OnceLock<String>,
}

impl std::fmt::Debug for Model {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Model({}: {})", self.name, self.architecture)
    }
}

/// Name of the embedded model.
pub const EMBEDDED: &str = "efficientnet-lite0";

/// Aligned so that devices can read the numbers in place.
#[cfg(feature = "embedded-model")]
#[repr(C, align(64))]
struct Aligned<T: ?Sized>(T);

#[cfg(feature = "embedded-model")]
impl AsRef<[u8]> for Aligned<[u8]> {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(feature = "embedded-model")]
static EMBEDDED_WEIGHTS: &Aligned<[u8]> = &Aligned(*include_bytes!("../../weights/efficientnet-lite0.safetensors"));

/// Whether `bytes` are the embedded net's, about which everything is known.
#[cfg(feature = "embedded-model")]
fn is_embedded(bytes: &Bytes) -> bool {
    (**bytes).as_ref() == EMBEDDED_WEIGHTS.as_ref()
}

/// Whether `bytes` are the embedded net's, which this build does not contain.
#[cfg(not(feature = "embedded-model"))]
fn is_embedded(_: &Bytes) -> bool {
    false
}

/// The bytes of a file, without reading them.
fn mapped(path: &Path) -> Result<Bytes> {
    let file = open_file(path)?;
    if file.metadata().map_err(|e| Error::io(path, e))?.len() == 0 {
        return Ok(Arc::new(Vec::new()));
    }
    // SAFETY: the mapping is shared and read-only; its bytes are only ever read as plain numbers, for which any bit
    // pattern is valid. Later writes to the file show through as changed weights; if the file is truncated, reading a
    // page that no longer exists ends the process with SIGBUS. It is the user's part of the contract not to change the
    // file in place while it is in use.
    let map = unsafe { memmap2::Mmap::map(&file) }.map_err(|e| Error::io(path, e))?;
    Ok(Arc::new(map))
}

/// The tensors of the shards that the list `index` at `path` names, and their bytes in the order of their names.
fn shards(index: &[u8], path: &Path) -> Result<(Tensors, Vec<Bytes>)> {
    let mut net: Option<Tensors> = None;
    let mut files = Vec::new();
    for (file, listed) in files::shards(index)? {
        let shard = path.with_file_name(&file);
        if !shard.exists() {
            return Err(Error::model(format!("the shard {file} is missing in this folder")));
        }
        let mut read = || {
            let bytes = mapped(&shard)?;
            let tensors = match files::kind_of((*bytes).as_ref(), &shard) {
                Kind::Safetensors => Tensors::parse(bytes.clone())?,
                kind => return Err(kind.refusal()),
            };
            if let Some(absent) = listed.iter().find(|name| !tensors.has(name)) {
                return Err(Error::model(format!("the list says that it holds tensor '{absent}', but it does not")));
            }
            files.push(bytes);
            match &mut net {
                Some(net) => net.join(tensors)?,
                None => net = Some(tensors),
            }
            Ok(())
        };
        read().map_err(|e| e.within(format!("shard {file}")))?;
    }
    Ok((net.ok_or_else(|| Error::model("the list names no shards"))?, files))
}

impl Model {
    /// Maps a net into memory; its files must not be changed in place while the model lives. `path` is a safetensors
    /// file, the list of its shards (`model.safetensors.index.json`), or a folder that holds one of these: a
    /// `model.safetensors`, a list, or only one net. The architecture is `arch` (a name of [`ARCHITECTURES`]) if given;
    /// else what the metadata say; else what a `config.json` beside the weights says; else it is recognised by names and
    /// shapes. Metadata, `preprocessor_config.json`, `config.json` and `labels.txt` also say how pictures are prepared
    /// and what the classes are called, in this order. Between families with the same tensors the name of the file decides, or
    /// that of its folder if the file is called `model.safetensors` or the like. The rest is assumed;
    /// [`assumed`](Self::assumed) and [`warnings`](Self::warnings) say so.
    ///
    /// # Errors
    /// When a file cannot be read, is of another kind (the message says what it is and how to convert it), is damaged,
    /// has missing, surplus or mis-shaped tensors or a number that is not finite; when a folder holds no net or several,
    /// a shard is missing or alone, or two hold the same tensor; when metadata or files beside the weights contradict
    /// the tensors or name an unsupported net, and no `arch` is given. The message names the file, the tensor and what
    /// was expected.
    pub fn open(path: &Path, arch: Option<&str>) -> Result<Self> {
        Self::open_as(path, &Reading { arch, ..Reading::default() })
    }

    /// As [`Model::open`], with more choices; an ONNX graph says everything about the net but how pictures are prepared.
    ///
    /// # Errors
    /// As [`Model::open`]; of a graph, when it uses what is not supported. The message names the node and its operation.
    pub fn open_as(path: &Path, reading: &Reading) -> Result<Self> {
        let files::Found { name, path } = files::find(path)?;
        Self::of_file(name, &path, reading).map_err(|e| e.within(path.display()))
    }

    fn of_file(name: String, path: &Path, reading: &Reading) -> Result<Self> {
        let beside = path.parent();
        let bytes = mapped(path)?;
        let kind = files::kind_of((*bytes).as_ref(), path);
        if let Some(output) = reading.output.filter(|_| kind != Kind::Onnx) {
            return Err(Error::settings(format!("the output '{output}' can be chosen in an ONNX graph only")));
        }
        match kind {
            Kind::Safetensors => {
                files::expect_whole(path)?;
                Self::read(name, Tensors::parse(bytes.clone())?, vec![bytes], reading, beside)
            }
            Kind::Index => {
                let (tensors, files) = shards((*bytes).as_ref(), path)?;
                Self::read(name, tensors, files, reading, beside)
            }
            #[cfg(feature = "onnx")]
            Kind::Onnx => Self::read_graph(name, bytes, beside, reading),
            kind => Err(kind.refusal()),
        }
    }

    /// The embedded EfficientNet-Lite0 (ImageNet-1k).
    ///
    /// # Errors
    /// Never in a correct build.
    #[cfg(feature = "embedded-model")]
    pub fn embedded() -> Result<Self> {
        Self::from_bytes(EMBEDDED, Arc::new(EMBEDDED_WEIGHTS), None)
    }

    /// Reads a safetensors file in memory; as [`Model::open`] without files beside it. Messages call it `name`.
    ///
    /// # Errors
    /// As [`Model::open`].
    pub fn from_bytes(name: impl Into<String>, bytes: Bytes, arch: Option<&str>) -> Result<Self> {
        let name = name.into();
        let tensors = match files::kind_of((*bytes).as_ref(), Path::new(&name)) {
            Kind::Safetensors => Tensors::parse(bytes.clone()),
            kind => Err(kind.refusal()),
        };
        let reading = Reading { arch, ..Reading::default() };
        let net = tensors.and_then(|tensors| Self::read(name.clone(), tensors, vec![bytes], &reading, None));
        net.map_err(|e| e.within(name))
    }

    fn read(
        name: String,
        mut tensors: Tensors,
        files: Vec<Bytes>,
        reading: &Reading,
        beside: Option<&Path>,
    ) -> Result<Self> {
        let known = reading.arch.is_none() && matches!(files.as_slice(), [bytes] if is_embedded(bytes));
        let arch = if known { Some(efficientnet_lite::TENSORFLOW) } else { reading.arch };
        let called = beside.map_or_else(|| name.clone(), |folder| files::called(&name, folder));
        let ReadNet { mut built, told, assumed_size, read, warnings } =
            read(&mut tensors, &called, arch, beside.filter(|_| !known))?;
        if let Some(head) = reading.head {
            built.graph = built.graph.linked(head);
        }
        if built.graph.classes() == 1 {
            built.graph = built.graph.two_classes()?;
            built.labels = Labels::yes_or_not(built.labels.get(0).filter(|_| told.contains(&Setting::Labels)));
        }
        let Preparation { preprocess, name: preparation } = built.preparation;
        if preprocess.takes_pictures() {
            preprocess.check()?;
        }
        Ok(Self {
            name,
            architecture: built.architecture,
            files,
            folded: Arc::new(built.graph.fold()?),
            unfolded: built.graph,
            channels_last: false,
            #[cfg(feature = "onnx")]
            source: None,
            resized: Mutex::new(HashMap::new()),
            preprocess,
            labels: built.labels,
            assumed: built.assumed,
            preparation,
            told: if known { ALL_SETTINGS.to_vec() } else { told },
            assumed_size,
            read,
            warnings,
            encodings: tensors.encodings(),
            sha256: OnceLock::new(),
        })
    }

    /// Properties of the net, its preparation and its class names that are assumed because neither the file, nor its
    /// companions, nor the caller give them, such as `relu` or `preparation: ImageNet`. `given` are the settings that
    /// the caller replaces.
    pub fn assumed(&self, given: &[Setting]) -> Vec<String> {
        let open = |setting: &Setting| !self.told.contains(setting) && !given.contains(setting);
        let mut assumed: Vec<String> = self.assumed.iter().map(|&what| what.to_string()).collect();
        #[cfg(feature = "onnx")]
        assumed.retain(|what| what != onnx::OPEN_SIZE || !given.contains(&Setting::Size));
        let parts = Setting::OF_PREPARATION.iter().filter(|(setting, _)| open(setting));
        let parts: Vec<&str> = parts.map(|&(_, name)| name).collect();
        match (self.preparation, parts.len()) {
            ("", _) | (_, 0) => {}
            (name, n) if n == Setting::OF_PREPARATION.len() => assumed.push(format!("preparation: {name}")),
            (name, _) => assumed.push(format!("preparation: {name} ({})", parts.join(", "))),
        }
        assumed.extend(self.assumed_size.clone().filter(|_| !given.contains(&Setting::Size)));
        let names = self.labels.set().filter(|_| open(&Setting::Labels));
        assumed.extend(names.map(|set| format!("class names: {set}")));
        assumed
    }

    /// Probable mistakes, one sentence each: a file that two published families share, or a `config.json` that was
    /// ignored.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// What was read besides the tensors, one line per source, such as `config.json: architecture resnet50, mean, std`.
    pub fn read_beside(&self) -> &[String] {
        &self.read
    }

    /// Name of the file without its extension, or of the embedded model.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The architecture with its depths, such as `resnet-bottleneck [3,4,6,3]`.
    pub fn architecture(&self) -> &str {
        &self.architecture
    }

    /// SHA-256 of the weights file, hexadecimal; computed when first asked for. Of a net in shards, it is that of their
    /// bytes one after the other, in the order of their names, without the list; of a graph, that of its file and of the files
    /// with its numbers.
    pub fn sha256(&self) -> &str {
        self.sha256.get_or_init(|| {
            let mut digest = Sha256::new();
            self.files.iter().for_each(|file| digest.update((**file).as_ref()));
            hex(&digest.finalize())
        })
    }

    /// Bytes of the weights file, or of all shards.
    pub fn file_bytes(&self) -> usize {
        self.files.iter().map(|file| (**file).as_ref().len()).sum()
    }

    /// How many numbers the file stores in each encoding.
    pub fn encodings(&self) -> &BTreeMap<&'static str, usize> {
        &self.encodings
    }

    /// The net as stored, for the default input; batch norms are not folded.
    pub fn unfolded(&self) -> &Graph {
        &self.unfolded
    }

    /// The input shape for which the net was made.
    pub fn default_input(&self) -> Shape {
        self.unfolded.input_shape()
    }

    /// The inputs for which the net was made, and how arrays of them lie.
    pub fn input_form(&self) -> InputForm {
        InputForm { shape: self.default_input(), channels_last: self.channels_last }
    }

    /// How the net's logits become probabilities.
    pub fn link(&self) -> Link {
        self.unfolded.link()
    }

    /// Number of classes; two for a net with one output ([`Graph::two_classes`]).
    pub fn classes(&self) -> usize {
        self.unfolded.classes()
    }

    /// The net with its batch norms folded, for inputs of shape `input`. Graphs of all sizes share their weights and
    /// weight ids.
    ///
    /// # Errors
    /// When the net does not take inputs of that shape; the message names the node that refuses.
    pub fn graph(&self, input: Shape) -> Result<Arc<Graph>> {
        if input == self.default_input() {
            return Ok(self.folded.clone());
        }
        let mut kept = self.resized.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(graph) = kept.get(&input) {
            return Ok(graph.clone());
        }
        let graph = Arc::new(self.fitted(&self.folded, input)?);
        if kept.len() >= MAX_KEPT_GRAPHS {
            kept.clear();
        }
        kept.insert(input, graph.clone());
        Ok(graph)
    }

    fn fitted(&self, graph: &Graph, input: Shape) -> Result<Graph> {
        if input.is_empty() || input.h > MAX_SIDE || input.w > MAX_SIDE {
            return Err(Error::input(format!("{}: an input of {input} has no use", self.name)));
        }
        self.other_size(graph, input).map_err(|e| {
            Error::input(format!(
                "{} does not take an input of {input} (made for {}): {e}",
                self.name,
                self.default_input()
            ))
        })
    }

    /// How pictures are prepared.
    pub fn preprocess(&self) -> &Preprocess {
        &self.preprocess
    }

    /// Names of the classes.
    pub fn labels(&self) -> &Labels {
        &self.labels
    }

    /// Reads class names from a text file, one per line; for a net with one output a single line is enough: the name of
    /// class 1.
    ///
    /// # Errors
    /// As [`Labels::from_file`].
    pub fn read_labels(&self, path: &Path) -> Result<Labels> {
        Labels::read(path, self.classes(), self.unfolded.is_paired())
    }

    /// Replaces the names of the classes.
    ///
    /// # Errors
    /// When the number of names differs from the number of classes.
    pub fn set_labels(&mut self, labels: Labels) -> Result<()> {
        if labels.len() != self.classes() {
            return Err(Error::settings(format!("{} names for a net of {} classes", labels.len(), self.classes())));
        }
        self.labels = labels;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(feature = "embedded-model")]
    #[test]
    fn embedded_file_is_aligned() {
        assert_eq!(EMBEDDED_WEIGHTS.as_ref().as_ptr().addr() % 64, 0);
    }

    #[test]
    fn single_precision_weights_are_read_in_place() {
        let model = Model::random("resnet20", 1).unwrap();
        let crate::graph::Op::Conv(conv) = &model.unfolded().nodes()[1].op else { panic!("the first layer") };
        let in_place = conv.weight.in_place::<f32>().unwrap();
        assert!(in_place.iter().zip(conv.weight.to_f64()).all(|(a, b)| f64::from(*a) == b));
    }
}
