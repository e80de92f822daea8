//! A golden folder's files, and a padded batch of them as packed rows.

use std::collections::BTreeMap;
use std::path::PathBuf;

use tch::{Device, Kind, Tensor};

use crate::error::LmError;
use crate::formats::tensors::NamedTensors;
use crate::model::config::LlamaConfig;
use crate::model::parameters::Parameters;
use crate::policy::forest::{Pack, Row, pack};
use crate::policy::trainable::{Policy, PolicyOptions};

/// Two correct attention kernels differ by up to 2e-6 in a logit; ten times that is the tolerance.
pub(super) const TOLERANCE: f64 = 2e-5;

/// The files of one folder.
pub(super) struct Folder {
    pub path: PathBuf,
    pub config: LlamaConfig,
    pub weights: NamedTensors,
    pub expected: BTreeMap<String, Tensor>,
}

impl Folder {
    pub fn expected(&self, name: &str) -> Result<&Tensor, LmError> {
        self.expected.get(name).ok_or_else(|| {
            let path = self.path.join("fixtures.safetensors");
            LmError::file(path, format!("tensor `{name}` is missing"))
        })
    }

    pub fn policy(&self, trained: bool) -> Result<Policy, LmError> {
        let tensors = self.weights.iter().map(|(n, t)| (n.clone(), t.shallow_clone())).collect();
        let parameters = Parameters::new(tensors, Kind::Float, Device::Cpu, trained)?;
        Ok(Policy::new(self.config.clone(), parameters, PolicyOptions::default()))
    }
}

/// A padded batch as packed rows: tree r is row r.
pub(super) struct GoldenBatch {
    pub pack: Pack,
    /// For each row, the columns of its real tokens.
    pub columns: Vec<Vec<usize>>,
}

impl GoldenBatch {
    /// Every real token except a row's first is an action.
    pub fn new(
        folder: &Folder,
        input_ids: &[Vec<u32>],
        mask: &[Vec<u8>],
        position: impl Fn(usize, usize) -> usize,
    ) -> Result<Self, LmError> {
        let invalid = |what: String| LmError::file(folder.path.join("fixtures.json"), what);
        let (mut rows, mut columns, mut positions) = (Vec::new(), Vec::new(), Vec::new());
        for (index, (ids, mask)) in input_ids.iter().zip(mask).enumerate() {
            let real: Vec<usize> = (0..ids.len()).filter(|&c| mask.get(c) == Some(&1)).collect();
            let tokens: Vec<u32> = real.iter().map(|&c| ids[c]).collect();
            positions.extend(real.iter().map(|&c| position(index, c)));
            let (first, rest) = tokens.split_at(1.min(tokens.len()));
            rows.push(Row::call(first, rest));
            columns.push(real);
        }
        // Each row is its own group, so nothing is shared and the order is kept.
        let groups: Vec<usize> = (0..rows.len()).collect();
        let packs = pack(&rows, &groups, usize::MAX).map_err(|e| invalid(e.to_string()))?;
        let mut pack = packs.into_iter().next().unwrap_or_default();
        pack.positions = positions;
        Ok(Self { pack, columns })
    }
}

/// Largest absolute difference; NaN where shapes differ.
pub(super) fn distance(ours: &Tensor, theirs: &Tensor) -> f64 {
    if ours.size() != theirs.size() {
        return f64::NAN;
    }
    (ours - theirs).abs().max().double_value(&[])
}
