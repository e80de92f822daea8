//! The families of a report, in order of first appearance.

use leyden_core::Family;

/// Largest difference that counts as agreement.
pub const TOLERANCE: f64 = 1e-9;

/// The families so far, in order of first appearance.
#[derive(Default)]
pub(crate) struct Families(Vec<Family>);

impl Families {
    /// The family called `name`, created if absent.
    pub fn named(&mut self, name: &str) -> &mut Family {
        let at = self.0.iter().position(|family| family.name == name).unwrap_or_else(|| {
            self.0.push(Family::numeric(name, TOLERANCE));
            self.0.len() - 1
        });
        &mut self.0[at]
    }

    pub fn into_all(self) -> Vec<Family> {
        self.0
    }
}
