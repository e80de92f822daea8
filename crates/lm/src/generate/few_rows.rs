//! The model's layers for a few rows on CPU cores, operating on buffers.
//!
//! The same kernels in the same order as [`crate::model::transform`], with the same bytes as
//! result; but no tensor is created, split or viewed between them, which for a few rows of a small
//! model takes longer than the arithmetic.

use leyden_fused::attention::Heads;
use leyden_fused::{Turn, add, rms_norm, rotary, swiglu};
use tch::{Kind, Tensor};

use crate::error::LmError;
use crate::generate::kernel_pass::KernelPass;
use crate::generate::model::Model;
use crate::kernels::{FusedElement, Packed, by_kind, in_place, numbers, threads};
use crate::model::forward::{LayerWeights, PackedLayer};

/// Normed hidden states [n, width] of token `ids` [n] at `positions` [n], or `None` if libtorch's
/// own products are faster or the weights are not packed.
pub(super) fn transform(
    model: &Model,
    pass: &mut KernelPass,
    (ids, positions): (&Tensor, &Tensor),
) -> Option<Result<Tensor, LmError>> {
    let layers: Option<Vec<_>> = model
        .weights
        .layers
        .iter()
        .map(|layer| Some((layer, layer.packed.as_ref().filter(|_| !layer.has_low_rank())?)))
        .collect();
    let layers = layers.filter(|_| Packed::suits(ids.size()[0]))?;
    Some(by_kind!(model.options.0, run(model, &layers, pass, ids, positions)))
}

fn run<T: FusedElement>(
    model: &Model,
    layers: &[(&LayerWeights, &PackedLayer)],
    pass: &mut KernelPass,
    ids: &Tensor,
    positions: &Tensor,
) -> Result<Tensor, LmError> {
    let (weights, config, threads) = (&model.weights, &model.config, threads());
    let states = Tensor::f_embedding(&weights.embedding, ids, -1, false, false)?;
    let normed_states = states.f_empty_like()?;
    let angles = model.rotary.angles(positions, model.options.0);
    let (cos, sin) = angles.tensors();
    let angles = (numbers::<f32>(cos), numbers::<f32>(sin));
    // Both are new and contiguous.
    let (x, normed) = (in_place::<T>(&states), in_place::<T>(&normed_states));
    let n = ids.size()[0] as usize;
    let (hd, eps) = (config.head_dim, config.norm_eps as f32);
    let (turning, all) = (config.heads + config.kv_heads, config.heads + 2 * config.kv_heads);
    let inner = config.intermediate_size;
    let buffer = |width: usize| vec![T::default(); n * width];
    let (mut qkv, mut turned) = (buffer(all * hd), buffer(turning * hd));
    let (mut mixed, mut added) = (buffer(config.heads * hd), buffer(config.hidden_size));
    let (mut gate_up, mut activated) = (buffer(2 * inner), buffer(inner));
    for (index, (layer, packed)) in layers.iter().enumerate() {
        rms_norm(threads, x, numbers(&layer.input_norm), eps, normed);
        T::packed(&packed.qkv).multiply(threads, normed, &mut qkv);
        rotary(threads, (turning, hd), &qkv, all * hd, angles, Turn::Forth, &mut turned);
        let part = |data, token: usize| Heads { data, token: token * hd, head: hd };
        let (q, k) = (part(&turned[..], turning), part(&turned[config.heads * hd..], turning));
        pass.attend_to(index, q, k, part(&qkv[turning * hd..], all), &mut mixed);
        T::packed(&packed.output).multiply(threads, &mixed, &mut added);
        add(x, &added);
        rms_norm(threads, x, numbers(&layer.post_norm), eps, normed);
        T::packed(&packed.gate_up).multiply(threads, normed, &mut gate_up);
        swiglu(threads, inner, &gate_up, &mut activated);
        T::packed(&packed.down).multiply(threads, &activated, &mut added);
        add(x, &added);
    }
    rms_norm(threads, x, numbers(&weights.norm), eps, normed);
    Ok(normed_states)
}

#[cfg(test)]
mod tests {
    use leyden_core::SeedTree;
    use tch::{Device, Kind, Tensor, no_grad_guard};

    use super::transform;
    use crate::generate::model::Model;
    use crate::generate::pass::Pass;
    use crate::generate::store::Store;
    use crate::generate::visibility::{Visibility, Writes};
    use crate::model::config::LlamaConfig;
    use crate::model::forward::Weights;
    use crate::model::init::initialise;
    use crate::model::parameters::Parameters;
    use crate::model::rotary::Rotary;

    fn model(kind: Kind) -> Model {
        // Grouped heads, and a width that no product divides evenly among panels of 64.
        let tiny = LlamaConfig::named("tiny").unwrap();
        let config = LlamaConfig { heads: 6, kv_heads: 2, head_dim: 16, hidden_size: 80, ..tiny };
        let tensors = initialise(&config, SeedTree::new(3)).unwrap();
        let parameters = Parameters::new(tensors, Kind::Float, Device::Cpu, false).unwrap();
        let mut weights = Weights::of(&parameters, &config, kind).unwrap();
        weights.pack();
        let rotary = Rotary::new(&config, Device::Cpu);
        Model { rotary, config, weights, options: (kind, Device::Cpu) }
    }

    #[test]
    fn buffers_and_tensors_give_the_same_bytes() {
        let _guard = no_grad_guard();
        for kind in [Kind::Float, Kind::BFloat16] {
            let model = model(kind);
            // Three tokens of one row and one of another.
            let writes = Writes { places: vec![(0, 0, 0), (1, 0, 1), (2, 0, 2), (3, 1, 0)] };
            let tokens = vec![(0, 1), (0, 2), (0, 3), (1, 1)];
            let ids = Tensor::from_slice(&[5i64, 6, 7, 5]);
            let positions = Tensor::from_slice(&[0i64, 1, 2, 0]);
            let states = |straight: bool| {
                let mut store = Store::new(&model.config, kind, Device::Cpu);
                store.arrange(&[None, None], 16).unwrap();
                let views = [Visibility { store: &store, slots: 0..2, tokens: tokens.clone() }];
                let mut pass =
                    Pass::new(&model.config, model.options, &store, &writes, &views).unwrap();
                let Model { weights, config, rotary, .. } = &model;
                match (&mut pass, straight) {
                    (Pass::Kernels(pass), true) => {
                        transform(&model, pass, (&ids, &positions)).expect("a few rows").unwrap()
                    }
                    _ => crate::model::forward::transform(
                        weights, config, rotary, &ids, &positions, &mut pass,
                    )
                    .unwrap(),
                }
            };
            let (straight, tensors) = (states(true), states(false));
            assert!(straight.equal(&tensors), "{kind:?}: not the same bytes");
            assert!(tensors.abs().max().double_value(&[]) > 0.1);
        }
    }
}
