//! The shape of a batch: ragged rows with a mask.
//!
//! A row is one training sequence. All per-token arrays of a batch are flat, row after row;
//! the mask says which of the tokens the policy sampled. A mask may have holes: where the
//! calls of an episode are merged into one row, the tool results between them are not
//! the policy's. A padded matrix is the case of equal lengths.

use std::ops::Range;

/// Lengths and mask of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rows {
    /// Start of each row in the flat arrays, and at the end their length: `len() + 1` numbers.
    starts: Vec<usize>,
    mask: Vec<bool>,
}

/// Lengths and mask that do not belong together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the rows have {tokens} tokens in all, but the mask has {mask} entries")]
pub struct ShapeError {
    pub tokens: usize,
    pub mask: usize,
}

/// Some consecutive rows of a batch: a micro-batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    pub rows: Rows,
    /// Where its tokens are in the flat arrays of the whole.
    pub tokens: Range<usize>,
}

impl Rows {
    /// Rows of `lengths` tokens each; `mask` covers all tokens, row after row.
    ///
    /// # Errors
    /// If the lengths do not add up to the mask's.
    pub fn new(lengths: &[usize], mask: Vec<bool>) -> Result<Self, ShapeError> {
        let mut starts = Vec::with_capacity(lengths.len() + 1);
        let mut end = 0;
        starts.push(end);
        for length in lengths {
            end += length;
            starts.push(end);
        }
        if end != mask.len() {
            return Err(ShapeError { tokens: end, mask: mask.len() });
        }
        Ok(Self { starts, mask })
    }

    /// Rows whose tokens were all sampled by the policy: one call per row, without its prompt.
    pub fn dense(lengths: &[usize]) -> Self {
        let mask = vec![true; lengths.iter().sum()];
        Self::new(lengths, mask).expect("the mask is made from the lengths")
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.starts.len() - 1
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Length of the flat arrays, masked tokens included.
    pub fn tokens(&self) -> usize {
        self.mask.len()
    }

    /// Where row `row` is in the flat arrays.
    pub fn range(&self, row: usize) -> Range<usize> {
        self.starts[row]..self.starts[row + 1]
    }

    /// The ranges of all rows in order.
    pub fn ranges(&self) -> impl Iterator<Item = Range<usize>> + '_ {
        (0..self.len()).map(|row| self.range(row))
    }

    /// The mask, flat.
    pub fn mask(&self) -> &[bool] {
        &self.mask
    }

    /// Flat positions of the tokens inside the mask.
    pub fn active(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.tokens()).filter(|&t| self.mask[t])
    }

    /// Flat positions of row `row`'s tokens inside the mask.
    pub fn active_in(&self, row: usize) -> impl DoubleEndedIterator<Item = usize> + '_ {
        self.range(row).filter(|&t| self.mask[t])
    }

    /// Number of tokens inside the mask.
    pub fn active_tokens(&self) -> usize {
        self.mask.iter().filter(|&&m| m).count()
    }

    /// Number of tokens inside the mask by row.
    pub fn active_lengths(&self) -> Vec<usize> {
        (0..self.len()).map(|row| self.active_in(row).count()).collect()
    }

    /// The rows `rows` as a micro-batch.
    pub fn part(&self, rows: Range<usize>) -> Part {
        let tokens = self.starts[rows.start]..self.starts[rows.end];
        let starts =
            self.starts[rows.start..=rows.end].iter().map(|start| start - tokens.start).collect();
        Part { rows: Self { starts, mask: self.mask[tokens.clone()].to_vec() }, tokens }
    }

    /// Gives each token inside the mask its row's value, and 0 to the others.
    ///
    /// # Panics
    /// If there is not one value per row.
    pub fn spread(&self, per_row: &[f64]) -> Vec<f64> {
        assert_eq!(per_row.len(), self.len(), "one value per row");
        let mut per_token = vec![0.0; self.tokens()];
        for (row, &value) in per_row.iter().enumerate() {
            for t in self.active_in(row) {
                per_token[t] = value;
            }
        }
        per_token
    }

    /// Asserts that a flat array fits; the callers of this crate's functions see to it.
    pub(crate) fn assert_fits(&self, name: &str, array: &[f64]) {
        assert_eq!(array.len(), self.tokens(), "{name} must have one entry per token of the rows");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holed() -> Rows {
        Rows::new(&[3, 0, 2], vec![true, false, true, false, true]).unwrap()
    }

    #[test]
    fn lengths_and_mask_must_agree() {
        let error = Rows::new(&[2, 2], vec![true; 3]).unwrap_err();
        assert_eq!(error, ShapeError { tokens: 4, mask: 3 });
    }

    #[test]
    fn positions_are_flat_and_skip_holes() {
        let rows = holed();
        assert_eq!(rows.len(), 3);
        assert_eq!(rows.active().collect::<Vec<_>>(), [0, 2, 4]);
        assert_eq!(rows.active_in(2).collect::<Vec<_>>(), [4]);
        assert_eq!(rows.active_lengths(), [2, 0, 1]);
        assert_eq!(rows.spread(&[1.0, 9.0, 3.0]), [1.0, 0.0, 1.0, 0.0, 3.0]);
    }

    #[test]
    fn a_part_is_the_rows_themselves() {
        let part = holed().part(1..3);
        assert_eq!(part.tokens, 3..5);
        assert_eq!(part.rows, Rows::new(&[0, 2], vec![false, true]).unwrap());
    }
}
