//! A small model for the tests of the readers and writers.

use tch::{Device, Kind, Tensor};

use crate::formats::tensors::NamedTensors;
use crate::model::config::LlamaConfig;
use crate::model::parameters::projection_shapes;

pub fn config(tied: bool) -> LlamaConfig {
    LlamaConfig {
        vocab_size: 40,
        hidden_size: 64,
        intermediate_size: 96,
        layers: 2,
        heads: 4,
        kv_heads: 2,
        head_dim: 16,
        norm_eps: 1e-5,
        rope_theta: 10_000.0,
        rope_scaling: None,
        max_positions: 256,
        tied,
        bos: Some(1),
        eos: vec![2],
    }
}

/// Multiples of one half from −4 to 3.5: exact in every number type, including quantised ones.
pub fn tensors(config: &LlamaConfig) -> NamedTensors {
    let shapes = projection_shapes(config).into_iter().zip(1i64..);
    shapes
        .map(|((name, shape), seed)| {
            let count: i64 = shape.iter().product();
            let index = Tensor::arange(count, (Kind::Int64, Device::Cpu));
            let steps = ((index * 37 + seed * 11) * 61).fmod(101).fmod(16) - 8;
            (name, (steps.to_kind(Kind::Float) * 0.5).view(shape.as_slice()))
        })
        .collect()
}

pub fn borrowed(tensors: &NamedTensors) -> Vec<(&str, &Tensor)> {
    tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect()
}

/// Panics unless names, order, shapes and values agree.
pub fn assert_same(found: &NamedTensors, expected: &NamedTensors) {
    let names = |list: &NamedTensors| list.iter().map(|(n, _)| n.clone()).collect::<Vec<_>>();
    assert_eq!(names(found), names(expected));
    for ((name, found), (_, expected)) in found.iter().zip(expected) {
        assert_eq!(found.size(), expected.size(), "{name}");
        assert!(found.to_kind(Kind::Float).equal(expected), "{name}");
    }
}
