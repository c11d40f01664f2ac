//! Nets whose weights are drawn from the names of their tensors, and what PyTorch, Captum and Zennit answer for them.
#![allow(dead_code, reason = "each test binary uses a part")]

use std::sync::Arc;

use safetensors::SafeTensors;
use verilume::model::{Model, blueprint};

/// As `uniform` in `tests/golden/torchvision_nets.py`.
fn uniform(name: &str, n: usize) -> impl Iterator<Item = f64> + use<> {
    let mut state = 0xcbf2_9ce4_8422_2325u64;
    for byte in name.bytes() {
        state = (state ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
    }
    (0..n).map(move |_| {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        (z >> 40) as f64 / f64::from(1 << 23) - 1.0
    })
}

/// As `drawn` in `tests/golden/torchvision_nets.py`.
pub fn drawn(name: &str, shape: &[usize]) -> Vec<f32> {
    let fan: usize = shape[1..].iter().product();
    let value = |u: f64| match name {
        "input" => 1.5 * u,
        _ if name.ends_with("layer_scale") => 0.5 + 0.25 * u,
        _ if shape.len() > 1 => (6.0 / fan as f64).sqrt() * u,
        _ if name.ends_with("running_mean") || name.ends_with("bias") => 0.1 * u,
        _ => 1.0 + 0.5 * u,
    };
    uniform(name, shape.iter().product()).map(|u| value(u) as f32).collect()
}

/// The net with drawn weights, read from a file by names and shapes alone.
pub fn drawn_net(net: &str) -> Model {
    made(net, "F32", |name, shape| drawn(name, shape).iter().flat_map(|v| v.to_le_bytes()).collect())
}

/// The same net in double precision with each number off, up or down as `draw` says, by √n roundings of single precision: n the
/// numbers of its row, which one sum adds up, and √n the length of a random walk of n steps.
pub fn rounded_net(net: &str, draw: usize) -> Model {
    made(net, "F64", |name, shape| {
        let share = (shape[1..].iter().product::<usize>() as f64).sqrt() * 2f64.powi(-24);
        let signs = uniform(&format!("sign {draw} of {name}"), shape.iter().product()).map(f64::signum);
        let off = |(v, sign): (&f32, f64)| (f64::from(*v) * (1.0 + share * sign)).to_le_bytes();
        drawn(name, shape).iter().zip(signs).flat_map(off).collect()
    })
}

/// A net from the bytes of its tensors.
fn made(net: &str, dtype: &str, bytes: impl Fn(&str, &[usize]) -> Vec<u8>) -> Model {
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    for tensor in blueprint(net).unwrap() {
        let from = data.len();
        data.extend(bytes(&tensor.name, &tensor.shape));
        let entry = serde_json::json!({ "dtype": dtype, "shape": tensor.shape, "data_offsets": [from, data.len()] });
        assert!(header.insert(tensor.name, entry).is_none());
    }
    let header = serde_json::Value::Object(header).to_string();
    let bytes = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat();
    Model::from_bytes(net, Arc::new(bytes), None).unwrap()
}

/// What a golden file says of a net.
pub struct Golden<'a>(pub &'a SafeTensors<'a>, pub &'a str);

impl Golden<'_> {
    fn read<T>(&self, key: &str, number: fn([u8; 8]) -> T) -> Vec<T> {
        let tensor = self.0.tensor(&format!("{}.{key}", self.1)).unwrap_or_else(|e| panic!("{} {key}: {e}", self.1));
        tensor.data().as_chunks().0.iter().map(|b| number(*b)).collect()
    }

    pub fn counts(&self, key: &str) -> Vec<usize> {
        self.read(key, |b| i64::from_le_bytes(b) as usize)
    }

    pub fn numbers(&self, key: &str) -> Vec<f64> {
        let numbers = self.read(key, f64::from_le_bytes);
        assert!(numbers.iter().all(|v| v.is_finite()) && numbers.iter().any(|v| *v != 0.0), "{} {key}", self.1);
        numbers
    }
}

/// The root of the sum of squares.
pub fn norm(values: &[f64]) -> f64 {
    values.iter().map(|v| v * v).sum::<f64>().sqrt()
}

/// The largest difference over the largest number.
pub fn apart(found: &[f64], wanted: &[f64]) -> f64 {
    assert_eq!(found.len(), wanted.len());
    let largest = wanted.iter().fold(0.0f64, |m, v| m.max(v.abs()));
    found.iter().zip(wanted).fold(0.0f64, |m, (a, b)| m.max((a - b).abs())) / largest
}
