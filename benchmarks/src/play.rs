//! Conversations played against the generation engine.

use std::sync::Arc;

use anyhow::Result;
use leyden_core::{Sampling, SeedTree};
use leyden_lm::{Completion, Engine, Request};

use crate::work::{Conversation, Conversations};

/// Plays all samples of all conversations to their end, from an empty cache. Returns the
/// responses, turn by turn.
///
/// # Errors
/// The engine's own.
pub fn play(
    engine: &mut Engine,
    given: &Conversations,
    samples: usize,
    sampling: &Sampling,
    seed: SeedTree,
) -> Result<Vec<Completion>> {
    engine.forget_all();
    let stop_ids: Arc<[u32]> = Arc::new([]);
    let of = |row: usize| -> &Conversation { &given.conversations[row / samples] };
    let rows = given.conversations.len() * samples;
    let mut histories: Vec<Vec<u32>> = (0..rows).map(|row| of(row).prompt.clone()).collect();
    let mut made = Vec::new();
    for turn in 0..given.turns() {
        let alive: Vec<usize> = (0..rows).filter(|&row| of(row).later.len() >= turn).collect();
        let request = |&row: &usize| Request {
            key: row as u64,
            prompt: histories[row].clone(),
            sampling: sampling.clone(),
            seed: seed.index(row as u64).index(turn as u64),
            stop_ids: Arc::clone(&stop_ids),
            stop: None,
        };
        let requests: Vec<Request> = alive.iter().map(request).collect();
        for (&row, completion) in alive.iter().zip(engine.generate(&requests)?) {
            let completion = completion?;
            histories[row].extend(&completion.ids);
            histories[row].extend(of(row).later.get(turn).into_iter().flatten());
            made.push(completion);
        }
    }
    Ok(made)
}
