//! Calc-X: arithmetic word problems with a calculator.

pub mod calculator;
pub mod scorer;
