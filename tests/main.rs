//! Tests of the `leyden` command, in one test program: building and linking one takes a fraction
//! of the time of one per file.

mod common;

// End to end.
mod credit;
mod paper;
mod quickstart;
mod sweep;

// Killed, without space, without the right to write, twice in one folder.
mod faults;
mod interruptions;
mod kills;

// Invalid input.
mod bad_input;
mod corpus;

// Data, scores and results of reference implementations.
mod data;
mod golden;
mod own_tasks;
mod rollouts;
mod score;

// Agents in separate processes, their server, the live page.
mod external;
mod external_faults;
mod live;
mod serve;
