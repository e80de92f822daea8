//! Dataset commands: generating, describing, fetching from a local hub, invalid data.

#[path = "../datasets/hub/tests/server/mod.rs"]
mod server;

use std::fs;
use std::path::Path;
use std::process::Command;

use self::server::Server;
use crate::common::{assert_contains, leyden, refused, succeeds};

fn make(world: &str, folder: &Path) -> String {
    let mut command =
        leyden(&["data", "make", world, "--seed", "5", "--train", "6", "--test", "8"]);
    succeeds(command.arg("--out").arg(folder)).0
}

fn info(file: &Path) -> Command {
    let mut command = leyden(&["data", "info"]);
    command.arg(file);
    command
}

/// Generated files load again, with the ids and labels that `leyden eval` and `leyden score` use.
#[test]
fn generated_datasets_load_again() {
    let folder = tempfile::tempdir().unwrap();
    for (world, test, expected) in [
        (
            "mini-calc",
            "test.jsonl",
            &["8 tasks", "template    held_out: 4, seen: 4", "8 demonstrations", "operators: "][..],
        ),
        (
            "mini-ledger",
            "test.jsonl",
            &[
                "8 tasks",
                "horizon      2-4: 3, 5-8: 3, 9-12: 2",
                "8 demonstrations, 0 tasks without",
                "calculator calls per demonstration: 2: 2, 3: 1, 5: 2, 6: 1, 9: 2",
            ],
        ),
        (
            "mini-musique-long",
            "test.jsonl",
            &[
                "8 tasks",
                "horizon     2-3: 4, 4-5: 4",
                "paragraphs per question: 20: 8",
                "of which support it: 2: 2, 3: 2, 4: 2, 5: 2",
            ],
        ),
        (
            "mini-spider",
            "dev.json",
            &[
                "8 tasks",
                "template     held_out: 4, seen: 4",
                "database     held_out: 4, seen: 4",
                "gold_result  one cell: 6, rows: 2",
                "reference queries that the official parser accepts: 8 of 8 (100.0 %)",
                "reference queries that run: 8 of 8 (100.0 %)",
                "tables per database: ",
                "    query     select",
            ],
        ),
        (
            "mini-musique",
            "test.jsonl",
            &[
                "8 tasks",
                "template    held_out: 4, seen: 4",
                "paragraphs per question: 12: 8",
                "distinct passages",
                "    hop       ",
            ],
        ),
    ] {
        let folder = folder.path().join(world);
        let made = make(world, &folder);
        assert_contains(&made, &["8 tasks", "6 tasks", test]);
        let (text, stderr) = succeeds(&mut info(&folder.join(test)));
        assert_contains(&text, expected);
        assert_eq!(stderr, "", "{world}");
        for entry in fs::read_dir(&folder).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            assert!(made.contains(&name), "{name} is not listed in {made}");
        }
    }
}

#[test]
fn a_generated_dataset_is_described() {
    for world in ["mini-spider", "mini-ledger", "mini-musique", "mini-musique-long"] {
        let (text, _) = succeeds(&mut leyden(&["data", "info", world]));
        assert_contains(
            &text,
            &[world, "infinite", "test: 256 tasks", "pretraining data of the model "],
        );
    }
}

/// `leyden data fetch` from `server` into `out`, with a separate cache.
fn fetch(dataset: &str, server: &Server, home: &Path, out: &Path) -> Command {
    let mut command = leyden(&["data", "fetch", dataset, "--repo", "some/data", "--out"]);
    command.arg(out).env("HF_ENDPOINT", &server.address).env("HF_HOME", home);
    for variable in ["HF_HUB_CACHE", "HF_HUB_OFFLINE", "HF_TOKEN"] {
        command.env_remove(variable);
    }
    command
}

#[test]
fn musique_is_fetched_as_official_files() {
    let row = |id: &str, answer: &str| {
        format!("{{\"id\": \"{id}\", \"question\": \"q\"{answer}, \"paragraphs\": []}}\n")
    };
    let answered = |id: &str| row(id, ", \"answer\": \"a\"");
    let files = [
        ("README.md", "x".into()),
        ("data/musique_ans_v1.0_dev.jsonl", (answered("2hop__1") + &row("2hop__2", "")).into()),
        ("data/musique_full_v1.0_dev.jsonl", answered("2hop__3").into()),
    ];
    let server = Server::of_dataset("some/data", &files);
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let (text, _) = succeeds(&mut fetch("musique", &server, folder.path(), &out));
    let path = out.join("data/musique_ans_v1.0_dev.jsonl");
    assert_contains(
        &text,
        &["1  ", &path.display().to_string(), "left out: 1 row", "row 2: the field answer"],
    );
    assert_contains(&text, &["not downloaded without --all: data/musique_full_v1.0_dev.jsonl"]);
    assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 1);
    assert_contains(&succeeds(&mut info(&path)).0, &["1 task", "2hop__1"]);
    succeeds(fetch("musique", &server, folder.path(), &out).arg("--all"));
    assert!(out.join("data/musique_full_v1.0_dev.jsonl").exists());
}

#[test]
fn spider_is_fetched_with_its_databases() {
    let folder = tempfile::tempdir().unwrap();
    let made = folder.path().join("made");
    make("mini-spider", &made);
    let mut files = Vec::new();
    for name in ["dev.json", "train.json", "tables.json"] {
        files.push((name.to_owned(), fs::read(made.join(name)).unwrap()));
    }
    for entry in fs::read_dir(made.join("database")).unwrap() {
        let id = entry.unwrap().file_name().into_string().unwrap();
        let name = format!("database/{id}/{id}.sqlite");
        files.push((name.clone(), fs::read(made.join(name)).unwrap()));
    }
    let served: Vec<(&str, Vec<u8>)> =
        files.iter().map(|(name, content)| (name.as_str(), content.clone())).collect();
    let server = Server::of_dataset("some/data", &served);
    let out = folder.path().join("out");
    let (text, _) = succeeds(&mut fetch("spider", &server, folder.path(), &out));
    assert_contains(&text, &["8  ", "dev.json", "train.json", "17 databases in"]);
    let (text, stderr) = succeeds(&mut info(&out.join("dev.json")));
    assert_contains(&text, &["8 tasks", "reference queries that run: 8 of 8"]);
    assert_eq!(stderr, "");

    // Without databases only the questions are fetched, with a hint where to get the rest.
    let server = Server::of_dataset("some/data", &served[..1]);
    let home = folder.path().join("other");
    let out = folder.path().join("questions");
    let (text, _) = succeeds(&mut fetch("spider", &server, &home, &out));
    assert_contains(
        &text,
        &["8  ", "has neither tables.json nor databases", "https://", "database/"],
    );
    let server = Server::of_dataset("some/data", &[("README.md", "x".into())]);
    let home = folder.path().join("third");
    assert_contains(
        &refused(&mut fetch("spider", &server, &home, &out)),
        &["some/data", "has no questions"],
    );
}

#[test]
fn a_missing_repository() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::of_dataset("other/data", &[]);
    let sentence = refused(&mut fetch("calcx", &server, folder.path(), &folder.path().join("out")));
    assert_contains(&sentence, &["some/data", "does not exist"]);
    assert!(!folder.path().join("out").exists());
}

#[test]
fn an_unknown_dataset_name() {
    let sentence = refused(&mut leyden(&["data", "info", "mini-clac"]));
    assert_contains(
        &sentence,
        &[
            "mini-clac",
            "no such file",
            "mini-calc, mini-ledger, mini-spider, mini-musique, mini-musique-long",
        ],
    );
    let eval = ["eval", "--model", "tiny", "--data", "mini-clac"];
    assert_contains(&refused(&mut leyden(&eval)), &["mini-clac", "no such file"]);
    let eval = ["eval", "--agent", "nobody", "--model", "tiny", "--data", "mini-calc"];
    assert_contains(&refused(&mut leyden(&eval)), &["nobody", "calc, sql, rag, external and chat"]);
    let output = leyden(&["data", "make", "mini-clac", "--out", "x"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn spider_without_tables_or_with_broken_databases() {
    let folder = tempfile::tempdir().unwrap();
    make("mini-spider", folder.path());
    let dev = folder.path().join("dev.json");
    let rows: serde_json::Value = serde_json::from_slice(&fs::read(&dev).unwrap()).unwrap();
    let id = rows[0]["db_id"].as_str().unwrap();
    let database = folder.path().join(format!("database/{id}/{id}.sqlite"));
    fs::write(&database, "no database at all").unwrap();
    let (text, stderr) = succeeds(&mut info(&dev));
    assert_contains(
        &stderr,
        &[&format!("the database {id} cannot be used"), "is not a readable SQLite file"],
    );
    assert_contains(&text, &[&format!("  not usable: 1 ({id}), ")]);
    fs::remove_file(folder.path().join("tables.json")).unwrap();
    assert_contains(
        &refused(&mut info(&dev)),
        &["there is no file", "tables.json", "next to its questions"],
    );
    fs::write(&dev, "[{\"db_id\": \"x\",\n").unwrap();
    fs::write(folder.path().join("tables.json"), "[]").unwrap();
    assert_contains(
        &refused(&mut info(&dev)),
        &["dev.json", "begins as a JSON list but is not one"],
    );
}

#[test]
fn rows_without_an_answer() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("test.jsonl");
    let row = r#"{"id": "2hop__1_2", "question": "who?", "paragraphs": []}"#;
    fs::write(&path, format!("{row}\n")).unwrap();
    let output = info(&path).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_contains(&stderr, &["test.jsonl, line 1 (id 2hop__1_2): the field answer is missing"]);
    assert_contains(&refused(&mut info(&path)), &["test.jsonl", "no valid rows"]);
}

#[test]
fn a_corpus_without_passages() {
    let folder = tempfile::tempdir().unwrap();
    let corpus = folder.path().join("corpus.jsonl");
    fs::write(&corpus, "\n").unwrap();
    let out = folder.path().join("out");
    let arguments = ["eval", "--agent", "rag", "--model", "tiny", "--data", "mini-musique"];
    let mut command = leyden(&arguments);
    command.args(["--limit", "1", "--corpus"]).arg(&corpus).arg("--out").arg(&out);
    assert_contains(&refused(&mut command), &["retrieval", "passage"]);
    assert!(!out.exists());
}
