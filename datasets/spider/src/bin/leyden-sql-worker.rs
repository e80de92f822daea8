//! A worker of [`leyden_spider::Workers`], for programs that use this crate as a library, and for
//! its tests. The command `leyden` is its own worker.

fn main() -> std::io::Result<()> {
    leyden_spider::database::worker::serve()
}
