//! Insertion, deletion, fidelity and sensitivity-n of gradient × input maps, with everything that is needed to compute them
//! again by other means.
//!
//! `cargo run --release --example metrics -- MODEL DATA N OUT`: MODEL a safetensors file of a net for the pictures of DATA, a
//! safetensors file with `images` (u8, `[count, c, h, w]`); the first N are explained for their top class. Writes to the
//! folder OUT `inputs.npy` and `maps.npy` (f32, `[N, c, h, w]`), `targets.npy` (`[N]`) and `values.npy` (`[N, 4]`, in the
//! order above; NaN where there is none), both f64, all in C order; `scripts/recompute_metrics.py` reads them.

use std::path::Path;

use safetensors::SafeTensors;
use verilume::engine::{Batch, Engine, Settings};
use verilume::method::{self, Context};
use verilume::model::Model;
use verilume::program::Score;
use verilume::reliability::metric::{Case, MetricSpec};
use verilume::score::top;
use verilume::tensor::{Data, Tensor};
use verilume::{Error, Result};

/// With the script's settings.
const METRICS: [&str; 4] = ["insertion:step=16", "deletion:step=16", "fidelity", "sensitivity_n:n=64,subsets=64"];
const SEED: u64 = 1;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, data, n, out] = &arguments[..] else {
        return Err(Error::settings("usage: metrics MODEL DATA N OUT"));
    };
    let n: usize = n.parse().map_err(|_| Error::settings(format!("'{n}' is no number of pictures")))?;
    let model = Model::open(model.as_ref(), None)?;
    let x = pictures(&model, data.as_ref(), n)?;
    let graph = model.graph(x.shape())?;
    let mut engine = Engine::new(&Settings::default())?;
    let logits = engine.forward(&graph, &x)?;
    let targets: Vec<usize> = logits.to_f64().chunks(graph.classes()).filter_map(top).collect();

    let load = |path: &Path| Err(Error::input(format!("{} is not asked for", path.display())));
    let context = Context { seed: SEED, score: Score::Logit, preprocess: model.preprocess(), load: &load };
    let method = method::Spec::parse("input_x_gradient")?.build(&context)?;
    let maps = method.explain(&mut engine, &graph, &x, &targets)?;
    let case = Case {
        graph: &graph,
        preprocess: model.preprocess(),
        x: &x,
        targets: &targets,
        labels: None,
        regions: None,
        method: &*method,
        maps: &maps,
        seed: SEED,
    };
    let mut values = vec![0.0; n * METRICS.len()];
    for (k, spec) in METRICS.iter().enumerate() {
        let found = MetricSpec::parse(spec)?.build()?.measure(&mut engine, &case)?;
        for (i, readings) in found.iter().enumerate() {
            values[i * METRICS.len() + k] = readings[0].unwrap_or(f64::NAN);
        }
    }
    let out = Path::new(out);
    std::fs::create_dir_all(out).map_err(|e| Error::io(out, e))?;
    write(out, "inputs", &Tensor::stack(x.items())?)?;
    write(out, "maps", &Tensor::stack(&maps.iter().map(|m| m.values.clone()).collect::<Vec<_>>())?)?;
    write(out, "targets", &Tensor::f64([n], targets.iter().map(|&t| t as f64).collect())?)?;
    write(out, "values", &Tensor::f64([n, METRICS.len()], values)?)
}

/// The first `n` pictures of a file, as the net sees them.
fn pictures(model: &Model, path: &Path, n: usize) -> Result<Batch> {
    let bytes = std::fs::read(path).map_err(|e| Error::io(path, e))?;
    let wrong = |why: String| Error::input(format!("{}: {why}", path.display()));
    let file = SafeTensors::deserialize(&bytes).map_err(|e| wrong(e.to_string()))?;
    let images = file.tensor("images").map_err(|e| wrong(e.to_string()))?;
    let &[count, c, h, w] = images.shape() else { return Err(wrong(format!("images of shape {:?}", images.shape()))) };
    if n == 0 || n > count || images.data().len() != count * c * h * w {
        return Err(wrong(format!("{n} of {count} u8 images")));
    }
    let one = |levels: &[u8]| Ok(model.preprocess().from_u8(levels, h, w)?.tensor);
    Batch::of(images.data().chunks(c * h * w).take(n).map(one).collect::<Result<Vec<_>>>()?)
}

/// NumPy's format, version 1.
fn write(folder: &Path, name: &str, tensor: &Tensor) -> Result<()> {
    let (kind, bytes): (_, Vec<u8>) = match tensor.data() {
        Data::F32(v) => ("<f4", v.iter().flat_map(|x| x.to_le_bytes()).collect()),
        Data::F64(v) => ("<f8", v.iter().flat_map(|x| x.to_le_bytes()).collect()),
    };
    let dims: String = tensor.dims().iter().map(|d| format!("{d}, ")).collect();
    let mut header = format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': ({dims}), }}");
    // The numbers start at a multiple of 64 bytes, after ten bytes and a line of text.
    header += &" ".repeat((10 + header.len() + 1).next_multiple_of(64) - 10 - header.len() - 1);
    header.push('\n');
    let mut file = b"\x93NUMPY\x01\x00".to_vec();
    file.extend((header.len() as u16).to_le_bytes());
    file.extend(header.bytes());
    file.extend(bytes);
    let path = folder.join(format!("{name}.npy"));
    std::fs::write(&path, file).map_err(|e| Error::io(&path, e))
}
