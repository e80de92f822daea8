//! When two results are equal: as bags of rows, or as lists, under some order of columns.

use std::collections::{HashMap, HashSet};

use crate::database::{ResultSet, Value};

/// Orders of columns that are tried before two results count as different. Results of real
/// queries need a handful; only ones made for it need more.
const TRIES: usize = 100_000;

/// Whether two results are equal by the test-suite rule; `ordered` says that the order of
/// rows counts.
///
/// Two results without rows are equal whatever their columns.
pub fn same_result(gold: &ResultSet, predicted: &ResultSet, ordered: bool) -> bool {
    let (a, b) = (&gold.rows, &predicted.rows);
    if a.len() != b.len() {
        return false;
    }
    let Some(first) = a.first() else { return true };
    if b[0].len() != first.len() {
        return false;
    }
    let alike =
        |(a, b): (&Vec<Value>, &Vec<Value>)| a.iter().zip(b).all(|(a, b)| a.same_type_and_value(b));
    if a.iter().zip(b).all(alike) {
        return true;
    }
    if !same_sorted_cells(a, b, ordered) {
        return false;
    }
    if ordered { columns_pair_up(a, b) } else { Search::new(a, b).found() }
}

/// The evaluator's first test, which is more than a shortcut: rows with their cells sorted
/// by text must be equal, as lists or as sets. It refuses `(1, 10)` against `(1.0, 10)`,
/// whose cells sort differently though they are equal one by one.
fn same_sorted_cells(a: &[Vec<Value>], b: &[Vec<Value>], ordered: bool) -> bool {
    let sorted = |rows: &[Vec<Value>]| -> Vec<Vec<Value>> {
        rows.iter()
            .map(|row| {
                let mut row = row.clone();
                row.sort_by_cached_key(Value::sort_text);
                row
            })
            .collect()
    };
    let (a, b) = (sorted(a), sorted(b));
    if ordered {
        return a == b;
    }
    let (a, b): (HashSet<_>, HashSet<_>) = (a.into_iter().collect(), b.into_iter().collect());
    a == b
}

/// Whether each column of `a` has a column of `b` that is equal row by row. Equality is
/// transitive, so taking the first free one is enough.
fn columns_pair_up(a: &[Vec<Value>], b: &[Vec<Value>]) -> bool {
    let width = a[0].len();
    let mut free: Vec<usize> = (0..width).collect();
    (0..width).all(|i| {
        let equal = |j: &usize| a.iter().zip(b).all(|(a, b)| a[i] == b[*j]);
        let place = free.iter().position(equal);
        place.map(|place| free.swap_remove(place)).is_some()
    })
}

/// Looks for an order of columns under which two bags of rows are equal: column by column,
/// keeping rows that agree so far in numbered classes, and going back where the classes of
/// both sides differ in size.
struct Search<'a> {
    a: &'a [Vec<Value>],
    b: &'a [Vec<Value>],
    tries: usize,
}

impl<'a> Search<'a> {
    fn new(a: &'a [Vec<Value>], b: &'a [Vec<Value>]) -> Self {
        Self { a, b, tries: TRIES }
    }

    fn found(mut self) -> bool {
        let free: Vec<usize> = (0..self.a[0].len()).collect();
        let (a, b) = (vec![0; self.a.len()], vec![0; self.b.len()]);
        self.extend(0, &free, &a, &b)
    }

    /// `classes_a` and `classes_b` number the rows by their first `column` cells.
    fn extend(
        &mut self,
        column: usize,
        free: &[usize],
        classes_a: &[usize],
        classes_b: &[usize],
    ) -> bool {
        if free.is_empty() {
            return true;
        }
        let mut failed: Vec<usize> = Vec::new();
        for &candidate in free {
            // A column equal to one that failed here fails here too.
            let equal = |&other: &usize| self.b.iter().all(|row| row[other] == row[candidate]);
            if failed.iter().any(equal) {
                continue;
            }
            if self.tries == 0 {
                return false;
            }
            self.tries -= 1;
            if let Some((a, b)) = self.refine(column, candidate, classes_a, classes_b) {
                let rest: Vec<usize> = free.iter().copied().filter(|c| *c != candidate).collect();
                if self.extend(column + 1, &rest, &a, &b) {
                    return true;
                }
            }
            failed.push(candidate);
        }
        false
    }

    /// Classes after one more column, if both sides still have them in equal sizes.
    fn refine(
        &self,
        column: usize,
        candidate: usize,
        classes_a: &[usize],
        classes_b: &[usize],
    ) -> Option<(Vec<usize>, Vec<usize>)> {
        // By class and cell: the new class and how many more rows of `a` it has than of `b`.
        let mut numbers: HashMap<(usize, &Value), (usize, usize)> = HashMap::new();
        let mut a = Vec::with_capacity(classes_a.len());
        for (class, row) in classes_a.iter().zip(self.a) {
            let next = numbers.len();
            let entry = numbers.entry((*class, &row[column])).or_insert((next, 0));
            entry.1 += 1;
            a.push(entry.0);
        }
        let mut b = Vec::with_capacity(classes_b.len());
        for (class, row) in classes_b.iter().zip(self.b) {
            let entry = numbers.get_mut(&(*class, &row[candidate])).filter(|e| e.1 > 0)?;
            entry.1 -= 1;
            b.push(entry.0);
        }
        Some((a, b))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn result(rows: &[&[i64]]) -> ResultSet {
        let rows = rows.iter().map(|row| row.iter().map(|v| Value::Integer(*v)).collect());
        ResultSet { columns: Vec::new(), rows: rows.collect() }
    }

    #[test]
    fn rows_are_a_bag_unless_their_order_counts() {
        let (a, b) = (result(&[&[1], &[2], &[2]]), result(&[&[2], &[1], &[2]]));
        assert!(same_result(&a, &b, false));
        assert!(!same_result(&a, &b, true));
        assert!(!same_result(&a, &result(&[&[1], &[1], &[2]]), false));
        assert!(!same_result(&a, &result(&[&[1], &[2]]), false));
    }

    #[test]
    fn columns_may_stand_in_any_order() {
        let a = result(&[&[1, 2, 3], &[4, 5, 6]]);
        let b = result(&[&[3, 1, 2], &[6, 4, 5]]);
        assert!(same_result(&a, &b, true));
        assert!(same_result(&a, &b, false));
        // Each row is a permutation, but not by the same order of columns.
        let c = result(&[&[3, 1, 2], &[4, 5, 6]]);
        assert!(!same_result(&a, &c, false));
        assert!(!same_result(&a, &c, true));
        assert!(!same_result(&a, &result(&[&[1, 2], &[4, 5]]), false));
    }

    #[test]
    fn results_without_rows_are_equal() {
        let wide = ResultSet { columns: vec!["a".into(), "b".into()], rows: Vec::new() };
        assert!(same_result(&wide, &ResultSet::default(), true));
    }

    #[test]
    fn integers_equal_reals_but_cells_sort_by_their_text() {
        let row = |cells: &[Value]| ResultSet { columns: vec![], rows: vec![cells.to_vec()] };
        let (one, two) = (Value::Integer(1), Value::Integer(2));
        assert!(same_result(&row(std::slice::from_ref(&one)), &row(&[Value::Real(1.0)]), false));
        let real = row(&[Value::Real(1.0), two.clone()]);
        assert!(same_result(&row(&[one.clone(), two]), &real, false));
        let ten = Value::Integer(10);
        let real = row(&[Value::Real(1.0), ten.clone()]);
        assert!(!same_result(&row(&[one, ten]), &real, false));
    }

    #[test]
    fn many_equal_columns_are_no_trouble() {
        let wide = vec![7i64; 40];
        let mut other = wide.clone();
        other[39] = 8;
        let rows: Vec<&[i64]> = vec![&wide; 3];
        assert!(same_result(&result(&rows), &result(&rows), false));
        let mut changed = rows.clone();
        changed[1] = &other;
        assert!(!same_result(&result(&rows), &result(&changed), false));
    }

    proptest! {
        /// Any order of rows and columns leaves a result equal to itself.
        #[test]
        fn shuffled_results_are_equal(
            rows in prop::collection::vec(prop::collection::vec(0i64..3, 4), 1..12),
            columns in Just(vec![0usize, 1, 2, 3]).prop_shuffle(),
            turn in 0usize..12,
        ) {
            let plain: Vec<&[i64]> = rows.iter().map(Vec::as_slice).collect();
            let moved: Vec<Vec<i64>> =
                rows.iter().map(|row| columns.iter().map(|c| row[*c]).collect()).collect();
            let mut moved: Vec<&[i64]> = moved.iter().map(Vec::as_slice).collect();
            prop_assert!(same_result(&result(&plain), &result(&moved), true));
            let turn = turn % moved.len();
            moved.rotate_left(turn);
            prop_assert!(same_result(&result(&plain), &result(&moved), false));
        }
    }
}
