//! Attacks many inputs: groups of inputs go through the net and the attacks; results go into files and the ledger.

mod record;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

pub use record::{AttackLine, AttackRecord, MapsCompared};

use super::ledger::{Show, Totals};
use super::recorded::{Recorded, RunRequest, Seen};
use super::settings::{Named, Numbered, common};
use super::{InputWork, Listener, hopeless};
use crate::cancel::Cancel;
use crate::data::files::{self, RawFormat};
use crate::data::{
    ArrayFile, Item, ItemPosition, ItemStream, Room, Row, Source, TargetChoice, damage, finite, named, paths,
};
use crate::engine::Settings;
use crate::error::{Error, Result};
use crate::image::Picture;
use crate::map::{Map, channel_mean_abs};
use crate::method::{self, Method};
use crate::model::Setting;
use crate::program::Score;
use crate::reliability::attack::{self, Adversarial, AttackSpec, Quantised, Wanted, linf_levels, quantise};
use crate::reliability::similarity::{spearman, top_k_intersection};
use crate::report::{MethodUsed, RECORD_VERSION};
use crate::score::{least, top};
use crate::session::{Noticed, Session};
use crate::tensor::Tensor;
use crate::text::hex;

/// A kind of output file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum AttackFormat {
    /// The exact numbers, f32, normalised (.npy).
    Npy,
    /// The picture, rounded to levels within epsilon (.png).
    Png,
    /// The exact numbers, f32, normalised, as tensor `input` (.safetensors).
    Safetensors,
}

impl AttackFormat {
    /// Its name in records.
    pub fn name(self) -> &'static str {
        match self {
            AttackFormat::Png => "png",
            AttackFormat::Npy => "npy",
            AttackFormat::Safetensors => "safetensors",
        }
    }

    fn raw(self) -> Option<RawFormat> {
        match self {
            AttackFormat::Png => None,
            AttackFormat::Npy => Some(RawFormat::Npy),
            AttackFormat::Safetensors => Some(RawFormat::SafetensorsInput),
        }
    }
}

/// Options of an attack run: inputs, attacks and output.
#[derive(Debug, Clone)]
pub struct AttackOptions {
    /// Pictures, folders, patterns, lists (`-`), arrays.
    pub inputs: Vec<OsString>,
    /// The attacks.
    pub attacks: Vec<String>,
    /// Methods whose maps before and after are compared; if empty, the attacked method, or the gradient.
    pub methods: Vec<Named>,
    /// The class to move away from, or the class whose map is attacked.
    pub target: String,
    /// Kinds of files to write; if empty, pictures, or arrays for nets that do not take pictures.
    pub formats: Vec<AttackFormat>,
    /// Folder for results.
    pub out: PathBuf,
    /// The settings with which the session's engine was opened.
    pub settings: Settings,
    /// Settings of the preparation that the user gave.
    pub given: Vec<Setting>,
    /// Other files that the run reads; no result may replace them.
    pub read: Vec<PathBuf>,
}

/// An attack that is ready to run, with the id that its files and records carry.
struct ReadyAttack {
    id: String,
    spec: AttackSpec,
    attack: attack::Attack,
    /// The class that it aims for, if that is the same for all inputs.
    wanted: Option<usize>,
    /// Whether it has run without an error.
    proven: bool,
}

/// A method whose maps are compared.
struct ComparedMethod {
    spec: String,
    method: Box<dyn Method>,
    /// Whether it has produced a map in this run.
    proven: bool,
}

/// The result for item `at`: its numbers and, if requested, the picture and the net's output on it.
struct AttackedItem {
    at: usize,
    found: Adversarial,
    quantised: Option<Result<(Picture, Tensor)>>,
}

/// Attacks many inputs.
pub struct AttackRun<'a> {
    run: Recorded<'a, AttackLine>,
    options: AttackOptions,
    attacks: Vec<ReadyAttack>,
    compared: Vec<ComparedMethod>,
}

impl<'a> AttackRun<'a> {
    /// Finds the inputs, locks the folder of results and examines its contents. `show` receives the inputs and the
    /// attacks and returns the function that displays records.
    ///
    /// # Errors
    /// When there are no inputs, an attack, method or target has no meaning, the folder is not writable, or another run
    /// is writing to it.
    pub fn open(
        session: &'a mut Session,
        mut options: AttackOptions,
        show: impl FnOnce(&[Source], &[&str]) -> Show<AttackLine>,
        listener: &dyn Listener,
    ) -> Result<Self> {
        let specs = options.attacks.iter().map(|text| AttackSpec::parse(text)).collect::<Result<Vec<_>>>()?;
        let target = TargetChoice::parse(&options.target)?;
        if matches!(target, TargetChoice::Top(k) if k > 1) {
            return Err(Error::settings(format!("--target {}: an attack is on one class of an input", options.target)));
        }
        let room = Room { allowed: options.settings.memory };
        let targets = target.resolve(session.labels(), session.model().classes(), room)?;
        let attacks = ready(specs, session, room)?;
        let compared = compared(&options.methods, &attacks, session)?;
        if options.formats.is_empty() {
            let pictures = session.preparation().takes_pictures();
            options.formats.push(if pictures { AttackFormat::Png } else { AttackFormat::Npy });
        }
        options.formats.sort_unstable();
        options.formats.dedup();
        let mut all = common(session, &options.settings)?;
        all["target"] = options.target.clone().into();
        let used = attacks.iter().map(|ready| MethodUsed {
            id: ready.id.clone(),
            name: ready.spec.entry.id.to_string(),
            spec: ready.spec.to_string(),
            parameters: parameters(&ready.spec),
            settings: hex(&Sha256::digest(format!("{all} {}", ready.spec).as_bytes())[..8]),
        });
        let ids: Vec<String> = attacks.iter().map(|attack| attack.id.clone()).collect();
        let asked = RunRequest {
            command: "attack",
            inputs: &options.inputs,
            out: &options.out,
            shard: None,
            settings: &options.settings,
            given: &options.given,
            read: &options.read,
            target: &options.target,
            score: Score::Logit.name(),
            formats: options.formats.iter().map(|format| format.name().to_owned()).collect(),
            methods: &options.methods,
            ids: ids.clone(),
            others: &[],
            warnings: attacks
                .iter()
                .filter_map(|ready| Some(format!("{}: {}", ready.id, ready.attack.beyond(session.preparation())?)))
                .collect(),
        };
        let names: Vec<&str> = ids.iter().map(String::as_str).collect();
        let show = |sources: &[Source]| show(sources, &names);
        let run = Recorded::open(session, (asked, used.collect()), (&target, targets), None, show, listener)?;
        Ok(Self { run, options, attacks, compared })
    }

    /// The inputs.
    pub fn stream(&self) -> ItemStream {
        self.run.stream(Box::new(|_, _| false))
    }

    /// Number of sources.
    pub fn inputs(&self) -> usize {
        self.run.sources.len()
    }

    /// Writes what is pending. If `ended`, the outcome of the run, is Ok, also writes the manifest, which says that all
    /// inputs were processed.
    ///
    /// # Errors
    /// The error in `ended`, and when files cannot be written.
    pub fn close(self, ended: Result<()>, listener: &dyn Listener) -> Result<Totals> {
        self.run.close(ended, listener)
    }

    fn line(&self, at: usize, record: AttackRecord, part: Option<String>) -> AttackLine {
        AttackLine { record, stamp: self.run.sources[at].stamp, place: self.run.ledger.place(at), part }
    }

    fn fail(&mut self, (at, row): ItemPosition, why: &Error, noticed: Noticed) -> Result<()> {
        let Noticed { assumed, warnings, .. } = noticed;
        let failed = AttackRecord::failed(&self.run.sources[at].shown, row, &why.to_string());
        let line = self.line(at, AttackRecord { assumed, warnings, ..failed }, None);
        self.run.add(at, line)
    }

    /// The class that an attack aims for.
    fn wanted(&self, a: usize, s: &Seen) -> Option<usize> {
        match self.attacks[a].attack.wanted() {
            None | Some(Wanted::Other) => None,
            Some(Wanted::Class(_)) => self.attacks[a].wanted,
            Some(Wanted::Least) => least(&s.scored.logits),
        }
    }

    /// One result per item, and the seconds per item.
    fn attack(&mut self, a: usize, seen: &[Seen], wanted: &[Option<usize>]) -> Vec<(Result<Adversarial>, f64)> {
        let preprocess = self.run.session.preparation().clone();
        let inputs: Vec<&Tensor> = seen.iter().map(|s| &s.item.input).collect();
        let attack = &self.attacks[a].attack;
        self.run.session.together(&inputs, |engine, graph, x, at| {
            let classes: Vec<usize> = at.iter().map(|&i| wanted[i].unwrap_or(seen[i].targets[0])).collect();
            attack.run(engine, graph, &preprocess, x, &classes)
        })
    }

    /// One map per input.
    fn maps(&mut self, m: usize, inputs: &[&Tensor], classes: &[usize]) -> Vec<Result<Map>> {
        self.run.session.explain(self.compared[m].method.as_ref(), inputs, classes)
    }

    fn record(&self, a: usize, s: &Seen, wanted: Option<usize>, seconds: f64) -> AttackRecord {
        let ready = &self.attacks[a];
        let noticed = self.run.ledger.said.of_item(&s.item);
        AttackRecord {
            assumed: noticed.assumed,
            input: self.run.sources[s.item.source].shown.clone(),
            index: s.item.row,
            attack: Some(ready.id.clone()),
            parameters: parameters(&ready.spec),
            target: Some(s.targets[0]),
            warnings: noticed.warnings,
            target_label: self.run.session.label(s.targets[0]),
            wanted,
            wanted_label: wanted.and_then(|class| self.run.session.label(class)),
            prediction_before: self.run.session.prediction(&s.scored.logits, Score::Prob),
            seconds,
            peak_bytes: self.run.session.peak_bytes(),
            record_version: RECORD_VERSION,
            ..AttackRecord::default()
        }
    }

    /// Fills in the attack's own results.
    fn describe(&self, s: &Seen, found: &Adversarial, record: &mut AttackRecord) {
        let [was, is] = found.predicted();
        record.prediction_after = self.run.session.prediction(&found.logits[1], Score::Prob);
        record.flipped = Some(was != is);
        record.succeeded = Some(found.succeeded);
        record.objective_before = Some(found.objective[0]);
        record.objective_after = Some(found.objective[1]);
        record.iterations = Some(found.iterations);
        record.linf = Some(found.linf);
        record.linf_levels = linf_levels(&found.picture, &s.item.input, self.run.session.preparation()).ok();
    }

    /// Makes pictures of levels and fills in the net's output on them.
    fn quantise(&mut self, a: usize, seen: &[Seen], outcomes: &mut [AttackedItem], records: &mut [AttackRecord]) {
        for outcome in outcomes {
            let s = &seen[outcome.at];
            let made = self.quantised((a, s), &outcome.found.picture);
            if let Ok((q, logits)) = &made {
                let record = &mut records[outcome.at];
                let (is, was) = (top(logits), top(&s.scored.logits));
                record.flipped_png = Some(is != was);
                record.succeeded_png = Some(match (&self.attacks[a].attack, record.wanted) {
                    (attack::Attack::Map(_), _) => is == was,
                    (_, Some(class)) => is == Some(class),
                    (_, None) => is != Some(s.targets[0]),
                });
                record.prediction_png = Some(self.run.session.prediction(logits, Score::Prob));
                record.linf_png = Some(q.linf);
                record.linf_png_levels = Some(q.linf_levels);
            }
            outcome.quantised = Some(made.and_then(|(q, _)| {
                let seen = q.tensor.reshape(s.item.input.dims())?;
                Ok((q.picture, seen))
            }));
        }
    }

    /// The picture of levels and the net's logits on it.
    fn quantised(&mut self, (a, s): (usize, &Seen), adversarial: &Tensor) -> Result<(Quantised, Vec<f64>)> {
        let dims = s.item.drawn_dims(self.run.session.preparation())?;
        let [original, adversarial] = [&s.item.input, adversarial].map(|t| t.clone().reshape(dims));
        let epsilon = self.attacks[a].attack.epsilon();
        let q = quantise(&original?, &adversarial?, epsilon, self.run.session.preparation())
            .map_err(|e| e.within("no .png can be written"))?;
        let seen = q.tensor.clone().reshape(s.item.input.dims())?;
        let scored =
            self.run.session.score(&[&seen]).pop().unwrap_or_else(|| Err(Error::device("nothing was scored")))?;
        Ok((q, scored.logits))
    }

    fn write(&mut self, outcome: &AttackedItem, (a, s): (usize, &Seen), record: &mut AttackRecord) -> Result<()> {
        let id = self.attacks[a].id.clone();
        let several = self.run.several_rows();
        for format in self.options.formats.clone() {
            let raw = match format.raw() {
                Some(raw) => raw,
                None => {
                    let picture = match &outcome.quantised {
                        Some(Ok((picture, _))) => picture,
                        Some(Err(e)) => return Err(Error::new(e.kind(), e.to_string())),
                        None => continue,
                    };
                    let path = files::path(&self.options.out, &s.item.stem, &[&id, "png"]);
                    self.run.ledger.spare(&path)?;
                    files::write_png(&path, picture)?;
                    record.files.push(paths::shown(&path));
                    continue;
                }
            };
            let stem = if several { &self.run.sources[s.item.source].stem } else { &s.item.stem };
            let path = files::path(&self.options.out, stem, &[&id, raw.extension()]);
            self.run.ledger.spare(&path)?;
            let values = outcome.found.picture.to_f32();
            self.run.write((&path, raw), a, s.item.row, (&s.item.dims, &values))?;
            record.files.push(paths::shown(&path));
        }
        Ok(())
    }

    /// The similarity between the maps of the originals, the adversarial inputs and their pictures.
    fn compare(
        &mut self,
        (m, a): (usize, usize),
        seen: &[Seen],
        before: &[Result<Map>],
        outcomes: &[AttackedItem],
        records: &mut [AttackRecord],
    ) {
        // Numbers first, then pictures, in the order of the outcomes.
        let drawn = |o: &AttackedItem| o.quantised.as_ref().and_then(|q| q.as_ref().ok()).is_some();
        let mut inputs: Vec<&Tensor> = outcomes.iter().map(|o| &o.found.picture).collect();
        inputs.extend(outcomes.iter().flat_map(|o| o.quantised.iter().flatten().map(|(_, seen)| seen)));
        let numbers = outcomes.iter().map(|o| seen[o.at].targets[0]);
        let pictures = outcomes.iter().filter(|o| drawn(o)).map(|o| seen[o.at].targets[0]);
        let classes: Vec<usize> = numbers.chain(pictures).collect();
        let mut maps = self.maps(m, &inputs, &classes);
        let mut of_pictures = maps.split_off(outcomes.len()).into_iter();
        for (outcome, after) in outcomes.iter().zip(maps) {
            let png = if drawn(outcome) { of_pictures.next() } else { None };
            let (s, record) = (&seen[outcome.at], &mut records[outcome.at]);
            let compared = match &before[outcome.at] {
                Ok(before) => self.alike((m, a, s), before, after, png),
                Err(e) => Err(Error::new(e.kind(), e.to_string())),
            };
            match compared {
                Ok(compared) => record.maps.push(compared),
                Err(e) => {
                    let why = format!("-m {}: {e}", self.compared[m].spec);
                    record.error.get_or_insert(why);
                }
            }
        }
    }

    fn alike(
        &self,
        (m, a, s): (usize, usize, &Seen),
        before: &Map,
        after: Result<Map>,
        png: Option<Result<Map>>,
    ) -> Result<MapsCompared> {
        // One number per pixel, if the input has pixels.
        let plane = |map: &Map| {
            let drawn = s.item.drawn(map, self.run.session.preparation());
            channel_mean_abs(&drawn.as_ref().unwrap_or(map).values)
        };
        let original = plane(before)?;
        let pixels = s.item.input.len() / s.item.input.dims().first().copied().unwrap_or(1).max(1);
        let k = match &self.attacks[a].attack {
            // The attack's own k if the map has the pixels to which k refers.
            attack::Attack::Map(attack) if original.len() == pixels => attack.objective.top_k(pixels),
            _ => (original.len() / 50).max(1),
        };
        let share = k as f64 / original.len() as f64;
        let of = |map: Map| -> Result<(Option<f64>, Option<f64>)> {
            let map = plane(&map)?;
            let spearman = spearman(&original, &map)?;
            let top = spearman.map(|_| top_k_intersection(&original, &map, share)).transpose()?;
            Ok((top, spearman))
        };
        let after = after?;
        let notes_after = after.all_notes();
        let (top_k_intersection, spearman) = of(after)?;
        let png = png.transpose()?.map(of).transpose()?;
        Ok(MapsCompared {
            method: self.compared[m].spec.clone(),
            k,
            top_k_intersection,
            spearman,
            top_k_intersection_png: png.and_then(|p| p.0),
            spearman_png: png.and_then(|p| p.1),
            notes: before.all_notes(),
            notes_after,
        })
    }
}

impl InputWork for AttackRun<'_> {
    type Input = Item;

    fn name(&self, at: usize) -> String {
        self.run.sources[at].shown.clone()
    }

    fn together(&self, at: ItemPosition) -> usize {
        self.run.together(at)
    }

    fn cancel_with(&mut self, cancel: &Cancel) {
        self.run.session.cancel_with(cancel);
    }

    fn begin(&mut self, at: usize, array: Option<(usize, bool)>) -> Result<()> {
        let Some(array) = array else { return Ok(()) };
        self.run.begin(at, array, |_| (Vec::new(), Vec::new()))
    }

    fn failed(&mut self, at: ItemPosition, why: Error, _: &dyn Listener) -> Result<()> {
        self.fail(at, &why, Noticed::default())
    }

    /// Runs all attacks on items of one shape.
    fn group(&mut self, mut items: Vec<(ItemPosition, Item)>, listener: &dyn Listener) -> Result<()> {
        self.run.write_held()?;
        // Files hold single precision: what is attacked is what they can hold, so that epsilon holds for them.
        for (_, item) in &mut items {
            item.input = Tensor::f32(item.input.dims(), item.input.to_f32().into_owned())?;
        }
        let mut seen = Vec::new();
        for (at, scored) in self.run.score(items, listener)? {
            match scored {
                Ok(scored) if !scored.targets.is_empty() => seen.push(scored),
                Ok(_) => self.fail(at, &Error::model("the net has no classes"), Noticed::default())?,
                Err((e, noticed)) => self.fail(at, &e, noticed)?,
            }
        }
        let Some(first) = seen.first() else { return Ok(()) };
        let graph = self.run.session.graph(first.item.input.dims())?;
        let originals: Vec<&Tensor> = seen.iter().map(|s| &s.item.input).collect();
        let classes: Vec<usize> = seen.iter().map(|s| s.targets[0]).collect();
        let mut before = Vec::new();
        for m in 0..self.compared.len() {
            let maps = self.maps(m, &originals, &classes);
            let compared = &mut self.compared[m];
            for map in &maps {
                hopeless(map, &mut compared.proven, &graph, &self.run.sources)
                    .map_err(|e| e.within(format!("-m {}", compared.spec)))?;
            }
            before.push(maps);
        }
        for a in 0..self.attacks.len() {
            let wanted: Vec<Option<usize>> = seen.iter().map(|s| self.wanted(a, s)).collect();
            let mut records = Vec::with_capacity(seen.len());
            let mut outcomes = Vec::with_capacity(seen.len());
            for (i, (made, seconds)) in self.attack(a, &seen, &wanted).into_iter().enumerate() {
                let ready = &mut self.attacks[a];
                hopeless(&made, &mut ready.proven, &graph, &self.run.sources).map_err(|e| e.within(&ready.id))?;
                let mut record = self.record(a, &seen[i], wanted[i], seconds);
                match made {
                    Ok(found) => {
                        self.describe(&seen[i], &found, &mut record);
                        outcomes.push(AttackedItem { at: i, found, quantised: None });
                    }
                    Err(e) => record.error = Some(e.to_string()),
                }
                records.push(record);
            }
            if self.options.formats.contains(&AttackFormat::Png) {
                self.quantise(a, &seen, &mut outcomes, &mut records);
            }
            for outcome in &outcomes {
                let (s, record) = (&seen[outcome.at], &mut records[outcome.at]);
                if let Err(e) = self.write(outcome, (a, s), record) {
                    record.error = Some(e.to_string());
                }
            }
            for (m, maps) in before.iter().enumerate() {
                self.compare((m, a), &seen, maps, &outcomes, &mut records);
            }
            let raw = self.options.formats.iter().any(|format| format.raw().is_some());
            let part = if raw { self.run.part(a) } else { None };
            for (s, record) in seen.iter().zip(records) {
                let line = self.line(s.item.source, record, part.clone());
                self.run.add(s.item.source, line)?;
            }
        }
        Ok(())
    }

    fn end(&mut self, at: usize) -> Result<Option<String>> {
        self.run.end()?;
        let (tally, shown) = (self.run.ledger.tally(at), &self.run.sources[at].shown);
        Ok(Some(match (&tally.error, tally.made) {
            (Some(why), 0) => format!("failed: {why}"),
            (Some(_), made) => format!("{shown}: {made} done, {} of {} inputs failed", tally.failed.len(), tally.items),
            (None, made) => format!("{shown}: {} of {made} succeeded", tally.succeeded),
        }))
    }
}

/// Builds the attacks and numbers repeated names.
fn ready(specs: Vec<AttackSpec>, session: &Session, room: Room) -> Result<Vec<ReadyAttack>> {
    let load = |path: &Path| session.read(path);
    let load_map = |path: &Path| {
        let (map, noticed) = load_map(path, room)?;
        session.notice(noticed);
        Ok(map)
    };
    let context = attack::AttackContext { seed: session.seed(), load: &load, load_map: &load_map };
    let mut numbered = Numbered::default();
    let mut all = Vec::new();
    for spec in specs {
        let name = spec.entry.id;
        let id = format!("{name}{}", numbered.ending(name));
        let attack = spec.build(&context).map_err(|e| e.within("--attack"))?;
        let wanted = match attack.wanted() {
            Some(Wanted::Class(text)) => {
                let class = named(text, session.labels(), session.model().classes());
                Some(class.map_err(|e| e.within(format!("--attack: {name}:target")))?)
            }
            _ => None,
        };
        all.push(ReadyAttack { id, spec, attack, wanted, proven: false });
    }
    Ok(all)
}

/// Reads a map or a mask: the numbers of an array, or the grey levels of a picture; with remarks on the file.
fn load_map(path: &Path, room: Room) -> Result<(Tensor, Noticed)> {
    let shown = paths::shown(path);
    if !ArrayFile::is_array(path) {
        let picture = room.open_picture(path)?;
        let levels = picture.grey().into_iter().map(f32::from).collect();
        return Ok((Tensor::f32([picture.height(), picture.width()], levels)?, damage(&shown, &picture)));
    }
    let mut array = ArrayFile::open(path, room)?;
    let within = |e: Error| e.within(path.display());
    // An array with two axes is read as rows of vectors.
    if !array.is_single() && array.dims().len() > 1 && array.rows() > 1 {
        return Err(within(Error::settings(format!("{} maps where one is wanted", array.rows()))));
    }
    let assumed = array.assumed().map(|what| format!("{shown}: {what}")).into_iter().collect();
    let mut rows = Vec::with_capacity(array.rows());
    for row in 0..array.rows() {
        rows.push(match array.row(row).map_err(within)? {
            Row::Normalised(tensor) => tensor,
            Row::Levels(levels) => {
                Tensor::f32(array.dims().to_vec(), levels.into_iter().map(f32::from).collect()).map_err(within)?
            }
        });
    }
    let map = if rows.len() > 1 { Tensor::stack(&rows) } else { rows.pop().ok_or_else(|| Error::input("no map")) };
    let map = map?;
    finite(&map).map_err(within)?;
    Ok((map, Noticed { assumed, ..Noticed::default() }))
}

/// The methods whose maps are compared: the requested ones, else the first attacked one, else the gradient.
fn compared(methods: &[Named], attacks: &[ReadyAttack], session: &Session) -> Result<Vec<ComparedMethod>> {
    let mut specs: Vec<String> = methods.iter().map(|n| n.spec.to_string()).collect();
    if specs.is_empty() {
        for ready in attacks {
            let base = match &ready.attack {
                attack::Attack::Map(attack) => attack.base.spec(),
                _ => attack::Base::Gradient.spec(),
            };
            if !specs.contains(&base) {
                specs.push(base);
            }
        }
    }
    let build = |spec: String| {
        let method = session.build(&method::Spec::parse(&spec)?).map_err(|e| e.within(format!("-m {spec}")))?;
        Ok(ComparedMethod { spec, method, proven: false })
    };
    specs.into_iter().map(build).collect()
}

fn parameters(spec: &AttackSpec) -> BTreeMap<String, String> {
    spec.values().iter().map(|(key, value)| (key.into(), value.into())).collect()
}
