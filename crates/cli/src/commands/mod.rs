//! One module a command.

pub mod compare;
pub mod data;
pub mod doctor;
pub mod eval;
pub mod model;
pub mod report;
pub mod run;
pub mod score;
pub mod sweep;
pub mod verify;
