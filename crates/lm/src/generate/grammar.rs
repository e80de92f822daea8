//! Grammars of `leyden-text` as constraints of the engine.

use leyden_text::Grammar;

use crate::generate::request::Constraint;

impl Constraint for Grammar {
    fn allowed(&mut self) -> Result<&[u32], String> {
        Grammar::allowed(self).map_err(|error| error.to_string())
    }

    fn accept(&mut self, id: u32) -> Result<(), String> {
        Grammar::accept(self, id).map_err(|error| error.to_string())
    }

    fn ended(&self) -> bool {
        Grammar::ended(self)
    }
}
