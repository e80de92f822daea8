//! Several sources of training tasks that `data.weights` mixes: files and generated worlds of one
//! agent.

use std::collections::HashSet;

use anyhow::{Result, bail};
use leyden_core::Task;
use leyden_train::config::DataConfig;
use leyden_train::data::{Mixture, TaskSource};
use serde_json::{Value, json};

use crate::benchmark::{Assembled, Dataset, Train};
use crate::demonstrations::Stream;
use crate::registry::Registry;
use crate::sources::{self, Selection, Source};

/// The components, the training tasks and their description for the provenance, one source for each
/// entry of `data.train`. Tasks of files with a question in `held_out` are left out.
///
/// # Errors
/// As [`sources::tasks`]; a world of another agent; a file of which no task is left; sources that
/// the benchmark cannot mix.
pub(crate) fn assemble(
    registry: &Registry,
    data: &DataConfig,
    selection: &Selection,
    dataset: &dyn Dataset,
    test: &[Task],
    held_out: &HashSet<String>,
) -> Result<(Assembled, Mixture, Value)> {
    let mut parts: Vec<Box<dyn TaskSource>> = Vec::new();
    let (mut of_files, mut of_worlds, mut described) = (Vec::new(), Vec::new(), Vec::new());
    for (name, weight) in data.train.iter().zip(&data.weights) {
        if let Source::World(world) = Source::parse(name, registry)? {
            if !selection.exclude.is_empty() {
                bail!("data.train_exclude: {world} is generated; tasks are left out of files only");
            }
            let world = sources::world_of(registry, world, dataset)?;
            of_worlds.push(world.train(0));
            parts.push(Box::new(Stream(world)));
            described.push(json!({ "source": name, "seed": data.seed, "weight": weight }));
            continue;
        }
        let (mut tasks, of_file) =
            sources::tasks(registry, std::slice::from_ref(name), selection, dataset, 0)?;
        let before = tasks.len();
        tasks.retain(|task| !held_out.contains(task.question.trim()));
        let shared = before - tasks.len();
        if shared > 0 {
            eprintln!("{name}: {shared} tasks removed because their question is also in data.test");
        }
        if tasks.is_empty() {
            bail!("data.train: every task of {name} is also in data.test");
        }
        described.push(json!({
            "source": of_file, "weight": weight, "left_out_as_test_questions": shared,
        }));
        of_files.extend(tasks.iter().cloned());
        parts.push(Box::new(tasks));
    }
    // The databases and the corpora of all worlds are needed, as for test tasks of these worlds.
    let needed = [test, &of_worlds].concat();
    let assembled = dataset.assemble(Train::Tasks(&of_files), &needed, false)?;
    Ok((assembled, Mixture(parts), Value::Array(described)))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use leyden_train::Experiment;

    use crate::environment::{Stage, stage};

    fn experiment(agent: &str, data: &str, more: &str) -> Experiment {
        let text = format!(
            "name = 'x'\n[model]\nsource = 'tiny'\n[agent]\nname = '{agent}'\nprompt = 'compact'\n\
             [data]\n{data}\n[train]\nsteps = 3\n{more}"
        );
        Experiment::parse(&text, Path::new("x.toml"), &[], &crate::registry()).unwrap()
    }

    fn staged(agent: &str, data: &str, more: &str) -> Result<Stage, String> {
        let folder = tempfile::tempdir().unwrap();
        stage(&crate::registry(), &experiment(agent, data, more), folder.path())
            .map_err(|e| format!("{e:#}"))
    }

    /// A file of Calc-X with these questions.
    fn calc_file(folder: &Path, name: &str, questions: &[&str]) -> String {
        let path = folder.join(name);
        let row = |question: &&str| {
            format!(
                "{{\"id\": \"{question}\", \"question\": \"{question}?\", \"result\": \"1\"}}\n"
            )
        };
        std::fs::write(&path, questions.iter().map(row).collect::<String>()).unwrap();
        path.display().to_string()
    }

    #[test]
    fn a_world_is_mixed_with_files() {
        let folder = tempfile::tempdir().unwrap();
        let (file, test) = (
            calc_file(folder.path(), "train.jsonl", &["one", "two", "shared"]),
            calc_file(folder.path(), "test.jsonl", &["shared"]),
        );
        let data =
            format!("train = ['mini-calc', '{file}']\ntest = ['{test}']\nweights = [3.0, 1.0]");
        let environment = staged("calc", &data, "").unwrap().environment;
        let [world, file] = environment.train.parts() else { panic!("two parts are expected") };
        assert_eq!((world.len(), file.len()), (None, Some(2)));
        assert_eq!([0, 1].map(|index| file.task(index).id), ["one", "two"]);
        let described = &environment.provenance["data"]["train"];
        assert_eq!(described[0]["weight"], 3.0);
        assert_eq!(described[1]["left_out_as_test_questions"], 1);
        assert!(described[1]["source"][0]["sha256"].is_string(), "{described}");
    }

    /// A file of MuSiQue with one question and one passage.
    fn musique_file(folder: &Path, name: &str) -> String {
        let path = folder.join(name);
        let row = serde_json::json!({
            "id": name, "question": format!("who wrote {name}?"), "answer": "Ada",
            "paragraphs": [{
                "idx": 0, "title": name, "paragraph_text": "Ada wrote it.", "is_supporting": true,
            }],
        });
        std::fs::write(&path, row.to_string()).unwrap();
        path.display().to_string()
    }

    #[test]
    fn a_mixture_has_the_passages_of_all_its_sources() {
        let folder = tempfile::tempdir().unwrap();
        let [file, test] = ["a.jsonl", "b.jsonl"].map(|name| musique_file(folder.path(), name));
        let passages = |train: &str| {
            let data = format!("train = {train}\ntest = ['{test}']");
            let environment = staged("rag", &data, "").unwrap().environment;
            environment.provenance["data"]["with"]["passages"].as_u64().unwrap()
        };
        assert_eq!(passages(&format!("['{file}']")), 2);
        let world = passages("['mini-musique']");
        assert!(world > 2);
        let mixed = passages(&format!("['mini-musique', '{file}']\nweights = [1.0, 1.0]"));
        assert_eq!(mixed, world + 1);
    }

    #[test]
    fn mixtures_that_cannot_be_assembled_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = calc_file(folder.path(), "a.jsonl", &["one"]);
        let other = calc_file(folder.path(), "b.jsonl", &["one"]);
        let cases = [
            (format!("train = ['mini-calc', '{file}']\ntest = ['mini-calc']"), "data.weights"),
            (
                "train = ['mini-calc', 'mini-spider']\ntest = ['mini-calc']".to_owned(),
                "data.weights",
            ),
            (
                "train = ['mini-calc', 'mini-spider']\ntest = ['mini-calc']\nweights = [1, 1]"
                    .to_owned(),
                "world of the agent sql",
            ),
            (
                format!("train = ['mini-calc', '{file}']\ntest = ['{other}']\nweights = [1, 1]"),
                "every task of",
            ),
            (
                format!(
                    "train = ['mini-calc', '{file}']\ntest = ['mini-calc']\nweights = [1, 1]\n\
                     train_exclude = ['a=b']"
                ),
                "data.train_exclude: mini-calc is generated",
            ),
        ];
        for (data, words) in cases {
            let error = staged("calc", &data, "").err().unwrap();
            assert!(error.contains(words), "{error}");
        }
    }

    /// Supervised training takes the demonstrations in turns, as without weights.
    #[test]
    fn supervised_training_has_no_weights() {
        let data = "train = ['mini-calc']\ntest = ['mini-calc']\nweights = [2.0]";
        let staged = staged("calc", data, "objective = 'supervised'").unwrap();
        assert!(staged.environment.train.parts().is_empty());
        assert!(staged.environment.demonstrations.is_some());
    }
}
