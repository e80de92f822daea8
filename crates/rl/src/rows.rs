//! The shape of a batch: ragged rows with a mask.
//!
//! A row is one training sequence. All per-token arrays of a batch are flat, row after row;
//! the mask says which of the tokens the policy sampled. A mask may have holes: where the
//! calls of an episode are merged into one row, the tool results between them are not
//! the policy's. A padded matrix is the case of equal lengths.

use std::ops::Range;

use rayon::prelude::*;

/// Fewest tokens that are worth another thread's attention.
const PIECE_TOKENS: usize = 1 << 15;

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

    /// Number of row `row`'s tokens inside the mask.
    pub fn active_length(&self, row: usize) -> usize {
        self.mask[self.range(row)].iter().filter(|&&m| m).count()
    }

    /// Number of tokens inside the mask by row.
    pub fn active_lengths(&self) -> Vec<usize> {
        (0..self.len()).map(|row| self.active_length(row)).collect()
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
        self.in_pieces(&mut per_token, |rows, piece| {
            let first = self.starts[rows.start];
            for row in rows {
                for t in self.active_in(row) {
                    piece[t - first] = per_row[row];
                }
            }
        });
        per_token
    }

    /// Calls `work` with consecutive ranges of rows and the entries of a flat array that
    /// belong to them, on all cores; what it returns is in the order of the rows. Where the
    /// rows are cut depends on their lengths alone, so sums over the results are the same on
    /// any number of cores.
    pub(crate) fn in_pieces<R: Send>(
        &self,
        array: &mut [f64],
        work: impl Fn(Range<usize>, &mut [f64]) -> R + Sync,
    ) -> Vec<R> {
        let mut pieces = Vec::new();
        let mut rest = array;
        let mut first = 0;
        for row in 0..self.len() {
            let tokens = self.starts[row + 1] - self.starts[first];
            if tokens >= PIECE_TOKENS || row + 1 == self.len() {
                let (piece, others) = rest.split_at_mut(tokens);
                pieces.push((first..row + 1, piece));
                (rest, first) = (others, row + 1);
            }
        }
        if let [_] = pieces[..] {
            return pieces.into_iter().map(|(rows, piece)| work(rows, piece)).collect();
        }
        pieces.into_par_iter().map(|(rows, piece)| work(rows, piece)).collect()
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
    fn pieces_cover_the_rows_in_order() {
        let lengths: Vec<usize> = (0..40).map(|row| (row * 977) % 9000).collect();
        let rows = Rows::dense(&lengths);
        let mut array = vec![0.0; rows.tokens()];
        let pieces = rows.in_pieces(&mut array, |rows, piece| {
            piece.fill(1.0);
            (rows, piece.len())
        });
        assert!(pieces.len() > 2, "{pieces:?}");
        let covered: Vec<usize> = pieces.iter().flat_map(|(rows, _)| rows.clone()).collect();
        assert_eq!(covered, (0..40).collect::<Vec<_>>());
        assert!(array.iter().all(|&x| x == 1.0));
        let counted = |rows: &Range<usize>| lengths[rows.clone()].iter().sum::<usize>();
        assert!(pieces.iter().all(|(rows, tokens)| counted(rows) == *tokens));
        assert!(Rows::dense(&[]).in_pieces(&mut [], |_, _| ()).is_empty());
    }

    #[test]
    fn a_part_is_the_rows_themselves() {
        let part = holed().part(1..3);
        assert_eq!(part.tokens, 3..5);
        assert_eq!(part.rows, Rows::new(&[0, 2], vec![false, true]).unwrap());
    }
}
