//! BM25 over titles and texts of passages (Robertson and Zaragoza 2009; k1 = 1.2, b = 0.75).

use std::collections::HashMap;

use leyden_mini::MiniMusique;

pub struct Index {
    /// Word to (passage, occurrences).
    postings: HashMap<String, Vec<(usize, f64)>>,
    lengths: Vec<f64>,
    mean_length: f64,
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty())
}

impl Index {
    pub fn new(world: &MiniMusique) -> Self {
        let mut postings: HashMap<String, Vec<(usize, f64)>> = HashMap::new();
        let mut lengths = Vec::new();
        for (i, passage) in world.passages().iter().enumerate() {
            let mut counts: HashMap<&str, f64> = HashMap::new();
            let all = words(&passage.title).chain(words(&passage.text));
            all.for_each(|word| *counts.entry(word).or_default() += 1.0);
            lengths.push(counts.values().sum());
            for (word, count) in counts {
                postings.entry(word.to_string()).or_default().push((i, count));
            }
        }
        let mean_length = lengths.iter().sum::<f64>() / lengths.len() as f64;
        Self { postings, lengths, mean_length }
    }

    /// The `k` best passages, ties in the order of the passages.
    pub fn search(&self, query: &str, k: usize) -> Vec<usize> {
        let (k1, b) = (1.2, 0.75);
        let n = self.lengths.len() as f64;
        let mut scores: HashMap<usize, f64> = HashMap::new();
        for word in words(query) {
            let Some(list) = self.postings.get(word) else { continue };
            let df = list.len() as f64;
            let idf = (1.0 + (n - df + 0.5) / (df + 0.5)).ln();
            for &(i, tf) in list {
                let norm = k1 * (1.0 - b + b * self.lengths[i] / self.mean_length);
                *scores.entry(i).or_default() += idf * tf * (k1 + 1.0) / (tf + norm);
            }
        }
        let mut ranked: Vec<(usize, f64)> = scores.into_iter().collect();
        ranked.sort_by(|x, y| y.1.total_cmp(&x.1).then(x.0.cmp(&y.0)));
        ranked.into_iter().take(k).map(|(i, _)| i).collect()
    }
}
