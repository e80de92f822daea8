//! Tokens of several sequences, concatenated without padding.

/// Token ids and their positions, packed.
#[derive(Default)]
pub(super) struct Packed {
    pub ids: Vec<i64>,
    pub positions: Vec<i64>,
}

impl Packed {
    /// Adds a token; returns its index.
    pub fn push(&mut self, id: u32, position: usize) -> usize {
        self.ids.push(i64::from(id));
        self.positions.push(position as i64);
        self.ids.len() - 1
    }
}
