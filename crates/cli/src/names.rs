//! The parts of the command line that depend on the benchmarks: possible names, options that set
//! benchmark keys, and the key reference of an experiment file.

use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgMatches, Command};
use leyden_suite::{Benchmark, Registry};
use leyden_train::config::reference::reference;
use leyden_train::config::schema::Schema;

/// Adds the names, options and descriptions of the benchmarks to `command`.
///
/// `mut_arg` moves an argument behind the others, so commands with several positional arguments
/// declare their indices.
pub fn fill(command: Command, registry: &Registry) -> Command {
    let names: Vec<&'static str> = registry.iter().map(Benchmark::name).collect();
    let worlds: Vec<&'static str> = registry.worlds().map(|(world, _)| world.name).collect();
    let published = registry.iter().filter_map(Benchmark::published);
    let (datasets, repositories): (Vec<&'static str>, Vec<&'static str>) =
        published.map(|published| (published.name, published.repository)).unzip();
    let golden: Vec<&'static str> =
        registry.iter().flat_map(Benchmark::golden).map(|golden| golden.name).collect();
    let keys = keys(registry);
    let one_of = |names: &[&'static str]| PossibleValuesParser::new(names.iter().copied());
    command
        .mut_subcommand("run", |run| run.after_long_help(keys.clone()))
        .mut_subcommand("sft", |sft| sft.after_long_help(keys.clone()))
        .mut_subcommand("eval", |eval| {
            let eval = eval.mut_arg("agent", |agent| {
                let first = names.first().copied().unwrap_or_default();
                agent.help(format!("The agent: {} [default: {first}]", names.join(", ")))
            });
            let choices = registry.choices("data.train").unwrap_or_default();
            let eval = eval.mut_arg("data", |data| {
                data.help(format!("{choices}; optionally with a range of rows: FILE:700..1000"))
            });
            eval.args(flags(registry))
        })
        .mut_subcommand("data", |data| {
            data.mut_subcommand("make", |make| {
                make.mut_arg("world", |world| world.value_parser(one_of(&worlds)))
            })
            .mut_subcommand("fetch", |fetch| {
                fetch.mut_arg("dataset", |dataset| dataset.value_parser(one_of(&datasets))).mut_arg(
                    "repo",
                    |repo| {
                        let defaults = repositories.join(", ");
                        repo.help(format!("Repository of the hub [default: {defaults}]"))
                    },
                )
            })
        })
        .mut_subcommand("score", |score| {
            score.mut_arg("dataset", |dataset| dataset.value_parser(one_of(&datasets)))
        })
        .mut_subcommand("verify", |verify| {
            verify.mut_subcommand("scores", |scores| {
                scores.mut_arg("kind", |kind| kind.value_parser(one_of(&golden)))
            })
        })
}

/// The options of `eval` that set benchmark keys.
fn flags(registry: &Registry) -> Vec<Arg> {
    let of = |key: &leyden_train::config::OwnKey| {
        let flag = key.flag?;
        Some(Arg::new(key.path).long(flag.name).value_name(flag.value).help(key.what))
    };
    registry.keys().iter().filter_map(of).collect()
}

/// The benchmark keys set by options of `eval`, with their values.
pub fn given(matches: &ArgMatches, registry: &Registry) -> Vec<(&'static str, String)> {
    let Some(eval) = matches.subcommand_matches("eval") else { return Vec::new() };
    let keys = registry.keys().into_iter().filter(|key| key.flag.is_some());
    let value = |path: &'static str| Some((path, eval.get_one::<String>(path)?.clone()));
    keys.filter_map(|key| value(key.path)).collect()
}

/// The key reference of an experiment file, as help text.
fn keys(registry: &Registry) -> String {
    let reference = reference(registry);
    let width = reference.iter().map(|key| key.path.len()).max().unwrap_or(0);
    let mut text = String::from("Keys of an experiment file:\n");
    for key in reference {
        text.push_str(&format!("  {:width$}  {}\n", key.path, key.what));
    }
    text
}
