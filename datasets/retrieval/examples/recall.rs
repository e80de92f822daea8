//! How much of what supports an answer BM25 finds with the question as the query:
//! `cargo run --release -p leyden-retrieval --example recall FILE.jsonl`.
//!
//! The corpus is the distinct paragraphs of the MuSiQue file itself.

use std::collections::BTreeMap;
use std::error::Error;

use leyden_musique::{corpus, loader};
use leyden_retrieval::{Bm25, Retriever, recall_at};

const DEPTHS: [usize; 4] = [2, 4, 10, 20];

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args().nth(1).ok_or("which MuSiQue file? give its path")?;
    let loaded = loader::from_file(&path)?;
    for rejected in &loaded.rejected {
        eprintln!("left out: {rejected}");
    }
    let passages = corpus::passages(&loaded.tasks);
    println!("{} questions, {} passages", loaded.tasks.len(), passages.len());
    let index = Bm25::in_memory(passages)?;
    // Recalls by number of hops and over all questions.
    let mut recalls: BTreeMap<String, Vec<[f64; DEPTHS.len()]>> = BTreeMap::new();
    for task in &loaded.tasks {
        let supporting = corpus::supporting(task);
        let hits = index.retrieve(&task.question, DEPTHS[DEPTHS.len() - 1])?;
        let found: Vec<String> = hits.into_iter().map(|hit| hit.passage.id).collect();
        let mut row = [0.0; DEPTHS.len()];
        for (value, k) in row.iter_mut().zip(DEPTHS) {
            let Some(recall) = recall_at(k, &found, &supporting) else { continue };
            *value = recall;
        }
        if !supporting.is_empty() {
            let hops = format!("{} hops", task.label("hops").unwrap_or("?"));
            recalls.entry(hops).or_default().push(row);
            recalls.entry("all".to_owned()).or_default().push(row);
        }
    }
    let header: Vec<String> =
        DEPTHS.iter().map(|k| format!("{:>9}", format!("recall@{k}"))).collect();
    println!("{:<8}{:>9} {}", "", "questions", header.join(" "));
    for (name, rows) in recalls {
        let mean = |at: usize| rows.iter().map(|row| row[at]).sum::<f64>() / rows.len() as f64;
        let means: Vec<String> = (0..DEPTHS.len()).map(|at| format!("{:>9.3}", mean(at))).collect();
        println!("{name:<8}{:>9} {}", rows.len(), means.join(" "));
    }
    Ok(())
}
