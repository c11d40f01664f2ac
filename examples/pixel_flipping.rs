//! Pixel flipping on demand, for `benches/vs_quantus`.
//!
//! `pixel_flipping MODEL CASES STEP THREADS`: CASES is a safetensors file with `x` and `maps` (f32, `[n, c, h, w]`) and
//! `targets` (i64, `[n]`); pixels go over to each picture's smallest number, STEP elements at a time. Then, for each line that
//! comes in: a number of calls, answered by the seconds of each in brackets; or a path, where the curves are put (f64, little
//! endian, `[n, points]`), answered by `[]`.

use std::io::BufRead;
use std::time::Instant;

use safetensors::SafeTensors;
use verilume::engine::{Engine, Settings};
use verilume::map::{Map, Sign, Space};
use verilume::model::Model;
use verilume::reliability::pixel_flipping;
use verilume::tensor::{Shape, Tensor};
use verilume::{Error, Result};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, cases, step, threads] = &arguments[..] else {
        return Err(Error::settings("usage: pixel_flipping MODEL CASES STEP THREADS"));
    };
    let number = |text: &str| text.parse::<usize>().map_err(|_| Error::settings(format!("'{text}' is no number")));
    let (step, threads) = (number(step)?, number(threads)?);
    let bytes = std::fs::read(cases).map_err(|e| Error::io(cases, e))?;
    let wrong = |e: safetensors::SafeTensorError| Error::input(format!("{cases}: {e}"));
    let file = SafeTensors::deserialize(&bytes).map_err(wrong)?;
    let tensors = |name: &str| -> Result<Vec<Tensor>> {
        let view = file.tensor(name).map_err(wrong)?;
        let values = view.data().as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
        let all = Tensor::f32(view.shape(), values)?;
        (0..view.shape()[0]).map(|i| all.item(i)).collect()
    };
    let x = tensors("x")?;
    let targets = file.tensor("targets").map_err(wrong)?;
    let targets = targets.data().as_chunks().0.iter().map(|b| i64::from_le_bytes(*b) as usize);
    let map = |(values, target)| Map::new(values, Sign::Signed, Space::Input, target, "given");
    let maps: Vec<Map> = tensors("maps")?.into_iter().zip(targets).map(map).collect();
    let smallest = |t: &Tensor| t.to_f64().iter().copied().fold(f64::INFINITY, f64::min);
    let baselines: Vec<Tensor> = x.iter().map(|t| (smallest(t), t.clone())).map(|(v, t)| t.map(|_| v)).collect();
    let &[c, h, w] = x[0].dims() else { return Err(Error::input("pictures have the shape [c, h, w]")) };
    let graph = Model::open(model.as_ref(), None)?.graph(Shape::new(c, h, w))?;
    let mut engine = Engine::new(&Settings { threads: Some(threads), ..Settings::default() })?;
    let mut call = || pixel_flipping(&mut engine, &graph, [&x, &baselines], &maps, step);

    for line in std::io::stdin().lock().lines() {
        let line = line.map_err(|e| Error::io("standard input", e))?;
        match line.parse::<usize>() {
            Ok(calls) => {
                let mut seconds = Vec::with_capacity(calls);
                for _ in 0..calls {
                    let start = Instant::now();
                    call()?;
                    seconds.push(start.elapsed().as_secs_f64());
                }
                println!("{seconds:?}");
            }
            Err(_) => {
                let curves: Vec<u8> = call()?.iter().flatten().flat_map(|v| v.to_le_bytes()).collect();
                std::fs::write(&line, curves).map_err(|e| Error::io(&line, e))?;
                println!("[]");
            }
        }
    }
    Ok(())
}
