//! Builds the training environment of an experiment from the names in its configuration.

use std::collections::HashSet;
use std::path::Path;

use anyhow::{Context, Result, bail};
use leyden_core::Task;
use leyden_train::config::{DataConfig, Demonstrations, Objective, TestSelection};
use leyden_train::data::{DemonstrationSource, TaskSource};
use leyden_train::provenance::hash_file;
use leyden_train::rejection_sampling::Successes;
use leyden_train::{Environment, Experiment};
use serde_json::{Map, Value, json};

use crate::TEST_TASKS;
use crate::benchmark::{Assembled, Dataset, Train};
use crate::demonstrations::{Interleaved, Stream};
use crate::mixing;
use crate::model::tiny;
use crate::registry::Registry;
use crate::settings::BenchmarkSettings;
use crate::sources::{self, Selection, Source};
use crate::table::counted;
use crate::test_sample;

/// A run's environment, with the temporary files that it needs.
pub struct Stage {
    pub environment: Environment,
    /// Databases of a generated world, deleted on drop.
    pub folder: Option<tempfile::TempDir>,
}

/// Builds agent, tasks, scorer and demonstrations of an experiment with run folder `folder`.
///
/// # Errors
/// Unknown names, invalid settings, files that cannot be read.
pub fn stage(registry: &Registry, experiment: &Experiment, folder: &Path) -> Result<Stage> {
    let data = &experiment.data;
    let settings =
        BenchmarkSettings { run: Some(folder.to_owned()), ..BenchmarkSettings::of(experiment) };
    let dataset = registry.prepare(settings.clone())?;
    let count = if experiment.eval.tasks == 0 { TEST_TASKS } else { experiment.eval.tasks };
    let (test, test_described) =
        sources::tasks(registry, &data.test, &Selection::default(), dataset.as_ref(), count)?;
    check_disjoint(registry, &data.train, &data.test)?;
    let held_out: HashSet<String> =
        test.iter().map(|task| task.question.trim().to_owned()).collect();
    let (test, sample) = test_sample(registry, experiment, test)?;
    let supervised = experiment.train.objective == Objective::Supervised;
    let successes = own_successes(experiment, &held_out)?;
    let demonstrated = supervised && successes.is_none();
    let mixed = !supervised && !data.weights.is_empty();
    let worlds = if mixed { Vec::new() } else { worlds(registry, &data.train)? };
    let selection = Selection::new(data.train_limit, &data.train_exclude)?;
    if let [world, ..] = worlds[..]
        && !selection.exclude.is_empty()
    {
        bail!("data.train_exclude: {world} is generated; tasks are left out of files only");
    }
    let (mut assembled, train, train_described): (Assembled, Box<dyn TaskSource>, Value) =
        if worlds.is_empty() && !mixed {
            let (tasks, described) =
                training_tasks(registry, data, &selection, dataset.as_ref(), &held_out)?;
            let assembled = dataset.assemble(Train::Tasks(&tasks), &test, demonstrated)?;
            (assembled, Box::new(tasks), described)
        } else if mixed {
            let (assembled, mixture, described) =
                mixing::assemble(registry, data, &selection, dataset.as_ref(), &test, &held_out)?;
            (assembled, Box::new(mixture), described)
        } else {
            if !demonstrated && worlds.len() > 1 {
                bail!("data.train: to mix several worlds, set data.weights, one for each");
            }
            // Another agent's world can only be demonstrated, beside one of this agent.
            let own = worlds.iter().find(|world| dataset.world(world).is_some());
            let own = *own.unwrap_or(&worlds[0]);
            let world = sources::world_of(registry, own, dataset.as_ref()).context("data.train")?;
            let mut assembled = dataset.assemble(Train::World(own), &test, demonstrated)?;
            if demonstrated {
                let interleaved = interleave(registry, &worlds, own, &settings, &mut assembled)?;
                assembled.demonstrations = Some(Box::new(interleaved));
            }
            let source = |world: &&str| json!({ "source": world, "seed": data.seed });
            let described = worlds.iter().map(source).collect();
            (assembled, Box::new(Stream(world)), described)
        };
    let mut provenance = Map::new();
    provenance.insert(
        "data".to_owned(),
        json!({
            "seed": data.seed,
            "train": train_described,
            "test": test_described,
            "test_sample": sample,
            "with": assembled.described,
        }),
    );
    let mut demonstrations = assembled.demonstrations.take();
    if let Some((successes, described)) = successes {
        provenance.insert("successes".to_owned(), described);
        demonstrations = Some(Box::new(successes));
    }
    let environment = Environment {
        agent: assembled.agent,
        scorer: assembled.scorer,
        train,
        test,
        demonstrations,
        provenance,
    };
    Ok(Stage { environment, folder: assembled.folder })
}

/// The evaluated tasks among the `test` tasks, with a description if it is a sample.
fn test_sample(
    registry: &Registry,
    experiment: &Experiment,
    mut test: Vec<Task>,
) -> Result<(Vec<Task>, Option<Value>)> {
    let eval = &experiment.eval;
    let wanted = if eval.tasks == 0 { test.len() } else { eval.tasks };
    if eval.selection == TestSelection::First {
        test.truncate(wanted);
        return Ok((test, None));
    }
    let own = registry.get(&experiment.agent.name)?.strata();
    test_sample::stratified(test, wanted, &eval.strata, own, experiment.data.seed)
}

/// The successful rollouts of another run to train on, with their provenance.
fn own_successes(
    experiment: &Experiment,
    held_out: &HashSet<String>,
) -> Result<Option<(Successes, Value)>> {
    let data = &experiment.data;
    if data.successes.is_empty() {
        return Ok(None);
    }
    if experiment.train.objective != Objective::Supervised {
        bail!("data.successes: requires train.objective to be supervised");
    }
    let run = Path::new(&data.successes);
    let roles = &experiment.train.roles;
    let successes = Successes::read(run, data.success_reward, roles, held_out)?;
    if successes.held_out > 0 {
        let count = counted(successes.held_out, "rollout");
        eprintln!("data.successes: {count} left out because the question is also in data.test");
    }
    let metrics = run.join("metrics.jsonl");
    let hash = hash_file(&metrics).with_context(|| metrics.display().to_string())?;
    let described = json!({
        "run": data.successes,
        "metrics_sha256": hash,
        "rollouts": successes.rollouts,
        "left_out_as_test_questions": successes.held_out,
        "calls": successes.calls(),
    });
    Ok(Some((successes, described)))
}

/// The generated worlds among `names`: either none, or all of them.
fn worlds(registry: &Registry, names: &[String]) -> Result<Vec<&'static str>> {
    let mut worlds = Vec::new();
    for name in names {
        if let Source::World(world) = Source::parse(name, registry)? {
            worlds.push(world);
        }
    }
    if !worlds.is_empty() && worlds.len() < names.len() {
        bail!("data.train: {} is endless; to mix it with files, set data.weights", worlds[0]);
    }
    Ok(worlds)
}

/// Training tasks from files, without those whose question is also a test question: some
/// datasets repeat questions across splits.
fn training_tasks(
    registry: &Registry,
    data: &DataConfig,
    selection: &Selection,
    dataset: &dyn Dataset,
    held_out: &HashSet<String>,
) -> Result<(Vec<Task>, Value)> {
    let (mut tasks, mut described) = sources::tasks(registry, &data.train, selection, dataset, 0)?;
    let before = tasks.len();
    tasks.retain(|task| !held_out.contains(task.question.trim()));
    if tasks.len() < before {
        let shared = before - tasks.len();
        eprintln!(
            "data: {shared} training tasks removed because their question is also in data.test"
        );
        described = json!({ "sources": described, "left_out_as_test_questions": shared });
    }
    Ok((tasks, described))
}

/// Interleaves the demonstrations of all `worlds`, each by its own agent; those of `own`, with the
/// experiment's settings, are already in `assembled`. A world that is listed twice has two turns
/// per round.
fn interleave(
    registry: &Registry,
    worlds: &[&str],
    own: &str,
    settings: &BenchmarkSettings,
    assembled: &mut Assembled,
) -> Result<Interleaved> {
    if settings.data.demonstrations == Demonstrations::Gold && worlds.len() > 1 {
        bail!("data.demonstrations: gold requires exactly one world in data.train");
    }
    let mut distinct: Vec<&str> = Vec::new();
    let mut sources: Vec<Box<dyn DemonstrationSource>> = Vec::new();
    for world in worlds {
        if distinct.contains(world) {
            continue;
        }
        distinct.push(world);
        let of_own = if *world == own { assembled.demonstrations.take() } else { None };
        sources.push(match of_own {
            Some(of_own) => of_own,
            None => Box::new(tiny::demonstrations(registry, world, settings.data.seed)?),
        });
    }
    let turn = |world: &&str| distinct.iter().position(|known| known == world);
    let turns = worlds.iter().filter_map(turn).collect();
    let data = &settings.data;
    Ok(Interleaved::new(sources, turns, data.seed, data.exercises))
}

/// Fails if test rows are also training rows.
fn check_disjoint(registry: &Registry, train: &[String], test: &[String]) -> Result<()> {
    for a in train {
        for b in test {
            if let (Source::File { path: pa, rows: ra }, Source::File { path: pb, rows: rb }) =
                (Source::parse(a, registry)?, Source::parse(b, registry)?)
            {
                let all = || 0..usize::MAX;
                let (ra, rb) = (ra.unwrap_or_else(all), rb.unwrap_or_else(all));
                if pa == pb && ra.start < rb.end && rb.start < ra.end {
                    bail!("data: {a} and {b} share rows; test tasks must not be trained on");
                }
            }
        }
    }
    Ok(())
}
