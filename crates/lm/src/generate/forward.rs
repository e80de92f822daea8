//! The forward pass of generation, with a fast path for a few rows.

use tch::Tensor;

use crate::error::LmError;
use crate::generate::few_rows;
use crate::generate::model::Model;
use crate::generate::packed::Packed;
use crate::generate::pass::Pass;
use crate::model::forward::transform;

impl Model {
    /// Hidden states [tokens, width] of packed tokens.
    pub fn forward(&self, packed: &Packed, pass: &mut Pass) -> Result<Tensor, LmError> {
        let tensor = |list: &[i64]| Tensor::f_from_slice(list)?.f_to_device(self.options.1);
        let (ids, positions) = (tensor(&packed.ids)?, tensor(&packed.positions)?);
        if let Pass::Kernels(pass) = pass
            && let Some(hidden) = few_rows::transform(self, pass, (&ids, &positions))
        {
            return hidden;
        }
        transform(&self.weights, &self.config, &self.rotary, &ids, &positions, pass)
    }
}
