//! The paper's three agents in their own frameworks, with the real packages: they behave like the
//! native agents, their tokens are captured exactly, and they train the model.

pub mod support;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use self::support::{Place, Rollout, list, processes_with, python_with_packages, rollouts, run};
use crate::common::{assert_contains, checkout, lines, succeeds};
use leyden_core::SeedTree;
use leyden_mini::spider::Turn;
use leyden_mini::{MiniCalc, MiniSpider};
use leyden_spider::database::render;
use leyden_spider::{Limits, Spider};
use serde_json::{Value, json};

/// Two steps in which some group has differing rewards, and an evaluation of each.
const SHORT: [&str; 10] = [
    "train.steps=2",
    "train.warmup=0",
    "rollout.tasks=4",
    "rollout.samples=8",
    "rollout.schedule='continuous'",
    "eval.every=2",
    "eval.tasks=2",
    "eval.modes=['greedy']",
    "checkpoint.every=1",
    "checkpoint.keep=2",
];

/// A short run of an external agent with this Python interpreter.
fn external(world: &str, python: &Path, folder: &Path, changes: &[&str]) -> Command {
    let module = match world {
        "calc" => "autogen_calc:agent",
        "sql" => "langchain_sql:agent",
        _ => "openai_agents_rag:agent",
    };
    let python = python.to_str().unwrap();
    // The name identifies the processes of this run.
    let name = marker(folder);
    let worker = "agents/external/worker.py";
    let command = ["agent.external.command=", &list(&[python, worker, module, "--name", &name])];
    let command = command.concat();
    let changes: Vec<&str> =
        SHORT.iter().copied().chain([command.as_str()]).chain(changes.iter().copied()).collect();
    run(&format!("external/{world}"), folder, &changes)
}

/// The worker name of this run.
fn marker(folder: &Path) -> String {
    folder.to_str().unwrap().replace('/', "_")
}

/// Checks the invariants of all captured rollouts.
fn assert_captured(all: &BTreeMap<Place, Rollout>) {
    for (place, rollout) in all {
        assert_eq!(rollout.missing, None, "{place:?}");
        assert!(rollout.reward.is_some(), "{place:?}");
        assert!(!rollout.calls.is_empty(), "{place:?}");
        for call in &rollout.calls {
            assert!(!call.prompt_ids.is_empty() && !call.response_ids.is_empty(), "{place:?}");
            assert_eq!(call.response_ids.len(), call.logprobs.len(), "{place:?}");
            assert!(call.logprobs.iter().all(|logprob| *logprob <= 0.0), "{place:?}");
            let version = if place.1 == "train" { place.0 - 1 } else { place.0 };
            assert_eq!(call.policy_version, version, "{place:?}");
        }
    }
}

/// Trains for two steps and compares the first with the native agent's: sampling is seeded by
/// position in the run, so equal prompts give equal rollouts, up to rounding.
fn trains_like_the_native_agent(test: &str, world: &str, native: &str) {
    let Some(python) = python_with_packages(test) else { return };
    let folder = tempfile::tempdir().unwrap();
    let (own, other) = (folder.path().join("external"), folder.path().join("native"));
    succeeds(&mut external(world, &python, &own, &[]));
    succeeds(&mut run(native, &other, &SHORT));

    let (all, expected) = (rollouts(&own), rollouts(&other));
    assert_captured(&all);
    let first = |all: &BTreeMap<Place, Rollout>| -> Vec<Rollout> {
        let train = all.iter().filter(|(place, _)| place.0 == 1 && place.1 == "train");
        train.map(|(_, rollout)| rollout.clone()).collect()
    };
    let pairs: Vec<(Rollout, Rollout)> = first(&all).into_iter().zip(first(&expected)).collect();
    assert_eq!(pairs.len(), 32);
    for (own, other) in &pairs {
        assert_eq!(own.calls[0].prompt_ids, other.calls[0].prompt_ids);
        assert_eq!(own.calls[0].role, other.calls[0].role);
    }
    let ids = |rollout: &Rollout| -> Vec<(Vec<u32>, Vec<u32>)> {
        let calls = rollout.calls.iter();
        calls.map(|call| (call.prompt_ids.clone(), call.response_ids.clone())).collect()
    };
    let same = |(own, other): &&(Rollout, Rollout)| ids(own) == ids(other);
    let (equal, different): (Vec<_>, Vec<_>) = pairs.iter().partition(same);
    assert!(equal.len() >= 28, "only {} of 32 are equal; {different:#?}", equal.len());
    for (own, other) in equal {
        assert_eq!((&own.answer, own.reward), (&other.answer, other.reward));
    }

    let metrics = fs::read_to_string(own.join("metrics.jsonl")).unwrap();
    let steps = lines(&metrics, "step");
    assert_eq!(steps.len(), 2);
    for step in &steps {
        assert_eq!(step["rollouts_without_reward"], 0);
        // The trainer's log-probabilities equal those captured over HTTP.
        assert!(step["sampler_gap"].as_f64().unwrap() < 1e-3, "{step}");
        // Calls share a prefix: the earlier call or the schema.
        assert!(step["packed_tokens"].as_u64() < step["row_tokens"].as_u64(), "{step}");
    }
    assert!(steps.iter().any(|step| step["grad_norm"].as_f64() > Some(0.0)), "{metrics}");
    assert!(processes_with(&marker(&own)).is_empty(), "agent processes remain after the run");
}

#[test]
fn autogen_trains_like_the_native_calculator_agent() {
    trains_like_the_native_agent("autogen", "calc", "mini/calc");
}

#[test]
fn langgraph_trains_like_the_native_sql_agent() {
    trains_like_the_native_agent("langgraph", "sql", "mini/spider");
}

#[test]
fn the_openai_agents_sdk_trains_like_the_native_retrieval_agent() {
    trains_like_the_native_agent("openai-agents", "rag", "mini/musique");
}

#[test]
fn a_killed_run_resumes_and_leaves_no_agent_processes() {
    use std::os::unix::process::ExitStatusExt;
    let Some(python) = python_with_packages("a killed run of an external agent") else { return };
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    let again = || external("calc", &python, &run, &["train.steps=4"]);
    let metrics = || fs::read_to_string(run.join("metrics.jsonl")).unwrap_or_default();

    let mut child = again().stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    while lines_complete(&metrics(), "step") < 1 {
        assert!(child.try_wait().unwrap().is_none(), "the run ended before it could be killed");
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    child.kill().unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(9));
    // The kernel kills them with their parent; it may take a moment.
    for _ in 0..500 {
        if processes_with(&marker(&run)).is_empty() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    assert_eq!(
        processes_with(&marker(&run)),
        [0_u32; 0],
        "agent processes remain after a killed run"
    );

    let (stdout, _) = succeeds(&mut again());
    assert_contains(&stdout, &["finished: "]);
    let steps: Vec<u64> =
        lines(&metrics(), "step").iter().map(|line| line["step"].as_u64().unwrap()).collect();
    assert_eq!(steps, [1, 2, 3, 4]);
    let all = rollouts(&run);
    assert_captured(&all);
    assert_eq!(all.keys().filter(|place| place.1 == "train").count(), 4 * 32);
}

/// Number of complete lines of this kind; the last line may be partially written.
fn lines_complete(metrics: &str, kind: &str) -> usize {
    let whole = metrics.rfind('\n').map_or("", |end| &metrics[..end]);
    lines(whole, kind).len()
}

/// The results of a Python expression over a module of `agents/external` for each list of
/// arguments.
fn results(python: &Path, import: &str, expression: &str, arguments: &[Value]) -> Vec<String> {
    let script = format!(
        "import asyncio, json, sys\n{import}\nfor line in sys.stdin:\n    a = json.loads(line)\n    \
         print(json.dumps({expression}))"
    );
    let mut child = Command::new(python)
        .args(["-c", &script])
        .env("PYTHONPATH", checkout().join("agents/external"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = String::new();
    for list in arguments {
        lines += &format!("{list}\n");
    }
    let mut input = child.stdin.take().unwrap();
    let writing = std::thread::spawn(move || input.write_all(lines.as_bytes()).unwrap());
    let output = child.wait_with_output().unwrap();
    writing.join().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn the_python_calculator_equals_the_native_one() {
    let Some(python) = python_with_packages("the calculator in Python") else { return };
    let world = MiniCalc::new(0);
    let expression = |index: u64| {
        let task = world.train(index);
        let operations = task.label("operations").unwrap().parse().unwrap();
        leyden_mini::Noise::of(operations).draw(&task, SeedTree::new(index)).unwrap()
    };
    let mut expressions: Vec<String> = (0..2000).map(expression).collect();
    let others =
        ["1.1 + 2.2", "0.5 * 4", "1e3 / 7", "-3 ** 2", "2 ** -2", "7 / 7", " 5 ", "1 / 3 - 1 / 3"];
    expressions.extend(others.map(str::to_owned));
    let arguments: Vec<Value> = expressions.iter().map(|text| json!([text])).collect();
    let import = "from autogen_calc import calculator";
    let written = results(&python, import, "asyncio.run(calculator(a[0]))", &arguments);
    assert_eq!(written.len(), expressions.len());
    for (expression, written) in expressions.iter().zip(written) {
        assert_eq!(written, leyden_calcx::calculate(expression), "{expression}");
    }
}

#[test]
fn python_query_results_equal_the_native_ones() {
    const LONGEST: usize = 60;
    let Some(python) = python_with_packages("queries in Python") else { return };
    let folder = tempfile::tempdir().unwrap();
    let world = MiniSpider::new(0);
    world.write_databases(folder.path()).unwrap();
    let spider = Spider::open(folder.path(), Limits::default()).unwrap();
    let noise = leyden_mini::spider::Noise::default();
    let (mut arguments, mut expected) = (Vec::new(), Vec::new());
    for index in 0..600 {
        let shown = world.demonstration(index, &noise, SeedTree::new(index));
        let id = shown.task.fields["db_id"].as_str().unwrap();
        let database = spider.databases().get(id).unwrap();
        for turn in &shown.turns {
            let (Turn::Write { query } | Turn::Rewrite { query }) = turn else { continue };
            if query.contains("avg") {
                continue; // The last digit of a mean differs between versions of SQLite.
            }
            // The query itself, and with typical mistakes of models.
            let mistakes = [("select ", "select x"), ("from", "form"), ("from ", "from x")];
            let mut variants = vec![query.clone()];
            variants.extend(mistakes.map(|(right, wrong)| query.replace(right, wrong)));
            for query in variants {
                let text = match database.query(&query) {
                    Ok(result) => render(&result, LONGEST + 1),
                    Err(error) => format!("ERROR: {error}"),
                };
                let text = match text.char_indices().nth(LONGEST) {
                    Some((end, _)) => format!("{}\n... (truncated)", &text[..end]),
                    None => text,
                };
                arguments.push(json!([database.files()[0].path(), query]));
                expected.push(text);
            }
        }
    }
    let import = "from langchain_sql import run";
    let written = results(&python, import, "run(a[0], a[1])", &arguments);
    assert_eq!(written.len(), expected.len());
    for ((written, expected), asked) in written.iter().zip(&expected).zip(&arguments) {
        assert_eq!(written, expected, "{asked}");
    }
}
