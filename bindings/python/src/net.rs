//! [`Net`]: a net, and engines for as many threads as use it.

use std::borrow::Cow;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use numpy::{PyArrayDyn, PyReadonlyArray3, PyReadonlyArrayDyn, PyUntypedArrayMethods};
use pyo3::prelude::*;
use verilume::cli::{self, Opened, check_items, named_methods};
use verilume::data::{Event, Item, NetInput, Room, Source, TargetChoice, Targets, finite, fit, load};
use verilume::engine::{Engine, Settings};
use verilume::image::{Picture, Preprocess};
use verilume::model::{Labels, Model, Setting};
use verilume::program::Score;
use verilume::report::Record;
use verilume::report::html::Page;
use verilume::run::{
    Earlier, EvalOptions, Evaluation, Explained, Listener, Said, UnitKind, choose, drive, explain_items, together,
};
use verilume::session::{Noticed, Options, Session};
use verilume::tensor::{Data, Precision, Tensor};
use verilume::{Error, ErrorKind, Result};

use crate::errors::{self, raised};
use crate::work::{self, Told};

/// Rows of an array that go through the net together.
const ROWS: usize = 16;

/// A picture to explain: the path of its file, or its name and its pixels `[h, w, 3]`, or its name and why it is none.
type Given<'py> = (PathBuf, Option<PyReadonlyArray3<'py, u8>>, Option<String>);

/// The pixels of a picture in memory; `None` if it is to be read from its file.
type Pixels = Result<Option<Picture>, String>;

/// The result for one picture: its record; the kind of its error; else its map, the picture below it, and what the map's
/// sign means.
type Row<'py> = (
    String,
    Option<&'static str>,
    Option<Bound<'py, PyArrayDyn<f32>>>,
    Option<Bound<'py, PyArrayDyn<u8>>>,
    Option<&'static str>,
);

/// Engines that nobody uses.
#[derive(Default)]
struct Idle {
    /// The process that made them: a child of a fork has none of their threads.
    process: u32,
    engines: Vec<Engine>,
}

/// A net, its settings, and engines for as many threads as use it at a time.
#[pyclass(frozen, module = "verilume._native")]
pub struct Net {
    model: Arc<Model>,
    settings: Settings,
    preparation: Preprocess,
    labels: Labels,
    score: Score,
    given: Vec<Setting>,
    idle: Mutex<Idle>,
}

impl Net {
    fn room(&self) -> Room {
        Room { allowed: self.settings.memory }
    }

    fn net(&self) -> NetInput<'_> {
        NetInput { preprocess: &self.preparation, input: self.model.input_form().channels_first(), room: self.room() }
    }

    /// An engine that nobody else uses, as this process made it.
    fn idle_engine(&self) -> Option<Engine> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let process = std::process::id();
        if idle.process != process {
            // Ending them would wait for threads that are not in this process.
            std::mem::forget(std::mem::take(&mut idle.engines));
            idle.process = process;
        }
        idle.engines.pop()
    }

    /// Lends a session with an engine of its own to `work`, which runs without the interpreter's lock.
    fn with<T: Send>(
        &self,
        py: Python<'_>,
        (seed, progress): (u64, Option<Py<PyAny>>),
        work: impl FnOnce(&mut Session, &Told) -> Result<T> + Send,
    ) -> PyResult<T> {
        let engine = self.idle_engine();
        let (made, engine) = work::run(py, progress, |told| {
            let engine = engine.map_or_else(|| Engine::new(&self.settings), Ok)?;
            let options = Options {
                engine: self.settings.clone(),
                preparation: Some(self.preparation.clone()),
                labels: Some(self.labels.clone()),
                score: self.score,
                seed,
            };
            let session = Session::with_engine(Arc::clone(&self.model), engine, &options)?;
            let room = self.room();
            let mut session = session.reading_with(Arc::new(move |path, preprocess| load(path, preprocess, room)));
            session.cancel_with(&told.cancel());
            told.observer().into_iter().for_each(|observer| session.engine().observe(observer));
            let made = work(&mut session, told);
            Ok((made, session.into_engine()))
        })?;
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).engines.push(engine);
        made.map_err(|e| raised(py, &e))
    }
}

/// Decodes and prepares the picture that `source` names, or prepares `pixels`.
fn item(at: usize, source: &Source, pixels: &Pixels, net: NetInput<'_>) -> Result<Item> {
    match pixels {
        Ok(Some(picture)) => return Item::decoded(at, source, picture, net),
        Ok(None) => {}
        Err(why) => return Err(Error::input(format!("{}: {why}", source.shown))),
    }
    if source.is_array() {
        return Err(Error::input(format!(
            "{}: this is a file of numbers, not of a picture; read it with NumPy and give the array to attribute",
            source.shown
        )));
    }
    Item::picture(at, source, net)
}

/// The pictures' names, and their pixels where they are in memory.
fn sources(given: &[Given<'_>]) -> (Arc<[Source]>, Vec<Pixels>) {
    let named = given.iter().map(|(path, ..)| Source::named(path.clone())).collect();
    let pixels = |(_, pixels, why): &Given<'_>| match (pixels, why) {
        (_, Some(why)) => Err(why.clone()),
        (pixels, None) => pixels.as_ref().map(crate::picture).transpose().map_err(|e| e.to_string()),
    };
    (named, given.iter().map(pixels).collect())
}

/// One explained picture, as plain data.
struct Made {
    record: Record,
    kind: Option<ErrorKind>,
    map: Option<(Tensor, &'static str)>,
    view: Option<Picture>,
}

impl Made {
    fn of(explained: Explained, preparation: &Preprocess) -> Result<Self> {
        let Explained { item, record, made } = explained;
        let view = item.view(preparation).ok();
        Ok(match made {
            Ok(map) => {
                let sign = match map.sign {
                    verilume::map::Sign::Signed => "signed",
                    verilume::map::Sign::Unsigned => "unsigned",
                    verilume::map::Sign::Relative => "relative",
                };
                Self { record, kind: None, map: Some((item.raw(&map)?, sign)), view }
            }
            Err(e) => Self { record, kind: Some(e.kind()), map: None, view },
        })
    }

    fn row(self, py: Python<'_>) -> PyResult<Row<'_>> {
        let record = json(&self.record).map_err(|e| raised(py, &e))?;
        let view = self.view.map(|view| crate::pixels(py, &view)).transpose()?;
        let sign = self.map.as_ref().map(|(_, sign)| *sign);
        let map = self.map.map(|(map, _)| crate::array(py, map.dims(), &map.to_f32())).transpose()?;
        Ok((record, self.kind.map(errors::name), map, view, sign))
    }
}

fn json(of: &impl serde::Serialize) -> Result<String> {
    serde_json::to_string(of).map_err(|e| Error::settings(format!("a record is not JSON: {e}")))
}

/// The classes that texts as of `--target` mean.
fn classes(texts: &[String], labels: &Labels, classes: usize, room: Room) -> Result<Vec<Targets>> {
    let one = |text: &String| match TargetChoice::parse(text)? {
        TargetChoice::File(_) => Err(Error::settings(format!("--target {text}: give the classes as a list"))),
        TargetChoice::Top(k) if k > 1 => {
            Err(Error::settings(format!("--target {text}: a map is of one class; call explain once for each")))
        }
        choice => choice.resolve(labels, classes, room),
    };
    texts.iter().map(one).collect()
}

/// Whether the error of one picture ends the whole call.
fn ends(kind: ErrorKind, strict: bool) -> bool {
    strict || !errors::is_of_input(kind)
}

/// Explains the pictures that `sources` name, group by group.
fn explain_all(
    session: &mut Session,
    (method, targets, strict): (&[String], &[String], bool),
    (sources, pixels): (&[Source], &[Pixels]),
    net: NetInput<'_>,
    (given, told): (&[Setting], &Told),
) -> Result<Vec<Made>> {
    let named = named_methods(session.model(), method)?.remove(0);
    let built = session.build(&named.spec)?;
    let targets = classes(targets, session.labels(), session.model().classes(), net.room)?;
    let mut said = Said::new(session, given);
    told.begin(sources.len());
    let mut all: Vec<Made> = Vec::with_capacity(sources.len());
    let group = together(net.preprocess);
    for first in (0..sources.len()).step_by(group) {
        told.cancel().check()?;
        let range = first..sources.len().min(first + group);
        let (mut items, mut failed) = (Vec::new(), Vec::new());
        for at in range.clone() {
            match item(at, &sources[at], &pixels[at], net) {
                Ok(item) => {
                    said.hear(&item, told);
                    items.push(item);
                }
                Err(e) => {
                    let mut record = Record::failed(&sources[at].shown, None, e.to_string());
                    said.write(&mut record.assumed, &mut record.warnings);
                    failed.push((at, Made { record, kind: Some(e.kind()), map: None, view: None }));
                }
            }
        }
        let explained = explain_items(session, (&named.id, built.as_ref()), items, (sources, &targets), &said);
        let made =
            explained.into_iter().map(|explained| Ok((explained.item.source, Made::of(explained, net.preprocess)?)));
        let mut made: Vec<(usize, Made)> = made.collect::<Result<_>>()?;
        made.extend(failed);
        made.sort_by_key(|(at, _)| *at);
        for (_, made) in made {
            if let Some(kind) = made.kind.filter(|&kind| ends(kind, strict)) {
                return Err(Error::new(kind, made.record.error.unwrap_or_default()));
            }
            told.step("");
            all.push(made);
        }
    }
    Ok(all)
}

/// The rows of an array `[N, …]` as inputs of the net.
fn rows(x: &Data, shape: &[usize], model: &Model) -> Result<Vec<Item>> {
    let Some((&n, dims)) = shape.split_first() else {
        return Err(Error::input("a number is not an array of inputs [N, C, H, W]"));
    };
    let length: usize = dims.iter().product();
    let row = |at: usize| {
        let span = at * length..(at + 1) * length;
        let values = match x {
            Data::F32(values) => Data::F32(values[span].to_vec()),
            Data::F64(values) => Data::F64(values[span].to_vec()),
        };
        let tensor = Tensor::new(dims, values)?;
        finite(&tensor)?;
        let form = fit(dims, model.input_form())?;
        let tensor = if form.channels_last { tensor.turned([2, 0, 1])? } else { tensor };
        Ok(Item {
            source: at,
            row: Some(at),
            stem: PathBuf::new(),
            dims: tensor.dims().to_vec(),
            channels_last: form.channels_last,
            input: tensor.reshape(form.shape.dims())?,
            view: None,
            placement: None,
            label: None,
            noticed: Noticed::default(),
        })
    };
    (0..n).map(|at| row(at).map_err(|e: Error| e.within(format!("input {at}")))).collect()
}

/// Numbers of an array of either precision, which is in C order.
#[derive(FromPyObject)]
pub enum Numbers<'py> {
    /// Single precision.
    F32(PyReadonlyArrayDyn<'py, f32>),
    /// Double precision.
    F64(PyReadonlyArrayDyn<'py, f64>),
}

impl Numbers<'_> {
    fn read(&self) -> PyResult<(Data, Vec<usize>)> {
        Ok(match self {
            Numbers::F32(x) => (Data::F32(x.as_slice()?.to_vec()), x.shape().to_vec()),
            Numbers::F64(x) => (Data::F64(x.as_slice()?.to_vec()), x.shape().to_vec()),
        })
    }
}

#[pymethods]
impl Net {
    /// Opens a net by options of the command line.
    #[new]
    fn new(py: Python<'_>, options: Vec<OsString>) -> PyResult<Self> {
        let Opened { session, settings, given } = work::run(py, None, |_| cli::open(&options))?;
        let (model, preparation) = (Arc::clone(session.model()), session.preparation().clone());
        let (labels, score) = (session.labels().clone(), session.explained());
        let idle = Mutex::new(Idle { process: std::process::id(), engines: vec![session.into_engine()] });
        Ok(Self { model, settings, preparation, labels, score, given, idle })
    }

    /// Name, architecture, number of classes, names of the classes, and the input's shape.
    fn about(&self) -> (&str, &str, &str, Vec<&str>, Vec<usize>) {
        let (model, shape) = (&self.model, self.model.default_input());
        (model.name(), model.architecture(), model.sha256(), self.labels.iter().collect(), shape.dims().to_vec())
    }

    /// What was assumed of the net, and what looks like a mistake.
    fn said(&self) -> (Vec<String>, Vec<String>) {
        let said = Said::of(&self.model, &self.preparation, &self.given);
        (said.assumed, said.warnings)
    }

    /// The device, and why it is not the GPU that seems to be there.
    fn device(&self, py: Python<'_>) -> PyResult<(String, Option<String>)> {
        self.with(py, (0, None), |session, _| {
            let engine = session.engine();
            Ok((engine.describe().device, engine.fallback().map(str::to_owned)))
        })
    }

    /// Number of engines that nobody uses.
    fn idle(&self) -> usize {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).engines.len()
    }

    /// One result a picture. `targets` has one text for each, as `--target` takes it.
    fn explain<'py>(
        &self,
        py: Python<'py>,
        given: Vec<Given<'py>>,
        method: Vec<String>,
        targets: Vec<String>,
        how: (u64, bool),
        progress: Option<Py<PyAny>>,
    ) -> PyResult<Vec<Row<'py>>> {
        let (seed, strict) = how;
        let (sources, pixels) = sources(&given);
        drop(given);
        let made = self.with(py, (seed, progress), |session, told| {
            let what = (&method[..], &targets[..], strict);
            explain_all(session, what, (&sources, &pixels), self.net(), (&self.given, told))
        })?;
        made.into_iter().map(|made| made.row(py)).collect()
    }

    /// Maps of normalised inputs `[N, …]`, each of its own class, or of the most likely one: `[N, C, H, W]`, with one
    /// channel for maps that have one number a position. In double precision if the net is computed in it.
    fn attribute<'py>(
        &self,
        py: Python<'py>,
        x: Numbers<'py>,
        classes: Option<Vec<usize>>,
        method: String,
        seed: u64,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (x, shape) = x.read()?;
        let (dims, values) = self.with(py, (seed, progress), |session, told| {
            let items = rows(&x, &shape, session.model())?;
            let built = session.method(&method)?;
            told.begin(items.len());
            let (mut dims, mut values) = (Vec::new(), Vec::new());
            for (first, group) in items.chunks(ROWS).enumerate() {
                let within = |at: usize| format!("input {}", first * ROWS + at);
                let inputs: Vec<&Tensor> = group.iter().map(|item| &item.input).collect();
                let targets = match &classes {
                    Some(classes) => classes[first * ROWS..][..group.len()].to_vec(),
                    None => {
                        let scored = session.score(&inputs).into_iter().enumerate();
                        let tops = scored.map(|(at, scored)| Ok(scored.map_err(|e| e.within(within(at)))?.top()));
                        tops.collect::<Result<_>>()?
                    }
                };
                let maps = session.explain(built.as_ref(), &inputs, &targets);
                for (at, (item, map)) in group.iter().zip(maps).enumerate() {
                    let raw = item.raw(&map.map_err(|e| e.within(within(at)))?)?;
                    dims = raw.dims().to_vec();
                    values.extend_from_slice(&raw.to_f64());
                    told.step("");
                }
            }
            if let [h, w] = dims[..] {
                dims = vec![1, h, w];
            }
            dims.insert(0, items.len());
            Ok((dims, values))
        })?;
        match self.settings.precision {
            Precision::F64 => Ok(crate::array(py, &dims, &values)?.into_any()),
            Precision::F32 => {
                let values: Vec<f32> = values.into_iter().map(|v| v as f32).collect();
                Ok(crate::array(py, &dims, &values)?.into_any())
            }
        }
    }

    /// Logits of normalised inputs `[N, …]`: `[N, classes]`.
    fn logits<'py>(&self, py: Python<'py>, x: Numbers<'py>) -> PyResult<Bound<'py, PyArrayDyn<f64>>> {
        let (x, shape) = x.read()?;
        let (n, logits) = self.with(py, (0, None), |session, _| {
            let items = rows(&x, &shape, session.model())?;
            let mut logits = Vec::new();
            for (at, scored) in
                session.score(&items.iter().map(|item| &item.input).collect::<Vec<_>>()).into_iter().enumerate()
            {
                logits.extend(scored.map_err(|e| e.within(format!("input {at}")))?.logits);
            }
            Ok((items.len(), logits))
        })?;
        crate::array(py, &[n, self.model.classes()], &logits)
    }

    /// The report of tests of trust, as JSON and as a page that names `command`.
    fn check(
        &self,
        py: Python<'_>,
        given: Vec<Given<'_>>,
        asked: (Vec<String>, Vec<String>),
        seed: u64,
        command: &str,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<(String, Cow<'static, [u8]>)> {
        let (methods, tests) = asked;
        let (sources, pixels) = sources(&given);
        drop(given);
        self.with(py, (seed, progress), |session, told| {
            let (net, named, count) = (self.net(), Arc::clone(&sources), sources.len());
            let stream = (0..count).flat_map(|at| {
                let item = item(at, &named[at], &pixels[at], net);
                [Event::Begin(at, None), Event::Input((at, None), item), Event::End(at)]
            });
            let how = (self.settings.clone(), &self.given[..], count);
            let (report, plates) = check_items(session, (&methods, &tests), how, (Arc::clone(&sources), stream), told)?;
            let mut page = Vec::new();
            Page { report: &report, plates: &plates, command }.write(&mut page)?;
            Ok((json(&report)?, page.into()))
        })
    }

    /// Measures methods on labelled data, with results in the folder `out`: the summary and a line a picture, as JSON.
    fn evaluate(
        &self,
        py: Python<'_>,
        data: Vec<OsString>,
        files: (Option<PathBuf>, PathBuf),
        asked: (Vec<String>, Vec<String>),
        how: (bool, u64),
        progress: Option<Py<PyAny>>,
    ) -> PyResult<(String, Vec<String>)> {
        let ((labels, out), (methods, metrics), (explain_label, seed)) = (files, asked, how);
        self.with(py, (seed, progress), |session, told| {
            let unlabelled = labels.is_none();
            let options = EvalOptions {
                data,
                unlabelled,
                labels_csv: labels,
                boxes: None,
                shuffle: false,
                limit: None,
                kind: UnitKind::Pictures,
                methods: named_methods(session.model(), &methods)?,
                metrics: choose(&metrics, UnitKind::Pictures, unlabelled)?,
                explain_label,
                out,
                earlier: Earlier::Forget,
                settings: self.settings.clone(),
                given: self.given.clone(),
            };
            let mut work = Evaluation::open(session, options, told)?;
            let ended = drive(work.stream(), &mut work, told);
            let (summary, lines) = work.close(ended, told)?;
            Ok((json(&summary)?, lines.iter().map(json).collect::<Result<_>>()?))
        })
    }
}
