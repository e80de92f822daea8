//! Conversations played against the generation engine.

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
    let of = |row: usize| -> &Conversation { &given.conversations[row / samples] };
    let rows = given.conversations.len() * samples;
    let mut histories: Vec<Vec<u32>> = (0..rows).map(|row| of(row).prompt.clone()).collect();
    let mut made = Vec::new();
    for turn in 0..given.turns() {
        let alive: Vec<usize> = (0..rows).filter(|&row| of(row).later.len() >= turn).collect();
        let request = |&row: &usize| {
            let seed = seed.index(row as u64).index(turn as u64);
            Request::new(row as u64, histories[row].clone(), sampling.clone(), seed)
        };
        let requests: Vec<Request> = alive.iter().map(request).collect();
        for (&row, completion) in alive.iter().zip(engine.generate(requests)?) {
            let completion = completion?;
            histories[row].extend(&completion.ids);
            histories[row].extend(of(row).later.get(turn).into_iter().flatten());
            made.push(completion);
        }
    }
    Ok(made)
}
