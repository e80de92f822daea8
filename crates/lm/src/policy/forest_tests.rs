//! Properties of packing, each against the plain definition.

use std::ops::Range;

use proptest::prelude::*;

use crate::policy::forest::{ForestError, Pack, Row, pack};

fn path(pack: &Pack, leaf: usize) -> Vec<usize> {
    let mut nodes = vec![leaf];
    while let Some(parent) = pack.parents[nodes[nodes.len() - 1]] {
        nodes.push(parent);
    }
    nodes.reverse();
    nodes
}

/// Rows over a small alphabet, so that prefixes are shared often; every token after the first may
/// be an action.
fn rows() -> impl Strategy<Value = Vec<(Row, usize)>> {
    let row = (prop::collection::vec((0u32..3, any::<bool>()), 1..9), 0usize..3).prop_map(
        |(tokens, group)| {
            let ids = tokens.iter().map(|(id, _)| *id).collect();
            let actions = (1..tokens.len()).filter(|&i| tokens[i].1).map(|i| i..i + 1).collect();
            (Row { ids, actions }, group)
        },
    );
    prop::collection::vec(row, 0..14)
}

fn check_rows(pack: &Pack, rows: &[Row]) -> Result<(), TestCaseError> {
    for packed in &pack.rows {
        let row = &rows[packed.row];
        let path = path(pack, packed.leaf);
        let spelled: Vec<u32> = path.iter().map(|&node| pack.ids[node]).collect();
        prop_assert_eq!(&spelled, &row.ids);
        for (depth, &node) in path.iter().enumerate() {
            prop_assert_eq!(pack.positions[node], depth);
        }
        let nodes: Vec<usize> = packed.actions.iter().map(|&a| pack.actions[a].node).collect();
        let expected: Vec<usize> =
            row.actions.iter().cloned().flatten().map(|at| path[at]).collect();
        prop_assert_eq!(nodes, expected);
    }
    Ok(())
}

proptest! {
    #[test]
    fn every_row_is_a_path_and_every_action_is_found(rows in rows(), budget in 1usize..40) {
        let (rows, groups): (Vec<Row>, Vec<usize>) = rows.into_iter().unzip();
        let packs = pack(&rows, &groups, budget).unwrap();
        let mut seen: Vec<usize> = packs.iter().flat_map(|p| &p.rows).map(|r| r.row).collect();
        seen.sort_unstable();
        prop_assert_eq!(seen, (0..rows.len()).collect::<Vec<_>>());
        for pack in &packs {
            prop_assert!(pack.len() <= budget || pack.rows.len() == 1);
            let tokens: usize = pack.rows.iter().map(|r| rows[r.row].ids.len()).sum();
            prop_assert!(pack.len() <= tokens);
            check_rows(pack, &rows)?;
        }
        prop_assert_eq!(&packs, &crate::policy::forest::pack(&rows, &groups, budget).unwrap());
    }

    #[test]
    fn intervals_encode_ancestry(rows in rows(), budget in 1usize..60) {
        let (rows, groups): (Vec<Row>, Vec<usize>) = rows.into_iter().unzip();
        for pack in pack(&rows, &groups, budget).unwrap() {
            for node in 0..pack.len() {
                let ancestors = path(&pack, node);
                for other in 0..pack.len() {
                    prop_assert_eq!(pack.sees(node, other), ancestors.contains(&other));
                }
            }
            let covered: Vec<usize> = pack.trees.iter().cloned().flatten().collect();
            prop_assert_eq!(covered, (0..pack.len()).collect::<Vec<_>>());
            for tree in &pack.trees {
                prop_assert_eq!(pack.parents[tree.start], None);
                prop_assert_eq!(pack.ends[tree.start], tree.end);
                let leaves = tree.clone().filter(|&n| pack.ends[n] == n + 1).count();
                prop_assert_eq!(pack.is_chain(tree), leaves == 1);
            }
        }
    }

    #[test]
    fn no_token_is_computed_twice_without_a_budget(rows in rows()) {
        let (rows, groups): (Vec<Row>, Vec<usize>) = rows.into_iter().unzip();
        let mut prefixes = std::collections::HashSet::new();
        for (row, group) in rows.iter().zip(&groups) {
            prefixes.extend((1..=row.ids.len()).map(|n| (*group, row.ids[..n].to_vec())));
        }
        let packs = pack(&rows, &groups, usize::MAX).unwrap();
        prop_assert_eq!(packs.iter().map(Pack::len).sum::<usize>(), prefixes.len());
    }

    #[test]
    fn scatter_is_the_transpose_of_gather(rows in rows(), seed in any::<u32>()) {
        let (rows, groups): (Vec<Row>, Vec<usize>) = rows.into_iter().unzip();
        let value = |i: usize| f64::from((seed ^ (i as u32).wrapping_mul(2_654_435_761)) % 97);
        for pack in pack(&rows, &groups, 30).unwrap() {
            let x: Vec<f64> = (0..pack.actions.len()).map(value).collect();
            let y: Vec<Vec<f64>> = pack
                .rows
                .iter()
                .map(|r| (0..r.actions.len()).map(|i| value(i + 31 * r.row)).collect())
                .collect();
            let gathered = pack.gather(&x);
            let left: f64 = gathered.iter().flatten().zip(y.iter().flatten()).map(|(a, b)| a * b).sum();
            let right: f64 = x.iter().zip(pack.scatter(&y)).map(|(a, b)| a * b).sum();
            prop_assert_eq!(left, right);
        }
    }
}

#[test]
fn a_token_that_is_action_here_and_prompt_there_is_one_node() {
    // The second call of a rollout: its prompt contains the first call's response.
    let rows = [Row::call(&[7, 8], &[1, 2]), Row::call(&[7, 8, 1, 2, 9], &[3])];
    let packs = pack(&rows, &[0, 0], 100).unwrap();
    assert_eq!(packs.len(), 1);
    let pack = &packs[0];
    assert_eq!(pack.ids, [7, 8, 1, 2, 9, 3]);
    let actions: Vec<_> = pack.actions.iter().map(|a| (a.node, a.parent)).collect();
    assert_eq!(actions, [(2, 1), (3, 2), (5, 4)]);
    assert_eq!(pack.rows[0].actions, [0, 1]);
    assert_eq!(pack.rows[1].actions, [2]);
}

#[test]
fn invalid_rows_are_reported() {
    let row = |ids: &[u32], actions: &[Range<usize>]| Row {
        ids: ids.to_vec(),
        actions: actions.to_vec(),
    };
    let good = Row::call(&[1], &[2]);
    let error = |bad| pack(&[good.clone(), bad], &[0, 0], 9).unwrap_err();
    assert_eq!(error(row(&[], &[])), ForestError::Empty { row: 1 });
    assert_eq!(error(row(&[1], &[0..1, 1..1])), ForestError::FirstToken { row: 1 });
    for actions in [&[1..4, 4..4], &[2..3, 1..2]] {
        assert!(matches!(error(row(&[1, 2, 3], actions)), ForestError::Actions { row: 1, .. }));
    }
    assert_eq!(
        pack(std::slice::from_ref(&good), &[], 9).unwrap_err(),
        ForestError::Groups { rows: 1, groups: 0 }
    );
    assert_eq!(pack(&[good], &[0], 0).unwrap_err(), ForestError::Budget);
}
