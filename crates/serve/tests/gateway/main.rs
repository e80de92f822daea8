//! Tests of the gateway with a scripted model, over loopback as agents and controllers use it.

mod attribution;
mod harness;
mod limits;
mod repeats;
mod trainer;
mod updates;
mod upstream;
mod v1;
mod workers;
