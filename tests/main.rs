//! The `leyden` command as a user starts it, in one test program: building and linking one takes a
//! fraction of what one for each file did.

mod common;

// From one end to the other.
mod paper;
mod quickstart;
mod sweep;

// Killed and continued.
mod interruptions;

// What is wrong with what it was given.
mod bad_input;

// Data, scores and numbers made by reference programs.
mod data;
mod golden;
mod own_tasks;
mod rollouts;
mod score;

// Agents in processes of their own, the server that they talk to, the page that shows them.
mod external;
mod external_faults;
mod live;
mod serve;
