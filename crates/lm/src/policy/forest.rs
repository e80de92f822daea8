//! A batch as a forest of prefixes.
//!
//! The rollouts of a task share their prompt and the calls of a rollout share their history, so a
//! batch with one row per model call repeats most of its tokens. Here the rows of a group become a
//! trie, and each trie is laid out depth first as one packed sequence: a shared prefix is computed
//! once and its gradient is the sum over the rows that share it, equal to the result of one row per
//! call. Bookkeeping only, no tensors.
//!
//! Rows are sorted first. In lexicographic order each row continues the previous one from their
//! common prefix on, so the depth-first layout is built in one pass without a pointer-based trie.

use std::collections::HashMap;
use std::ops::Range;

/// One row: the token ids of a model call and which of them the model generated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    pub ids: Vec<u32>,
    /// Positions of the generated (or, for supervised data, target) tokens: ascending, disjoint
    /// ranges. Position 0 cannot be among them, since no token predicts it.
    pub actions: Vec<Range<usize>>,
}

impl Row {
    /// A call: the response follows the prompt, and all of the response is action.
    pub fn call(prompt: &[u32], response: &[u32]) -> Self {
        let ids = [prompt, response].concat();
        let actions = prompt.len()..ids.len();
        Self { ids, actions: if actions.is_empty() { Vec::new() } else { vec![actions] } }
    }

    /// Number of action tokens.
    pub fn action_tokens(&self) -> usize {
        self.actions.iter().map(Range::len).sum()
    }
}

/// Rows that cannot be packed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ForestError {
    #[error("row {row} has no tokens")]
    Empty { row: usize },
    #[error("row {row}: its first token is marked as an action, but nothing predicts it")]
    FirstToken { row: usize },
    #[error(
        "row {row}: actions {start}..{end} are out of order or reach beyond its {length} tokens"
    )]
    Actions { row: usize, start: usize, end: usize, length: usize },
    #[error("there are {rows} rows but {groups} group numbers")]
    Groups { rows: usize, groups: usize },
    #[error("the token budget is 0")]
    Budget,
}

/// A token whose log-probability is computed once for all rows that share it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Action {
    /// Its node.
    pub node: usize,
    /// The node whose hidden state predicts it.
    pub parent: usize,
}

/// Location of one input row in a pack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackedRow {
    /// Index among the rows passed to [`pack`].
    pub row: usize,
    /// Its last node; the row is the path from the root to it.
    pub leaf: usize,
    /// For each of its action tokens in order, the index into [`Pack::actions`].
    pub actions: Vec<usize>,
}

/// One micro-batch: several trees, each depth first, concatenated.
///
/// All node indices are relative to the start of the pack.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pack {
    /// Token of each node.
    pub ids: Vec<u32>,
    /// Depth of each node: its position in every row through it.
    pub positions: Vec<usize>,
    /// Parent of each node; `None` for a root.
    pub parents: Vec<Option<usize>>,
    /// First node after each node's subtree: node j is i or an ancestor of i iff `j ≤ i < ends[j]`.
    pub ends: Vec<usize>,
    /// The trees.
    pub trees: Vec<Range<usize>>,
    /// Unique action tokens, ascending by node.
    pub actions: Vec<Action>,
    pub rows: Vec<PackedRow>,
}

impl Pack {
    /// Number of nodes: tokens that the trunk computes.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// Whether `ancestor` is `node` or one of its ancestors.
    pub fn sees(&self, node: usize, ancestor: usize) -> bool {
        ancestor <= node && node < self.ends[ancestor]
    }

    /// Whether a tree is a single chain, that is, one row or repetitions of it.
    pub fn is_chain(&self, tree: &Range<usize>) -> bool {
        tree.clone().all(|node| self.ends[node] == tree.end)
    }

    /// Values of unique actions → per row in the order of [`Pack::rows`], one value per
    /// action token.
    pub fn gather(&self, per_action: &[f64]) -> Vec<Vec<f64>> {
        self.rows.iter().map(|r| r.actions.iter().map(|&a| per_action[a]).collect()).collect()
    }

    /// Values per row and action token → sums per unique action: the transpose of [`Pack::gather`],
    /// and therefore its gradient.
    pub fn scatter(&self, per_row: &[Vec<f64>]) -> Vec<f64> {
        let mut sums = vec![0.0; self.actions.len()];
        for (row, values) in self.rows.iter().zip(per_row) {
            for (&action, value) in row.actions.iter().zip(values) {
                sums[action] += value;
            }
        }
        sums
    }

    fn append(&mut self, tree: Pack) {
        let (nodes, actions) = (self.len(), self.actions.len());
        self.ids.extend(tree.ids);
        self.positions.extend(tree.positions);
        self.parents.extend(tree.parents.into_iter().map(|p| p.map(|p| p + nodes)));
        self.ends.extend(tree.ends.into_iter().map(|e| e + nodes));
        self.trees.extend(tree.trees.into_iter().map(|t| t.start + nodes..t.end + nodes));
        self.actions.extend(
            tree.actions
                .into_iter()
                .map(|a| Action { node: a.node + nodes, parent: a.parent + nodes }),
        );
        self.rows.extend(tree.rows.into_iter().map(|r| PackedRow {
            row: r.row,
            leaf: r.leaf + nodes,
            actions: r.actions.into_iter().map(|a| a + actions).collect(),
        }));
    }
}

/// Packs `rows` into micro-batches of at most `token_budget` unique tokens each.
///
/// Rows with equal numbers in `groups` share a trie. A trie beyond the budget is split between rows
/// into several; a single row beyond it gets its own pack. The result depends only on the
/// arguments.
///
/// # Errors
/// A row without tokens, an action outside its row or without a predecessor, different numbers of
/// rows and groups, a budget of 0.
pub fn pack(rows: &[Row], groups: &[usize], token_budget: usize) -> Result<Vec<Pack>, ForestError> {
    if rows.len() != groups.len() {
        return Err(ForestError::Groups { rows: rows.len(), groups: groups.len() });
    }
    if token_budget == 0 {
        return Err(ForestError::Budget);
    }
    for (index, row) in rows.iter().enumerate() {
        check(index, row)?;
    }
    let mut packs: Vec<Pack> = Vec::new();
    for mut members in members_by_group(groups) {
        members.sort_by(|&a, &b| rows[a].ids.cmp(&rows[b].ids).then(a.cmp(&b)));
        for members in split(rows, &members, token_budget) {
            let tree = lay_out(rows, members);
            match packs.last_mut() {
                Some(last) if last.len() + tree.len() <= token_budget => last.append(tree),
                _ => packs.push(tree),
            }
        }
    }
    Ok(packs)
}

fn check(index: usize, row: &Row) -> Result<(), ForestError> {
    if row.ids.is_empty() {
        return Err(ForestError::Empty { row: index });
    }
    let mut end = 0;
    for range in &row.actions {
        if range.start < end || range.end < range.start || range.end > row.ids.len() {
            return Err(ForestError::Actions {
                row: index,
                start: range.start,
                end: range.end,
                length: row.ids.len(),
            });
        }
        if range.start == 0 && !range.is_empty() {
            return Err(ForestError::FirstToken { row: index });
        }
        end = range.end;
    }
    Ok(())
}

/// Row numbers by group, groups in the order of their first row.
fn members_by_group(groups: &[usize]) -> Vec<Vec<usize>> {
    let mut place = HashMap::new();
    let mut members: Vec<Vec<usize>> = Vec::new();
    for (row, group) in groups.iter().enumerate() {
        let at = *place.entry(group).or_insert_with(|| {
            members.push(Vec::new());
            members.len() - 1
        });
        members[at].push(row);
    }
    members
}

/// Splits sorted rows so that the trie of each part has at most `budget` nodes, unless a single row
/// exceeds it.
fn split<'a>(rows: &[Row], sorted: &'a [usize], budget: usize) -> Vec<&'a [usize]> {
    let mut parts = Vec::new();
    let (mut start, mut nodes) = (0, 0);
    for (i, &row) in sorted.iter().enumerate() {
        let ids = &rows[row].ids;
        let shared = if i == start { 0 } else { common_prefix(&rows[sorted[i - 1]].ids, ids) };
        let added = ids.len() - shared;
        if i > start && nodes + added > budget {
            parts.push(&sorted[start..i]);
            (start, nodes) = (i, ids.len());
        } else {
            nodes += added;
        }
    }
    if start < sorted.len() {
        parts.push(&sorted[start..]);
    }
    parts
}

/// Builds one pack. Rows that differ in their first token give several roots, each a separate tree.
fn lay_out(rows: &[Row], sorted: &[usize]) -> Pack {
    let mut pack = Pack::default();
    // Nodes of the previous row, by position: the current path.
    let mut path: Vec<usize> = Vec::new();
    let mut paths: Vec<Vec<usize>> = Vec::new();
    for (i, &row) in sorted.iter().enumerate() {
        let ids = &rows[row].ids;
        let shared = if i == 0 { 0 } else { common_prefix(&rows[sorted[i - 1]].ids, ids) };
        close(&mut pack, &mut path, shared);
        for &id in &ids[shared..] {
            let node = pack.len();
            pack.ids.push(id);
            pack.positions.push(path.len());
            pack.parents.push(path.last().copied());
            pack.ends.push(0);
            path.push(node);
        }
        let nodes = rows[row].actions.iter().cloned().flatten().map(|at| path[at]).collect();
        paths.push(nodes);
        pack.rows.push(PackedRow { row, leaf: path[ids.len() - 1], actions: Vec::new() });
    }
    close(&mut pack, &mut path, 0);
    number_actions(&mut pack, paths);
    pack
}

/// Shortens `path` to `depth`: the subtrees of the removed nodes are complete.
fn close(pack: &mut Pack, path: &mut Vec<usize>, depth: usize) {
    let end = pack.len();
    for &node in &path[depth..] {
        pack.ends[node] = end;
    }
    if depth == 0
        && let Some(&root) = path.first()
    {
        pack.trees.push(root..end);
    }
    path.truncate(depth);
}

/// Converts the action nodes of each row to indices among the unique ones.
fn number_actions(pack: &mut Pack, nodes_by_row: Vec<Vec<usize>>) {
    let mut index = vec![None; pack.len()];
    for &node in nodes_by_row.iter().flatten() {
        index[node] = Some(0);
    }
    for (node, slot) in index.iter_mut().enumerate() {
        if slot.is_some() {
            let parent = pack.parents[node].expect("a root is no action: checked on entry");
            *slot = Some(pack.actions.len());
            pack.actions.push(Action { node, parent });
        }
    }
    for (row, nodes) in pack.rows.iter_mut().zip(nodes_by_row) {
        row.actions = nodes.into_iter().filter_map(|node| index[node]).collect();
    }
}

fn common_prefix(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
#[path = "forest_tests.rs"]
mod tests;
