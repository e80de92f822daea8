//! Parts of one decoding step: attention of one layer, and sampling.

use leyden_core::Sampling;
use tch::{Device, Kind, Tensor};

use crate::error::LmError;
use crate::generate::pass::Pass;
use crate::generate::sampler::{Draw, sample};
use crate::generate::store::Store;
use crate::generate::visibility::{Visibility, Writes};
use crate::model::config::LlamaConfig;
use crate::model::forward::Attention;

/// Decoding attention of one layer: prompts whose keys and values are cached once, each shared by
/// several rows with their own tokens.
pub struct DecodeAttention {
    pass: Pass,
    visible: usize,
    cached: usize,
}

impl DecodeAttention {
    /// `prompts` trunks of `trunk` tokens with `samples` rows each; the rows have different
    /// lengths, from one token to `longest`.
    ///
    /// # Errors
    /// Errors of libtorch (memory).
    pub fn new(
        config: &LlamaConfig,
        (kind, device): (Kind, Device),
        (prompts, samples): (usize, usize),
        (trunk, longest): (usize, usize),
    ) -> Result<Self, LmError> {
        let config = LlamaConfig { layers: 1, ..config.clone() };
        let rows = prompts * samples;
        let store = |slots: usize, capacity: usize| {
            let mut store = Store::new(&config, kind, device);
            store.arrange(&vec![None; slots], capacity)?;
            Ok::<_, LmError>(store)
        };
        let (trunks, own) = (store(prompts, trunk)?, store(rows, longest)?);
        let length = |row: usize| 1 + row * (longest - 1) / (rows - 1).max(1);
        let writes = Writes { places: (0..rows).map(|row| (row, row, length(row) - 1)).collect() };
        let views = [
            Visibility {
                store: &own,
                slots: 0..rows,
                tokens: (0..rows).map(|row| (row, length(row))).collect(),
            },
            Visibility {
                store: &trunks,
                slots: 0..prompts,
                tokens: (0..rows).map(|row| (row / samples, trunk)).collect(),
            },
        ];
        let pass = Pass::new(&config, (kind, device), &own, &writes, &views)?;
        let written: usize = (0..rows).map(length).sum();
        Ok(Self { pass, visible: written + rows * trunk, cached: written + prompts * trunk })
    }

    /// Attends with `q` [rows, heads, head_dim] after writing `k`, `v` [rows, kv_heads,
    /// head_dim].
    ///
    /// # Errors
    /// Errors of libtorch.
    pub fn attend(&mut self, q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Tensor, LmError> {
        self.pass.attend(0, q, k, v)
    }

    /// Total number of tokens that the rows attend to, counting shared ones once per row.
    pub fn visible(&self) -> usize {
        self.visible
    }

    /// Tokens in the cache.
    pub fn cached(&self) -> usize {
        self.cached
    }
}

/// Samples one token for each row of `logits` [rows, vocabulary], by one number in [0, 1) each.
///
/// # Errors
/// Non-finite logits.
pub fn draw(logits: &Tensor, temperature: f64, uniforms: &[f64]) -> Result<Vec<u32>, LmError> {
    let sampling = Sampling { temperature, ..Sampling::default() };
    let draws: Vec<Option<Draw>> = uniforms
        .iter()
        .map(|&uniform| Some(Draw { sampling: &sampling, uniform, allowed: None, top: 0 }))
        .collect();
    let drawn = sample(logits, &draws)?;
    Ok(drawn.into_iter().flatten().map(|drawn| drawn.id).collect())
}
