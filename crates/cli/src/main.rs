//! The `leyden` command with the benchmarks of this repository.

fn main() -> std::process::ExitCode {
    leyden_cli::main(leyden_suite::registry())
}
