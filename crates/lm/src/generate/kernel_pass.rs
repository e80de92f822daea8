//! A pass over cached keys and values by fused kernels on CPU cores.

use leyden_fused::Element;
use leyden_fused::attention::cached::{VisibleColumns, attend};
use leyden_fused::attention::{Heads, Shape};
use tch::{Kind, Tensor};

use crate::error::LmError;
use crate::generate::store::Store;
use crate::generate::visibility::{Visibility, Writes};
use crate::kernels::{self, CachedLayer};
use crate::model::config::LlamaConfig;

/// Positions that a pass writes and reads. The stores' memory is looked up once, so a pass must not
/// outlive a change of their sizes.
pub(super) struct KernelPass {
    shape: Shape,
    kind: Kind,
    /// Per layer, the store that is written and the stores that are read.
    layers: Vec<[CachedLayer; 3]>,
    capacity: usize,
    /// (token, slot, column); a token may be written to several slots.
    places: Vec<(usize, usize, usize)>,
    visible: Vec<VisibleColumns>,
}

impl KernelPass {
    /// As [`crate::generate::pass::Pass::new`].
    pub fn new(
        config: &LlamaConfig,
        kind: Kind,
        target: &Store,
        writes: &Writes,
        views: &[Visibility],
    ) -> Self {
        let shape =
            Shape { heads: config.heads, kv_heads: config.kv_heads, head_dim: config.head_dim };
        let own = &views[0];
        let trunk = views.get(1);
        let visible = own.tokens.iter().enumerate().map(|(token, &own)| VisibleColumns {
            trunk: trunk.map_or((0, 0), |trunk| trunk.tokens[token]),
            own,
            token,
        });
        let mut visible: Vec<VisibleColumns> = visible.collect();
        visible.sort_unstable();
        let stores = [target, own.store, trunk.map_or(own.store, |trunk| trunk.store)];
        let layers = (0..config.layers).map(|layer| stores.map(|store| store.layer(layer)));
        Self {
            shape,
            kind,
            layers: layers.collect(),
            capacity: own.store.capacity(),
            places: writes.places.clone(),
            visible,
        }
    }

    pub fn columns(&self) -> usize {
        self.capacity
    }

    /// As [`crate::generate::pass::Pass::advance`].
    pub fn advance(&mut self, places: &[(usize, usize)]) {
        let place = |(token, &(slot, column)): (usize, &(usize, usize))| (token, slot, column);
        self.places = places.iter().enumerate().map(place).collect();
        for view in &mut self.visible {
            let (slot, column) = places[view.token];
            view.own = (slot, column + 1);
        }
        self.visible.sort_unstable();
    }

    /// As [`Self::attend`], from buffers to `mixed` [n, heads · head_dim].
    pub fn attend_to<T: Element>(
        &self,
        layer: usize,
        q: Heads<T>,
        k: Heads<T>,
        v: Heads<T>,
        mixed: &mut [T],
    ) {
        let [target, own, trunk] = &self.layers[layer];
        target.layer().write(self.shape, &self.places, k, v);
        let layers = (own.layer(), trunk.layer());
        attend(kernels::threads(), self.shape, layers, &self.visible, q, mixed);
    }

    /// As [`crate::model::Attention::attend`].
    pub fn attend(
        &self,
        layer: usize,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
    ) -> Result<Tensor, LmError> {
        let [target, own, trunk] = &self.layers[layer];
        kernels::write_cache(self.kind, self.shape, target, &self.places, k, v);
        kernels::cached_attention(self.kind, self.shape, (own, trunk), &self.visible, q)
    }
}
