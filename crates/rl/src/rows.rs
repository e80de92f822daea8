//! The shape of a batch: ragged rows with a mask.
//!
//! A row is one training sequence. All per-token arrays of a batch are flat, row after row; the
//! mask marks the tokens that the policy sampled. A mask may have gaps: if the calls of a
//! trajectory are merged into one row, the tool results between them are masked. A padded matrix is
//! the case of equal lengths.

use std::mem::MaybeUninit;
use std::ops::Range;

use rayon::prelude::*;

/// Minimum number of tokens per parallel task.
const PIECE_TOKENS: usize = 1 << 15;

/// Lengths and mask of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rows {
    /// Start of each row in the flat arrays, followed by their total length: `len() + 1` numbers.
    starts: Vec<usize>,
    mask: Vec<bool>,
    /// Cached number of tokens inside the mask by row.
    active_lengths: Vec<usize>,
}

/// Lengths and mask that do not match.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the rows have {tokens} tokens in all, but the mask has {mask} entries")]
pub struct ShapeError {
    pub tokens: usize,
    pub mask: usize,
}

/// Consecutive rows of a batch: a micro-batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    pub rows: Rows,
    /// The range of its tokens in the batch's flat arrays.
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
        let active = |row: &[usize]| mask[row[0]..row[1]].iter().filter(|&&m| m).count();
        let active_lengths = starts.windows(2).map(active).collect();
        Ok(Self { starts, mask, active_lengths })
    }

    /// Rows whose tokens were all sampled by the policy: one call per row, without the prompt.
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

    /// The range of row `row` in the flat arrays.
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

    /// Row `row`'s runs of consecutive tokens inside the mask.
    pub(crate) fn runs_in(&self, row: usize) -> impl Iterator<Item = Range<usize>> + '_ {
        let range = self.range(row);
        let mut at = range.start;
        std::iter::from_fn(move || {
            let rest = &self.mask[at..range.end];
            let start = at + rest.iter().position(|&active| active)?;
            let run = &self.mask[start..range.end];
            let length = run.iter().position(|&active| !active).unwrap_or(run.len());
            at = start + length;
            Some(start..at)
        })
    }

    /// Number of tokens inside the mask.
    pub fn active_tokens(&self) -> usize {
        self.active_lengths.iter().sum()
    }

    /// Number of row `row`'s tokens inside the mask.
    pub fn active_length(&self, row: usize) -> usize {
        self.active_lengths[row]
    }

    /// Number of tokens inside the mask by row.
    pub fn active_lengths(&self) -> &[usize] {
        &self.active_lengths
    }

    /// The rows `rows` as a micro-batch.
    pub fn part(&self, rows: Range<usize>) -> Part {
        let tokens = self.starts[rows.start]..self.starts[rows.end];
        let starts =
            self.starts[rows.start..=rows.end].iter().map(|start| start - tokens.start).collect();
        let mask = self.mask[tokens.clone()].to_vec();
        let active_lengths = self.active_lengths[rows].to_vec();
        Part { rows: Self { starts, mask, active_lengths }, tokens }
    }

    /// Broadcasts per-row values to the tokens inside the mask; 0 for the others.
    ///
    /// # Panics
    /// If there is not one value per row.
    pub fn spread(&self, per_row: &[f64]) -> Vec<f64> {
        assert_eq!(per_row.len(), self.len(), "one value per row");
        let (per_token, _) = self.make_in_pieces(|rows, piece| {
            let first = self.starts[rows.start];
            for row in rows {
                let range = self.range(row);
                let entries = &mut piece[range.start - first..range.end - first];
                for (entry, &active) in entries.iter_mut().zip(&self.mask[range]) {
                    *entry = if active { per_row[row] } else { 0.0 };
                }
            }
        });
        per_token
    }

    /// Builds a flat array: calls `work` in parallel with consecutive ranges of rows and their
    /// zeroed entries; returns its results in row order. The split depends only on the rows'
    /// lengths, so sums over the results are the same on any number of cores.
    ///
    /// Each piece is zeroed by the thread that fills it, while it is in that core's cache: batches
    /// exceed the caches, and a separate pass over memory would cost as much as the work.
    pub(crate) fn make_in_pieces<R: Send>(
        &self,
        work: impl Fn(Range<usize>, &mut [f64]) -> R + Sync,
    ) -> (Vec<f64>, Vec<R>) {
        let mut array = Vec::with_capacity(self.tokens());
        let mut pieces = Vec::new();
        let mut rest = &mut array.spare_capacity_mut()[..self.tokens()];
        let mut first = 0;
        for row in 0..self.len() {
            let tokens = self.starts[row + 1] - self.starts[first];
            if tokens >= PIECE_TOKENS || row + 1 == self.len() {
                let (piece, others) = rest.split_at_mut(tokens);
                pieces.push((first..row + 1, piece));
                (rest, first) = (others, row + 1);
            }
        }
        let work = |(rows, piece)| work(rows, zeroed(piece));
        let results = match pieces.len() {
            0 | 1 => pieces.into_iter().map(work).collect(),
            _ => pieces.into_par_iter().map(work).collect(),
        };
        // SAFETY: the pieces cover these entries, and `zeroed` initialised each of them.
        unsafe { array.set_len(self.tokens()) };
        (array, results)
    }

    /// Asserts that a flat array has one entry per token; callers of this crate guarantee it.
    pub(crate) fn assert_fits(&self, name: &str, array: &[f64]) {
        assert_eq!(array.len(), self.tokens(), "{name} must have one entry per token of the rows");
    }
}

fn zeroed(piece: &mut [MaybeUninit<f64>]) -> &mut [f64] {
    piece.fill(MaybeUninit::new(0.0));
    // SAFETY: the line above initialised every entry, and the layouts are the same.
    unsafe { &mut *(std::ptr::from_mut(piece) as *mut [f64]) }
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
    fn positions_are_flat_and_skip_masked_tokens() {
        let rows = holed();
        assert_eq!(rows.len(), 3);
        assert_eq!(rows.active().collect::<Vec<_>>(), [0, 2, 4]);
        assert_eq!(rows.active_in(2).collect::<Vec<_>>(), [4]);
        assert_eq!(rows.active_lengths(), [2, 0, 1]);
        let runs = Rows::new(&[1, 6], [0, 1, 1, 0, 0, 1, 1].map(|m| m == 1).to_vec()).unwrap();
        assert_eq!(runs.runs_in(0).count(), 0);
        assert_eq!(runs.runs_in(1).collect::<Vec<_>>(), [1..3, 5..7]);
        assert_eq!(rows.spread(&[1.0, 9.0, 3.0]), [1.0, 0.0, 1.0, 0.0, 3.0]);
    }

    #[test]
    fn pieces_cover_the_rows_in_order() {
        let lengths: Vec<usize> = (0..40).map(|row| (row * 977) % 9000).collect();
        let rows = Rows::dense(&lengths);
        let (array, pieces) = rows.make_in_pieces(|rows, piece| {
            assert!(piece.iter().all(|&x| x == 0.0));
            piece.fill(1.0);
            (rows, piece.len())
        });
        assert_eq!(array.len(), rows.tokens());
        assert!(pieces.len() > 2, "{pieces:?}");
        let covered: Vec<usize> = pieces.iter().flat_map(|(rows, _)| rows.clone()).collect();
        assert_eq!(covered, (0..40).collect::<Vec<_>>());
        assert!(array.iter().all(|&x| x == 1.0));
        let counted = |rows: &Range<usize>| lengths[rows.clone()].iter().sum::<usize>();
        assert!(pieces.iter().all(|(rows, tokens)| counted(rows) == *tokens));
        assert_eq!(Rows::dense(&[]).make_in_pieces(|_, _| ()), (vec![], vec![]));
    }

    #[test]
    fn a_part_has_the_rows_of_its_range() {
        let part = holed().part(1..3);
        assert_eq!(part.tokens, 3..5);
        assert_eq!(part.rows, Rows::new(&[0, 2], vec![false, true]).unwrap());
    }
}
