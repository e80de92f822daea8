//! The model and its device.

use tch::{Device, Kind};

use crate::error::LmError;
use crate::generate::cache::Cache;
use crate::generate::pass::Pass;
use crate::generate::visibility::{Visibility, Writes};
use crate::model::config::LlamaConfig;
use crate::model::forward::Weights;
use crate::model::rotary::Rotary;

pub(super) struct Model {
    pub config: LlamaConfig,
    pub weights: Weights,
    pub rotary: Rotary,
    pub options: (Kind, Device),
}

impl Model {
    /// A pass that writes to the cache's trunks or to its rows.
    pub fn pass(
        &self,
        cache: &Cache,
        writes: &Writes,
        views: &[Visibility],
        trunk: bool,
    ) -> Result<Pass, LmError> {
        let target = if trunk { &cache.trunk_store } else { &cache.row_store };
        Pass::new(&self.config, self.options, target, writes, views)
    }
}
