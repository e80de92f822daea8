//! `leyden data recall`: recall of the supporting passages, per retriever.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use leyden_core::Task;
use leyden_musique::{corpus, loader};
use leyden_retrieval::{Bm25, Dense, Retriever, recall_at};
use leyden_train::provenance::hash_file;
use serde_json::{Map, Value, json};

use super::encoder::{TextEncoder, embed, graph, hybrid};
use crate::benchmark::read_rows;
use crate::sources::report;
use crate::table::{Side, aligned, counted};

/// Options of the measurement.
pub struct Options {
    /// MuSiQue files; their distinct paragraphs are the corpus.
    pub data: Vec<PathBuf>,
    /// Folder of a sentence encoder; without one, only BM25 is measured.
    pub encoder: Option<PathBuf>,
    /// File that caches the passages' embeddings between runs (.safetensors).
    pub embeddings: Option<PathBuf>,
    /// Values of k for recall@k.
    pub depths: Vec<NonZeroUsize>,
    /// Device of the encoder.
    pub device: String,
}

/// Prints the recall of each retriever; returns the results as JSON.
///
/// # Errors
/// Files that cannot be read or have no question with known support, an encoder that cannot be
/// read.
pub fn recall(options: &Options) -> Result<Value> {
    let mut depths: Vec<usize> = options.depths.iter().map(|k| k.get()).collect();
    depths.sort_unstable();
    depths.dedup();
    let (tasks, files) = read(&options.data)?;
    let questions = questions(&tasks)?;
    let bm25 = Arc::new(Bm25::in_memory(corpus::passages(&tasks))?);
    let passages = bm25.manifest().passages;
    println!(
        "{} with known support, {}\n",
        counted(questions.len(), "question"),
        counted(passages as usize, "passage")
    );
    let mut encoder = Value::Null;
    let mut retrievers: Vec<(&str, Arc<dyn Retriever>)> = vec![("bm25", bm25.clone())];
    if let Some(folder) = &options.encoder {
        let loaded = Arc::new(TextEncoder::load(folder, &options.device)?);
        encoder = json!({ "folder": folder, "sha256": loaded.fingerprint() });
        retrievers.extend(dense_retrievers(loaded, &bm25, options.embeddings.as_deref())?);
    }
    let mut measured = Vec::new();
    for (name, retriever) in &retrievers {
        measured.extend(measure(name, retriever.as_ref(), &questions, &depths)?);
    }
    // All questions first, then each number of hops; within, in the order of the retrievers.
    measured.sort_by(|a, b| a.group.cmp(&b.group));
    print!("{}", table(&measured, &depths));
    let rows: Vec<Value> = measured.iter().map(|row| row.to_json(&depths)).collect();
    Ok(json!({ "data": files, "passages": passages, "encoder": encoder, "recall": rows }))
}

/// The valid rows of all files, and the files' entries in the JSON.
fn read(paths: &[PathBuf]) -> Result<(Vec<Task>, Vec<Value>)> {
    let (mut tasks, mut files) = (Vec::new(), Vec::new());
    for path in paths {
        let loaded = read_rows(path, |path| loader::from_file(path), loader::from_rows)?;
        report(&loaded, path);
        if loaded.tasks.is_empty() {
            bail!("{}: the file has no valid rows", path.display());
        }
        files.push(json!({
            "file": path,
            "tasks": loaded.tasks.len(),
            "rejected": loaded.rejected.len(),
            "sha256": hash_file(path).with_context(|| path.display().to_string())?,
        }));
        tasks.extend(loaded.tasks);
    }
    Ok((tasks, files))
}

/// A question with the ids of the passages that support its answer.
struct Question<'a> {
    task: &'a Task,
    supporting: Vec<String>,
}

fn questions(tasks: &[Task]) -> Result<Vec<Question<'_>>> {
    let question = |task| Question { task, supporting: corpus::supporting(task) };
    let mut questions: Vec<Question> = tasks.iter().map(question).collect();
    questions.retain(|question| !question.supporting.is_empty());
    if questions.is_empty() {
        bail!(
            "none of {} has a paragraph that is marked as supporting its answer; recall needs \
             rows with paragraphs and is_supporting",
            counted(tasks.len(), "row")
        );
    }
    Ok(questions)
}

/// The retrievers that need an encoder, by their names in the table.
fn dense_retrievers(
    encoder: Arc<TextEncoder>,
    bm25: &Arc<Bm25>,
    kept: Option<&Path>,
) -> Result<Vec<(&'static str, Arc<dyn Retriever>)>> {
    let exact = embed(&encoder, bm25, kept)?;
    let graph = graph(&exact)?;
    let graph = Dense::new(encoder.clone(), Box::new(graph), bm25.clone());
    let exact = Arc::new(Dense::new(encoder, Box::new(exact), bm25.clone()));
    let fused = hybrid(bm25.clone(), exact.clone());
    Ok(vec![
        ("dense, exact", exact),
        ("dense, HNSW", Arc::new(graph)),
        ("hybrid of bm25 and dense", Arc::new(fused)),
    ])
}

/// Mean recall of one retriever over one group of questions.
struct Measured {
    retriever: String,
    /// Empty for all questions, so that they come first; else `2 hops` and the like.
    group: String,
    questions: usize,
    /// One value per depth, in [0, 1].
    recall: Vec<f64>,
}

impl Measured {
    fn group(&self) -> &str {
        if self.group.is_empty() { "all" } else { &self.group }
    }

    fn to_json(&self, depths: &[usize]) -> Value {
        let recall =
            depths.iter().zip(&self.recall).map(|(k, recall)| (k.to_string(), json!(recall)));
        json!({
            "retriever": self.retriever,
            "group": self.group(),
            "questions": self.questions,
            "at": recall.collect::<Map<_, _>>(),
        })
    }
}

fn measure(
    name: &str,
    retriever: &dyn Retriever,
    questions: &[Question],
    depths: &[usize],
) -> Result<Vec<Measured>> {
    let deepest = depths.last().copied().unwrap_or_default();
    let mut sums: BTreeMap<String, (usize, Vec<f64>)> = BTreeMap::new();
    for Question { task, supporting } in questions {
        let hits = retriever.retrieve(&task.question, deepest).with_context(|| task.id.clone())?;
        let found: Vec<&str> = hits.iter().map(|hit| hit.passage.id.as_str()).collect();
        let hops = task.label("hops").map(|hops| format!("{hops} hops"));
        for group in hops.into_iter().chain([String::new()]) {
            let (count, sum) = sums.entry(group).or_insert_with(|| (0, vec![0.0; depths.len()]));
            *count += 1;
            for (sum, &k) in sum.iter_mut().zip(depths) {
                *sum += recall_at(k, &found, supporting).unwrap_or_default();
            }
        }
    }
    let mean = |(group, (questions, sums)): (String, (usize, Vec<f64>))| Measured {
        retriever: name.to_owned(),
        group,
        questions,
        recall: sums.into_iter().map(|sum| sum / questions as f64).collect(),
    };
    Ok(sums.into_iter().map(mean).collect())
}

fn table(measured: &[Measured], depths: &[usize]) -> String {
    let head = ["questions", "", "retriever"].map(str::to_owned);
    let columns = depths.iter().map(|k| format!("recall@{k}"));
    let mut rows = vec![head.into_iter().chain(columns).collect::<Vec<_>>()];
    for row in measured {
        let cells = [row.group().to_owned(), row.questions.to_string(), row.retriever.clone()];
        let recall = row.recall.iter().map(|recall| format!("{recall:.3}"));
        rows.push(cells.into_iter().chain(recall).collect());
    }
    let mut sides = vec![Side::Left, Side::Right, Side::Left];
    sides.resize(3 + depths.len(), Side::Right);
    aligned(&rows, &sides)
}

#[cfg(test)]
mod tests {
    use leyden_core::Passage;
    use leyden_retrieval::{Hit, RetrievalError};

    use super::*;

    /// Finds the passages whose ids the query lists.
    struct Listed;

    impl Retriever for Listed {
        fn retrieve(&self, query: &str, k: usize) -> Result<Vec<Hit>, RetrievalError> {
            let hit = |(number, id): (usize, &str)| {
                let (id, text) = (id.to_owned(), "x".to_owned());
                Hit { passage: Passage { id, title: String::new(), text }, number, score: 1.0 }
            };
            Ok(query.split_whitespace().enumerate().take(k).map(hit).collect())
        }
    }

    #[test]
    fn recall_is_a_mean_over_questions_in_groups() {
        let task = |question: &str, hops: &str| Task {
            id: "t".to_owned(),
            question: question.to_owned(),
            gold: "A".to_owned(),
            labels: vec![("hops".to_owned(), hops.to_owned())],
            fields: Map::new(),
        };
        let tasks = [task("a x b", "2"), task("x a", "2"), task("x y z", "3")];
        let support: [&[&str]; 3] = [&["a", "b"], &["a"], &["z", "w"]];
        let questions: Vec<Question> = tasks
            .iter()
            .zip(support)
            .map(|(task, ids)| Question {
                task,
                supporting: ids.iter().map(|id| (*id).to_owned()).collect(),
            })
            .collect();
        let measured = measure("listed", &Listed, &questions, &[1, 2, 3]).unwrap();
        let summary: Vec<_> =
            measured.iter().map(|m| (m.group(), m.questions, &m.recall)).collect();
        let third = |sum: f64| sum / 3.0;
        assert_eq!(
            summary,
            [
                ("all", 3, &vec![third(0.5), third(1.5), third(2.5)]),
                ("2 hops", 2, &vec![0.25, 0.75, 1.0]),
                ("3 hops", 1, &vec![0.0, 0.0, 0.5]),
            ]
        );
        let text = table(&measured[..1], &[1, 2, 3]);
        let expected = "questions     retriever  recall@1  recall@2  recall@3\n\
                        all        3  listed        0.167     0.500     0.833\n";
        assert_eq!(text, expected);
        assert_eq!(measured[1].to_json(&[1, 2, 3])["at"]["2"], 0.75);
    }
}
