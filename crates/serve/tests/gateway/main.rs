//! The gateway over a scripted model, spoken to over loopback as agents and controllers do.

mod attribution;
mod limits;
mod repeats;
mod trainer;
mod updates;
mod upstream;
mod v1;
mod workers;
mod world;
