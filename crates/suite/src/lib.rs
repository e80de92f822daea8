//! The benchmarks: tasks, agents and scorers as the trainer and the command line use them.

pub mod external;
