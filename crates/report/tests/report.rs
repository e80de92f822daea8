//! Reports of synthetic runs: the page has its sections and the right numbers, run contents
//! cannot inject markup, damage to a run's files is reported or tolerated as specified.

mod synthetic;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use leyden_core::record::Record;
use leyden_report::{Options, ReportError, Run, load, tensorboard, write};
use synthetic::{HOSTILE, Plan, lines};
use tempfile::TempDir;

fn small() -> Plan {
    Plan { steps: 40, tasks: 60, ..Plan::default() }
}

/// No image files: drawing them takes most of a report's time.
fn page_only() -> Options {
    Options { files: false, ..Options::default() }
}

/// Writes the report of `plans` and returns the files by name.
fn report(plans: &[Plan], dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let runs: Vec<Run> =
        plans.iter().map(|plan| load(&plan.write(&dir.join("runs"))).unwrap()).collect();
    let written = write(&runs, &dir.join("report"), &Options::default()).unwrap();
    let name = |path: &Path| path.file_name().unwrap().to_string_lossy().into_owned();
    written.files.iter().map(|path| (name(path), fs::read(path).unwrap())).collect()
}

fn text(files: &BTreeMap<String, Vec<u8>>, name: &str) -> String {
    String::from_utf8(files[name].clone()).unwrap()
}

/// `0.812`, as pages and tables print it.
fn three(value: f64) -> String {
    format!("{value:.3}")
}

fn eval_mean(plan: &Plan, step: u64, mode: &str) -> f64 {
    plan.records()
        .iter()
        .find_map(|record| match record {
            Record::Eval(eval) if eval.step == step && eval.mode == mode => Some(eval.reward_mean),
            _ => None,
        })
        .unwrap()
}

#[test]
fn the_page_has_its_sections_and_the_runs_numbers() {
    let dir = TempDir::new().unwrap();
    let files = report(&[small()], dir.path());
    let page = text(&files, "index.html");
    for id in [
        "reward",
        "table",
        "reward-by-kind-of-task",
        "rollouts",
        "optimisation",
        "samples",
        "configuration",
    ] {
        assert!(page.contains(&format!("<section id=\"{id}\"")), "no section {id}");
    }
    for name in [
        "reward",
        "by_operations",
        "by_template",
        "response_length",
        "entropy",
        "sampler",
        "grad_norm",
        "reward_histogram",
        "groups",
        "signals",
    ] {
        assert!(files.contains_key(&format!("{name}.svg")), "no {name}.svg");
        assert!(files[&format!("{name}.png")].starts_with(b"\x89PNG\r\n"), "{name}.png is no PNG");
    }
    let (markdown, csv) = (text(&files, "table.md"), text(&files, "table.csv"));
    for mode in ["sampled", "greedy"] {
        for step in [0, 40] {
            let mean = eval_mean(&small(), step, mode);
            for place in [&page, &markdown] {
                assert!(place.contains(&three(mean)), "{mode} reward of step {step} is missing");
            }
            assert!(csv.contains(&format!("{mean:.6}")));
        }
    }
    assert!(page.contains("paper, 3B, end: 0.78"));
    assert!(page.contains("prefers-color-scheme: dark"));
    assert!(page.contains("credit 1") && page.contains("advantage -0.5"));
    let curves = text(&files, "curves.csv");
    let (head, lines) = curves.split_once('\n').unwrap();
    let column = head.split(',').position(|name| name == "test/sampled/reward").unwrap();
    let sampled = lines.lines().filter(|line| !line.split(',').nth(column).unwrap().is_empty());
    assert_eq!(sampled.count(), 5, "evaluations at 0, 10, 20, 30 and 40");
}

#[test]
fn nothing_in_a_run_breaks_out_of_the_page() {
    let dir = TempDir::new().unwrap();
    let folder = small().write(dir.path());
    // Names appear in titles and charts, labels in legends, and so do signals and extras.
    let config = fs::read_to_string(folder.join("config.toml")).unwrap();
    let hostile = toml::Value::from(HOSTILE).to_string();
    let config = config.replace("\"mini-calc\"", &hostile).replace("\"paper, 3B\"", &hostile);
    fs::write(folder.join("config.toml"), config).unwrap();
    let mut records = small().records();
    for record in &mut records {
        match record {
            Record::Step(step) => {
                step.signals.insert(HOSTILE.to_owned(), 3);
                step.extra.insert(HOSTILE.to_owned(), 0.5);
            }
            Record::Eval(eval) => {
                let values = BTreeMap::from([(HOSTILE.to_owned(), (0.5, 10))]);
                eval.by_label.insert(HOSTILE.to_owned(), values);
            }
        }
    }
    fs::write(folder.join("metrics.jsonl"), lines(&records)).unwrap();
    let out = dir.path().join("report");
    let written = write(&[load(&folder).unwrap()], &out, &Options::default()).unwrap();
    for path in written
        .files
        .iter()
        .filter(|path| path.extension().is_some_and(|e| e == "html" || e == "svg"))
    {
        let text = fs::read_to_string(path).unwrap();
        assert!(
            !text.contains("<script") && !text.contains("<img"),
            "markup in {}",
            path.display()
        );
        assert!(!text.contains(['\u{202e}', '\u{0}']), "hidden letters in {}", path.display());
        assert_eq!(text.matches("<svg ").count(), text.matches("</svg>").count());
    }
    let page = fs::read_to_string(out.join("index.html")).unwrap();
    assert!(page.contains("&lt;script&gt;") && page.contains("⟨U+202E⟩"));
    let inside = written.files.iter().all(|path| path.parent() == Some(&out));
    assert!(inside, "a name escaped the report's folder");
}

#[test]
fn algorithm_metrics_have_titles() {
    let dir = TempDir::new().unwrap();
    let folder = small().write(dir.path());
    let mut records = small().records();
    for record in &mut records {
        if let Record::Step(step) = record {
            for name in ["prompts_extended", "sampler_chi2", "my_own_figure"] {
                step.extra.insert(name.to_owned(), step.step as f64);
            }
        }
    }
    fs::write(folder.join("metrics.jsonl"), lines(&records)).unwrap();
    let written = write(&[load(&folder).unwrap()], &dir.path().join("r"), &page_only()).unwrap();
    let page = fs::read_to_string(written.page).unwrap();
    for title in ["Prompts extended", "χ² of trainer to sampler, by token", "My own figure"] {
        assert!(page.contains(&format!(">{title}<")), "no chart called {title}");
    }
    assert!(!page.contains("extra prompts"));
}

#[test]
fn the_page_is_self_contained() {
    let dir = TempDir::new().unwrap();
    let page = text(&report(&[small()], dir.path()), "index.html");
    for piece in page.split("href=\"").skip(1).chain(page.split("src=\"").skip(1)) {
        let target = piece.split('"').next().unwrap();
        assert!(!target.contains(':') && !target.starts_with('/'), "outside resource {target}");
    }
    assert!(!page.contains("@import") && !page.contains("<link"));
    let addresses = page.matches("http://").count() + page.matches("https://").count();
    assert_eq!(addresses, page.matches("xmlns=\"http://www.w3.org/2000/svg\"").count());
}

#[test]
fn equal_runs_give_equal_bytes() {
    let dir = TempDir::new().unwrap();
    let first = report(&[small()], dir.path());
    let second = report(&[small()], dir.path());
    assert_eq!(first.keys().collect::<Vec<_>>(), second.keys().collect::<Vec<_>>());
    for (name, bytes) in &first {
        assert!(bytes == &second[name], "{name} differs");
    }
}

#[test]
fn seeds_are_averaged_and_other_configurations_are_not() {
    let dir = TempDir::new().unwrap();
    let seeds: Vec<Plan> = (1..=3).map(|seed| Plan { seed, ..small() }).collect();
    let files = report(&seeds, dir.path());
    let means: Vec<f64> = seeds.iter().map(|plan| eval_mean(plan, 40, "sampled")).collect();
    let mean = means.iter().sum::<f64>() / 3.0;
    let table = text(&files, "table.md");
    let row = table.lines().find(|line| line.contains("mean of 3 seeds | sampled | all")).unwrap();
    assert!(row.contains(&three(mean)), "{row}");
    assert!(table.contains("| seed 2 | greedy |"));

    let other = Plan { learning_rate: 1e-4, ..small() };
    let files = report(&[small(), other], dir.path());
    let table = text(&files, "table.md");
    assert!(table.contains("learning_rate = 0.0003") && table.contains("learning_rate = 0.0001"));
    assert!(!table.contains("mean of"));
    assert!(files.contains_key("reward_greedy.svg") && files.contains_key("reward_train.png"));
}

#[test]
fn a_repeated_seed_is_noted() {
    let dir = TempDir::new().unwrap();
    let folder = small().write(dir.path());
    let runs = [load(&folder).unwrap(), load(&folder).unwrap()];
    let written = write(&runs, &dir.path().join("report"), &page_only()).unwrap();
    assert!(written.notes[0].contains("not independent"), "{:?}", written.notes);
    assert!(written.table.contains("mean of 2 seeds"));
}

#[test]
fn a_run_with_one_evaluation_is_shown() {
    let dir = TempDir::new().unwrap();
    let plan = Plan { steps: 0, ..small() };
    let files = report(std::slice::from_ref(&plan), dir.path());
    let page = text(&files, "index.html");
    assert!(page.contains(&three(eval_mean(&plan, 0, "greedy"))));
    assert!(text(&files, "table.md").contains("| – |"), "no change from one evaluation");
    assert!(!files.contains_key("entropy.svg"));
}

#[test]
fn a_truncated_last_line_is_skipped_with_a_note() {
    let dir = TempDir::new().unwrap();
    let folder = small().write(dir.path());
    let path = folder.join("metrics.jsonl");
    let whole = fs::read_to_string(&path).unwrap();
    // Cut inside the last record, and once inside a character of two bytes.
    for end in [whole.len() - 30, whole.len() - 2] {
        fs::write(&path, &whole.as_bytes()[..end]).unwrap();
        let run = load(&folder).unwrap();
        assert_eq!(run.steps.len() + run.evals.len(), whole.lines().count() - 1);
        assert!(run.notes[0].contains("metrics.jsonl"), "{:?}", run.notes);
    }
    let truncated = [whole.as_bytes(), b"{\"kind\": \"\xc3"].concat();
    fs::write(&path, truncated).unwrap();
    assert_eq!(load(&folder).unwrap().steps.len(), 40);
    // A complete line without its newline is a record, not a truncated one.
    fs::write(&path, whole.trim_end()).unwrap();
    let run = load(&folder).unwrap();
    assert!(run.notes.is_empty() && run.steps.len() == 40);
    // The note reaches the page.
    fs::write(&path, &whole.as_bytes()[..whole.len() - 30]).unwrap();
    let written = write(&[load(&folder).unwrap()], &dir.path().join("r"), &page_only()).unwrap();
    assert!(fs::read_to_string(written.page).unwrap().contains("is truncated"));
}

#[test]
fn damage_within_a_file_is_reported_with_its_line() {
    let dir = TempDir::new().unwrap();
    let folder = small().write(dir.path());
    let path = folder.join("metrics.jsonl");
    let whole = fs::read_to_string(&path).unwrap();
    let message = |text: String| {
        fs::write(&path, text).unwrap();
        load(&folder).unwrap_err().to_string()
    };
    let broken = message(whole.replacen("{\"kind\":\"step\"", "{kind", 1));
    assert!(broken.contains("metrics.jsonl line 3"), "{broken}");
    let newer = message(whole.replacen("\"schema\":1", "\"schema\":7", 1));
    assert!(newer.contains("line 1 has schema 7") && newer.contains("newer"), "{newer}");
    let unknown = message(whole.replacen("\"kind\":\"eval\"", "\"kind\":\"tournament\"", 1));
    assert!(unknown.contains("line 1") && unknown.contains("tournament"), "{unknown}");
}

#[test]
fn a_nan_value_is_a_gap() {
    let dir = TempDir::new().unwrap();
    let folder = small().write(dir.path());
    let mut records = small().records();
    for record in &mut records {
        if let Record::Step(step) = record
            && step.step == 7
        {
            step.grad_norm = f64::NAN;
            step.entropy = f64::INFINITY;
        }
    }
    fs::write(folder.join("metrics.jsonl"), lines(&records)).unwrap();
    let run = load(&folder).unwrap();
    assert!(run.steps[6].grad_norm.is_nan() && run.steps[6].entropy.is_nan());
    assert!(run.steps[7].grad_norm.is_finite());
    write(&[run], &dir.path().join("r"), &page_only()).unwrap();
}

#[test]
fn missing_files_are_reported() {
    let dir = TempDir::new().unwrap();
    let nowhere = load(&dir.path().join("nowhere")).unwrap_err().to_string();
    assert!(nowhere.contains("nowhere") && nowhere.contains("leyden run"), "{nowhere}");
    let no_run = load(dir.path()).unwrap_err().to_string();
    assert!(no_run.contains("config.toml"), "{no_run}");
    let out = dir.path().join("report");
    assert!(matches!(write(&[], &out, &page_only()), Err(ReportError::NoRuns)));

    let empty = dir.path().join("empty");
    fs::create_dir(&empty).unwrap();
    fs::write(empty.join("config.toml"), "name = \"empty\"\n").unwrap();
    let run = load(&empty).unwrap();
    let error = write(std::slice::from_ref(&run), &out, &page_only()).unwrap_err().to_string();
    assert!(error.contains("empty") && error.contains("nothing to report"), "{error}");
    assert!(!out.exists(), "an empty report was left behind");
    // Next to a run with data, the empty one is a note.
    let full = load(&small().write(dir.path())).unwrap();
    let written = write(&[run, full], &out, &page_only()).unwrap();
    assert!(written.notes[0].contains("empty"), "{:?}", written.notes);

    fs::write(empty.join("config.toml"), "name = \n").unwrap();
    let config = load(&empty).unwrap_err().to_string();
    assert!(config.contains("config.toml") && !config.contains('\n'), "{config}");
    fs::write(empty.join("config.toml"), "").unwrap();
    fs::write(empty.join("rollouts.sqlite"), "not a database, but longer than its header is: 0123456789012345678901234567890123456789012345678901234567890123456789").unwrap();
    let database = load(&empty).unwrap_err().to_string();
    assert!(database.contains("rollouts.sqlite"), "{database}");
}

#[test]
fn samples_are_the_same_tasks_before_and_after() {
    let dir = TempDir::new().unwrap();
    let run = load(&small().write(dir.path())).unwrap();
    let samples = run.samples.unwrap();
    assert_eq!((samples.before_step, samples.after_step), (0, 40));
    assert!(samples.pairs.len() >= 3);
    for pair in &samples.pairs {
        assert_eq!(pair.before.task_id, pair.after.task_id);
        assert_eq!((pair.before.step, pair.after.step), (0, 40));
        assert_eq!(pair.before.calls.len(), 2);
        assert_eq!(pair.before.calls[0].prompt_tokens, 57);
    }
    assert_eq!(samples.counts.iter().map(|(_, count)| count).sum::<usize>(), 60);
    assert_eq!(samples.groups.len(), 2);
    assert_eq!(samples.groups[0].len(), 4);
    assert_eq!(samples.groups[0][0].calls[0].advantage, Some(-0.5));
}

#[test]
fn rollouts_are_read_while_the_run_writes_them_and_leave_no_files_behind() {
    let dir = TempDir::new().unwrap();
    let folder = small().write(&dir.path().join("100% ready? #1"));
    let names = || {
        let entries = fs::read_dir(&folder).unwrap();
        entries.map(|entry| entry.unwrap().file_name()).collect::<std::collections::BTreeSet<_>>()
    };
    let before = names();
    assert_eq!(load(&folder).unwrap().samples.unwrap().after_step, 40);
    assert_eq!(names(), before);
    // A writer in WAL mode whose latest rollouts are still in the log.
    let writer = rusqlite::Connection::open(folder.join("rollouts.sqlite")).unwrap();
    writer.execute_batch("PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = 0; UPDATE rollouts SET step = 50 WHERE step = 40; UPDATE calls SET step = 50 WHERE step = 40").unwrap();
    assert_eq!(load(&folder).unwrap().samples.unwrap().after_step, 50);
}

#[test]
fn event_files_hold_every_record() {
    let dir = TempDir::new().unwrap();
    let records = small().records();
    let mut writer = tensorboard::EventWriter::create(dir.path(), 1.5e9).unwrap();
    for record in &records {
        writer.record(record, 1.5e9).unwrap();
    }
    let bytes = fs::read(writer.path()).unwrap();
    // Walk the frames by their lengths: header, then one event per record.
    let (mut at, mut frames) = (0, 0);
    while at < bytes.len() {
        let length = u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()) as usize;
        at += 8 + 4 + length + 4;
        frames += 1;
    }
    assert_eq!((at, frames), (bytes.len(), records.len() + 1));
    // A resumed run writes the same from its metrics.
    let metrics = dir.path().join("metrics.jsonl");
    fs::write(&metrics, lines(&records)).unwrap();
    let again = tensorboard::EventWriter::resume(&dir.path().join("b"), &metrics, 1.5e9).unwrap();
    assert_eq!(fs::read(again.path()).unwrap(), bytes);
    let tag = b"test/sampled/reward/operations=2";
    let found = bytes.windows(tag.len()).filter(|window| window == tag).count();
    assert_eq!(found, 5);
}
