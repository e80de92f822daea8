//! How fast BM25 builds and answers: `cargo run --release -p leyden-retrieval --example bm25_rate [PASSAGES]`.
//!
//! Passages are made up: about eighty words each, whose frequencies fall as in natural text
//! (Zipf). Queries have eight words. Two threads search.

use std::error::Error;
use std::time::Instant;

use leyden_core::{Passage, SeedTree};
use leyden_retrieval::{Bm25, BuildOptions, Retriever};

const VOCABULARY: f64 = 100_000.0;
const QUERIES: usize = 20_000;
const THREADS: usize = 2;
const TOP: usize = 4;

/// A word whose rank is drawn with probability about 1 / rank.
fn word(node: SeedTree) -> String {
    let rank = VOCABULARY.powf(node.uniform()) as u64;
    format!("w{:x}", rank.wrapping_mul(0x9e37_79b9) & 0xffff_ffff)
}

fn words(node: SeedTree, count: u64) -> String {
    (0..count).map(|i| word(node.index(i))).collect::<Vec<_>>().join(" ")
}

fn main() -> Result<(), Box<dyn Error>> {
    let count: u64 = match std::env::args().nth(1) {
        Some(text) => text.parse()?,
        None => 100_000,
    };
    let root = SeedTree::new(1);
    let passages: Vec<Passage> = (0..count)
        .map(|n| {
            let node = root.child("passage").index(n);
            let length = 60 + (node.child("length").uniform() * 40.0) as u64;
            let (id, title) = (n.to_string(), words(node.child("title"), 3));
            Passage { id, title, text: words(node.child("text"), length) }
        })
        .collect();
    let queries: Vec<String> =
        (0..QUERIES as u64).map(|n| words(root.child("query").index(n), 8)).collect();

    let folder = std::env::temp_dir().join(format!("leyden-bm25-rate-{}", std::process::id()));
    let start = Instant::now();
    let manifest =
        Bm25::build(&folder, passages.into_iter().map(Ok), &BuildOptions::default(), &mut |_| {})?;
    let seconds = start.elapsed().as_secs_f64();
    println!(
        "build: {count} passages, {} MB, {:.0} passages/s",
        manifest.bytes >> 20,
        count as f64 / seconds
    );

    let start = Instant::now();
    let index = Bm25::open(&folder)?;
    println!("open: {:.3} s", start.elapsed().as_secs_f64());
    let start = Instant::now();
    let found: usize = std::thread::scope(|scope| {
        let search = |part: usize| {
            let mine = queries.iter().skip(part).step_by(THREADS);
            mine.map(|query| index.retrieve(query, TOP).map_or(0, |hits| hits.len())).sum::<usize>()
        };
        let threads: Vec<_> = (0..THREADS).map(|part| scope.spawn(move || search(part))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or(0)).sum()
    });
    let seconds = start.elapsed().as_secs_f64();
    println!(
        "search: {:.0} queries/s (top {TOP}, {THREADS} threads, {found} hits)",
        QUERIES as f64 / seconds
    );
    drop(index);
    std::fs::remove_dir_all(folder)?;
    Ok(())
}
