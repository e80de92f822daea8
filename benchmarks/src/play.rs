//! Plays multi-turn conversations against the generation engine.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::Result;
use leyden_core::{Sampling, SeedTree};
use leyden_lm::generate::{Completion, Engine, Request, Ticket};

use crate::work::{Conversation, Conversations};

/// How conversations are synchronised between turns.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Schedule {
    /// All conversations advance one turn together.
    #[default]
    Lockstep,
    /// Each conversation continues as soon as its own tool call finishes.
    Continuous,
}

/// Parameters of one run: the conversations, and the tool delays between turns.
#[derive(Debug, Clone)]
pub struct Play<'a> {
    pub given: &'a Conversations,
    /// Per conversation.
    pub samples: usize,
    pub sampling: Sampling,
    pub seed: SeedTree,
    pub schedule: Schedule,
    /// Mean duration of a tool call; each is drawn uniformly from 0 to twice this.
    pub tool: Duration,
}

impl Play<'_> {
    fn of(&self, row: usize) -> &Conversation {
        &self.given.conversations[row / self.samples]
    }

    fn rows(&self) -> usize {
        self.given.conversations.len() * self.samples
    }

    fn request(&self, row: usize, turn: usize, history: &[u32]) -> Request {
        let seed = self.seed.index(row as u64).index(turn as u64);
        Request::new(row as u64, history.to_vec(), self.sampling.clone(), seed)
    }

    /// Duration of the tool call after a turn.
    fn tool_time(&self, row: usize, turn: usize) -> Duration {
        let draw = self.seed.child("tool").index(row as u64).index(turn as u64).uniform();
        self.tool.mul_f64(2.0 * draw)
    }

    /// Plays all samples of all conversations to their end, starting with an empty cache. Returns
    /// the responses: by turn in lockstep, otherwise in order of completion.
    ///
    /// # Errors
    /// Errors of the engine.
    pub fn run(&self, engine: &mut Engine) -> Result<Vec<Completion>> {
        engine.forget_all();
        let mut histories: Vec<Vec<u32>> =
            (0..self.rows()).map(|row| self.of(row).prompt.clone()).collect();
        match self.schedule {
            Schedule::Lockstep => self.lockstep(engine, &mut histories),
            Schedule::Continuous => self.continuous(engine, &mut histories),
        }
    }

    fn lockstep(&self, engine: &mut Engine, histories: &mut [Vec<u32>]) -> Result<Vec<Completion>> {
        let mut made = Vec::new();
        for turn in 0..self.given.turns() {
            let alive: Vec<usize> =
                (0..self.rows()).filter(|&row| self.of(row).later.len() >= turn).collect();
            if turn > 0 {
                // The round begins when the slowest tool call is done.
                let times = alive.iter().map(|&row| self.tool_time(row, turn - 1));
                std::thread::sleep(times.max().unwrap_or_default());
            }
            let requests =
                alive.iter().map(|&row| self.request(row, turn, &histories[row])).collect();
            for (&row, completion) in alive.iter().zip(engine.generate(requests)?) {
                let completion = completion?;
                self.grow(&mut histories[row], row, turn, &completion);
                made.push(completion);
            }
        }
        Ok(made)
    }

    fn continuous(
        &self,
        engine: &mut Engine,
        histories: &mut [Vec<u32>],
    ) -> Result<Vec<Completion>> {
        let mut made = Vec::new();
        let mut open: HashMap<Ticket, (usize, usize)> = HashMap::new();
        // Turns whose tool call is running: due time, row, turn.
        let mut waiting: Vec<(Instant, usize, usize)> =
            (0..self.rows()).map(|row| (Instant::now(), row, 0)).collect();
        while !(open.is_empty() && waiting.is_empty()) {
            let now = Instant::now();
            let (ready, later): (Vec<_>, Vec<_>) =
                waiting.into_iter().partition(|(due, ..)| *due <= now);
            waiting = later;
            for (_, row, turn) in ready {
                let ticket = engine.submit(self.request(row, turn, &histories[row]));
                open.insert(ticket, (row, turn));
            }
            if open.is_empty() {
                let next = waiting.iter().map(|(due, ..)| *due).min().unwrap_or(now);
                std::thread::sleep(next.saturating_duration_since(now));
                continue;
            }
            engine.step()?;
            for (ticket, completion) in engine.take_finished() {
                let Some((row, turn)) = open.remove(&ticket) else { continue };
                let completion = completion?;
                self.grow(&mut histories[row], row, turn, &completion);
                if self.of(row).later.len() > turn {
                    waiting.push((Instant::now() + self.tool_time(row, turn), row, turn + 1));
                }
                made.push(completion);
            }
        }
        Ok(made)
    }

    /// Appends a response and the tool result after it.
    fn grow(&self, history: &mut Vec<u32>, row: usize, turn: usize, completion: &Completion) {
        history.extend(&completion.ids);
        history.extend(self.of(row).later.get(turn).into_iter().flatten());
    }
}

/// Plays in lockstep with instantaneous tools.
///
/// # Errors
/// Errors of the engine.
pub fn play(
    engine: &mut Engine,
    given: &Conversations,
    samples: usize,
    sampling: &Sampling,
    seed: SeedTree,
) -> Result<Vec<Completion>> {
    let (sampling, schedule) = (sampling.clone(), Schedule::Lockstep);
    Play { given, samples, sampling, seed, schedule, tool: Duration::ZERO }.run(engine)
}
