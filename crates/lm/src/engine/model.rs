//! The model and where it runs.

use tch::{Device, Kind, Tensor};

use super::attention::{Pass, Sight, Writes};
use super::cache::Cache;
use super::prefill::Packed;
use super::straight;
use crate::{LlamaConfig, LmError, Rotary, Weights, transform};

pub(super) struct Model {
    pub config: LlamaConfig,
    pub weights: Weights,
    pub rotary: Rotary,
    pub options: (Kind, Device),
}

impl Model {
    /// Hidden states [tokens, width] of packed tokens.
    pub fn forward(&self, packed: &Packed, pass: &mut Pass) -> Result<Tensor, LmError> {
        let tensor = |list: &[i64]| Tensor::f_from_slice(list)?.f_to_device(self.options.1);
        let (ids, positions) = (tensor(&packed.ids)?, tensor(&packed.positions)?);
        if let Pass::Fused(pass) = pass
            && let Some(hidden) = straight::transform(self, pass, (&ids, &positions))
        {
            return hidden;
        }
        transform(&self.weights, &self.config, &self.rotary, &ids, &positions, pass)
    }

    /// A pass that writes to the cache's trunks or to its rows.
    pub fn pass(
        &self,
        cache: &Cache,
        writes: &Writes,
        sights: &[Sight],
        trunk: bool,
    ) -> Result<Pass, LmError> {
        let target = if trunk { &cache.trunk_store } else { &cache.row_store };
        Pass::new(&self.config, self.options, target, writes, sights)
    }
}
