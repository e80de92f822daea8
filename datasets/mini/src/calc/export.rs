//! mini-calc as files in the Calc-X format.

use std::path::Path;

use super::MiniCalc;
use crate::files::{self, ExportError};

impl MiniCalc {
    /// Writes `train.jsonl` with the first `train` training tasks and `test.jsonl` with `test`
    /// test tasks into `folder`, which is created if missing.
    ///
    /// # Errors
    /// If the folder or a file cannot be written.
    pub fn write_jsonl(&self, folder: &Path, train: u64, test: usize) -> Result<(), ExportError> {
        let train = (0..train).map(|i| files::calcx_row(&self.train(i)));
        files::write_jsonl(&folder.join("train.jsonl"), train)?;
        files::write_jsonl(&folder.join("test.jsonl"), self.test(test).iter().map(files::calcx_row))
    }
}
