//! The `leyden` command with one additional benchmark.

fn main() -> std::process::ExitCode {
    leyden_cli::main(leyden_suite::registry().with(leyden_third_party::Vowels))
}
