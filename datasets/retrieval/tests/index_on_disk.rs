//! Indexes on disk: atomic builds, and rejection of damaged indexes.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use leyden_core::Passage;
use leyden_core::rows::LoadError;
use leyden_retrieval::{Bm25, BuildOptions, IndexError, MANIFEST, Manifest, Retriever};
use serde_json::{Value, json};

fn corpus(count: usize) -> impl Iterator<Item = Passage> + Clone {
    (0..count).map(|n| Passage {
        id: format!("p{n}"),
        title: format!("Title {}", n % 7),
        text: format!("common word{} and number{n}", n % 13),
    })
}

fn build_with(
    folder: &Path,
    passages: impl IntoIterator<Item = Result<Passage, LoadError>>,
) -> Result<Manifest, IndexError> {
    Bm25::build(folder, passages, &BuildOptions::default(), &mut |_| {})
}

fn build(folder: &Path, count: usize) -> Manifest {
    build_with(folder, corpus(count).map(Ok)).unwrap()
}

fn opening_error(folder: &Path) -> String {
    Bm25::open(folder).map(|_| ()).unwrap_err().to_string()
}

fn names(folder: &Path) -> Vec<String> {
    let name = |entry: fs::DirEntry| entry.file_name().to_string_lossy().into_owned();
    fs::read_dir(folder).unwrap().map(|entry| name(entry.unwrap())).collect()
}

#[test]
fn an_index_on_disk_gives_the_results_of_one_in_memory() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("index");
    let mut reports = Vec::new();
    let options = BuildOptions::default();
    let manifest =
        Bm25::build(&folder, corpus(2500).map(Ok), &options, &mut |n| reports.push(n)).unwrap();
    assert_eq!(reports, [1000, 2000, 2500]);
    assert_eq!(manifest.passages, 2500);
    assert!(manifest.bytes > 100_000);
    let (disk, memory) = (Bm25::open(&folder).unwrap(), Bm25::in_memory(corpus(2500)).unwrap());
    assert_eq!(disk.manifest(), &manifest);
    assert_eq!(disk.manifest().source_sha256, memory.manifest().source_sha256);
    for query in ["common", "word3 title", "number77", "Title 2 word12 number1000", "none"] {
        assert_eq!(disk.retrieve(query, 20).unwrap(), memory.retrieve(query, 20).unwrap());
    }
    Bm25::verify(&folder).unwrap();
    // Only the index is left in the folder.
    assert_eq!(names(root.path()), ["index"]);
    assert!(!names(&folder).contains(&"build.lock".to_owned()));
}

#[test]
fn the_hash_is_of_the_corpus_and_its_order() {
    let hash = |passages: Vec<Passage>| {
        Bm25::in_memory(passages).unwrap().manifest().source_sha256.clone()
    };
    let passages: Vec<Passage> = corpus(3).collect();
    assert_eq!(hash(passages.clone()), hash(passages.clone()));
    assert_ne!(hash(passages.clone()), hash(passages[..2].to_vec()));
    assert_ne!(hash(passages.clone()), hash(passages.iter().rev().cloned().collect()));
    let moved = |title: &str, text: &str| {
        hash(vec![Passage { id: "p".into(), title: title.into(), text: text.into() }])
    };
    assert_ne!(moved("a", "bc"), moved("ab", "c"));
}

#[test]
fn partial_indexes_are_never_visible() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("index");
    let watched = corpus(50).map(|passage| {
        assert!(!folder.exists());
        Ok(passage)
    });
    build_with(&folder, watched).unwrap();
    assert!(Bm25::open(&folder).is_ok());
}

#[test]
fn a_failed_build_leaves_no_files() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("index");
    let broken =
        || LoadError { path: "corpus.jsonl".into(), source: std::io::Error::other("gone") };
    let passages = corpus(10).map(Ok).chain([Err(broken())]);
    let error = build_with(&folder, passages).unwrap_err();
    assert_eq!(error.to_string(), "the file corpus.jsonl cannot be read: gone");
    let error = build_with(&folder, []).unwrap_err();
    assert!(matches!(error, IndexError::EmptyCorpus));
    assert!(names(root.path()).is_empty());
}

#[test]
fn files_of_a_killed_build_are_cleared() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("index");
    let dying = corpus(10).map(|passage| {
        assert_ne!(passage.id, "p7", "killed");
        Ok(passage)
    });
    assert!(catch_unwind(AssertUnwindSafe(|| build_with(&folder, dying))).is_err());
    assert_eq!(names(root.path()), [".index.building"]);
    assert!(opening_error(&folder).starts_with("there is no index in "));
    build(&folder, 10);
    assert_eq!(Bm25::open(&folder).unwrap().manifest().passages, 10);
    assert_eq!(names(root.path()), ["index"]);
}

#[test]
fn concurrent_builds_of_one_index_are_excluded() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("index");
    let mut second = None;
    let passages = corpus(3).map(|passage| {
        second.get_or_insert_with(|| build_with(&folder, corpus(5).map(Ok)));
        Ok(passage)
    });
    build_with(&folder, passages).unwrap();
    let error = second.unwrap().unwrap_err();
    assert!(error.to_string().ends_with("is being built by another process"), "{error}");
    assert_eq!(Bm25::open(&folder).unwrap().manifest().passages, 3);
}

#[test]
fn existing_files_are_not_overwritten() {
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("letter.txt"), "x").unwrap();
    let error = build_with(root.path(), corpus(3).map(Ok)).unwrap_err();
    assert!(error.to_string().contains("exists and is not empty"), "{error}");
    let empty = root.path().join("empty");
    fs::create_dir(&empty).unwrap();
    build(&empty, 3);
    assert!(Bm25::open(&empty).is_ok());
}

#[test]
fn another_version_is_rejected() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("index");
    build(&folder, 3);
    let manifest = folder.join(MANIFEST);
    let mut content: Value = serde_json::from_slice(&fs::read(&manifest).unwrap()).unwrap();
    content["format"] = json!(2);
    content["news"] = json!("of a later version");
    fs::write(&manifest, content.to_string()).unwrap();
    let error = opening_error(&folder);
    let expected = "has format 2, this program reads format 1; build it again";
    assert!(error.starts_with("the index in ") && error.ends_with(expected), "{error}");
}

#[test]
fn damage_is_reported_and_never_searched() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("index");
    build(&folder, 300);
    for name in names(&folder) {
        let path = folder.join(&name);
        let whole = fs::read(&path).unwrap();
        // Lock files are empty, and the list of managed files is not needed for reading.
        if whole.is_empty() || name == ".managed.json" {
            continue;
        }
        let mut broken = vec![whole[..whole.len() / 2].to_vec(), Vec::new()];
        if !name.ends_with(".json") {
            for place in [0, whole.len() / 2, whole.len() - 1] {
                let mut flipped = whole.clone();
                flipped[place] ^= 0x10;
                broken.push(flipped);
            }
        }
        for content in broken {
            fs::write(&path, content).unwrap();
            let error = opening_error(&folder);
            assert!(error.contains("is damaged (") && error.ends_with("build it again"), "{error}");
        }
        fs::remove_file(&path).unwrap();
        assert!(opening_error(&folder).contains("index"), "{name}");
        fs::write(&path, whole).unwrap();
        assert!(Bm25::open(&folder).is_ok(), "{name}");
    }
}

#[test]
fn a_folder_without_an_index_is_an_error() {
    let error = opening_error(Path::new("/nowhere/index"));
    let expected = "there is no index in /nowhere/index: leyden-index.json cannot be read (";
    assert!(error.starts_with(expected), "{error}");
}
