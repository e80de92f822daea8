//! One engine: a model, its cache, the requests that wait and those that are computed.
//!
//! A step lets requests in, computes one pass of prefill if anything is missing, one token of
//! every row that is ready, and draws. Requests come in one of two ways. Those that arrive
//! one by one join between two steps, and prefill and decoding take turns ([`Wave`] absent).
//! Those of one call of `generate` come in waves: as many as fit with the longest responses
//! that they may get, laid out and prefilled together before the first token is drawn. That
//! costs nothing where all are there from the start, and the batches of every pass, and with
//! them all bytes, depend on the requests alone.

use std::collections::{HashMap, HashSet, VecDeque};

use leyden_core::FinishReason;
use tch::{Device, Tensor};

use crate::error::LmError;
use crate::generate::batch::{DecodeBatch, Row};
use crate::generate::cache::Cache;
use crate::generate::job::Job;
use crate::generate::limits::{EngineStats, Limits};
use crate::generate::model::Model;
use crate::generate::prefill;
use crate::generate::request::{Completion, Request, Sampled, Ticket};
use crate::generate::sampler::{self, Draw, Drawn, sample};
use crate::generate::store::Store;
use crate::model::config::LlamaConfig;
use crate::model::forward::Weights;
use crate::model::rotary::Rotary;

/// What one thread generates with.
pub(super) struct Shard {
    pub(super) model: Model,
    pub(super) limits: Limits,
    pub(super) cache: Cache,
    pub(super) stats: EngineStats,
    /// In the order in which they were submitted.
    pub(super) waiting: VecDeque<Job>,
    pub(super) batch: DecodeBatch,
    pub(super) wave: Option<Wave>,
    /// Passes of prefill since the last step of decoding, where requests arrive one by one.
    passes_in_a_row: usize,
    finished: Vec<(Ticket, Result<Completion, LmError>)>,
}

/// Most passes of prefill without a step of decoding: how long those that generate may be kept
/// waiting by many that arrive.
const PASSES_IN_A_ROW: usize = 4;

/// Requests of one call of `generate`.
#[derive(Default)]
pub(super) struct Wave {
    /// Not all prompts of the wave have been computed.
    pub prefilling: bool,
    /// Hidden states of the last tokens of prompts that have been.
    states: Vec<Tensor>,
}

impl Shard {
    pub fn new(config: LlamaConfig, mut weights: Weights, device: Device, limits: Limits) -> Self {
        weights.pack();
        let options = (weights.embedding.kind(), device);
        let store = || Store::new(&config, options.0, device);
        Self {
            cache: Cache::new(store(), store()),
            model: Model { rotary: Rotary::new(&config, device), config, weights, options },
            limits,
            stats: EngineStats::default(),
            waiting: VecDeque::new(),
            batch: DecodeBatch::default(),
            wave: None,
            passes_in_a_row: 0,
            finished: Vec::new(),
        }
    }

    /// Another one with the same weights, with `limits` for it.
    pub fn beside(&self, limits: Limits) -> Self {
        let Model { config, weights, options, .. } = &self.model;
        Self::new(config.clone(), weights.shallow_clone(), options.1, limits)
    }

    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    pub fn limits(&self) -> Limits {
        self.limits
    }

    pub fn device(&self) -> Device {
        self.model.options.1
    }

    pub fn set_weights(&mut self, mut weights: Weights) {
        weights.pack();
        self.model.weights = weights;
        self.forget_all();
    }

    pub fn forget(&mut self, key: u64) {
        self.cache.forget(key);
    }

    /// What runs waits again, with the tokens that it has.
    pub fn forget_all(&mut self) {
        while let Some(youngest) = self.batch.youngest() {
            self.put_back(youngest);
        }
        self.batch.clear();
        self.cache.clear();
    }

    pub fn stats(&self) -> EngineStats {
        self.stats
    }

    pub fn cached_tokens(&self) -> usize {
        self.cache.row_store.tokens() + self.cache.trunk_store.tokens()
    }

    pub fn running(&self) -> usize {
        self.batch.running().count()
    }

    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.batch.running().next().is_none()
    }

    /// Tokens of a request's prompt that this shard need not compute, and the requests that it
    /// has: what speaks for it and against it.
    pub fn appeal(&self, request: &Request) -> (usize, usize) {
        let waiting = self.waiting.iter().map(|job| {
            let most = job.prompt.min(request.prompt.len().saturating_sub(1));
            crate::generate::cache::common_prefix(&job.tokens[..most], &request.prompt)
        });
        let cached = match request.prompt.len() {
            0 => 0,
            length => self.cache.found(Some(request.key), &request.prompt, length),
        };
        (waiting.max().unwrap_or(0).max(cached), self.waiting.len() + self.running())
    }

    /// Takes in a request; what is wrong with it is a result like any other.
    pub fn submit(&mut self, ticket: Ticket, request: Request) {
        let limit = self.room(&request);
        let settled = self.settled(&request, limit);
        if let Some(settled) = settled.transpose() {
            self.finished.push((ticket, settled));
            return;
        }
        let key = request.key;
        let mut others = self.waiting.iter().chain(self.batch.running().map(|row| &row.job));
        let named = others.all(|job| !(job.named && job.key == key));
        self.waiting.push_back(Job::new(ticket, request, limit, named));
    }

    /// Drops a request, of which nothing is told any more. `false` if it is not here.
    pub fn cancel(&mut self, ticket: Ticket) -> bool {
        if let Some(place) = self.waiting.iter().position(|job| job.ticket == ticket) {
            self.waiting.remove(place);
            return true;
        }
        if let Some(row) = self.batch.find(ticket) {
            self.end(row);
            return true;
        }
        let place = self.finished.iter().position(|(other, _)| *other == ticket);
        place.map(|place| self.finished.remove(place)).is_some()
    }

    pub fn take_finished(&mut self) -> Vec<(Ticket, Result<Completion, LmError>)> {
        std::mem::take(&mut self.finished)
    }

    /// As [`crate::generate::Engine::generate`].
    pub fn generate(
        &mut self,
        requests: Vec<Request>,
    ) -> Result<Vec<Result<Completion, LmError>>, LmError> {
        self.wave = Some(Wave::default());
        // Numbers of this call's own: nothing else is here.
        let mut keys = HashSet::new();
        for (number, request) in (0..).zip(requests) {
            self.submit(Ticket(number), request);
            if let Some(job) = self.waiting.back_mut().filter(|job| job.ticket == Ticket(number)) {
                job.named = keys.insert(job.key);
            }
        }
        let mut stepped = Ok(Vec::new());
        while stepped.is_ok() && !self.is_idle() {
            stepped = self.step();
        }
        self.wave = None;
        self.waiting.clear();
        self.batch.clear();
        let mut finished = self.take_finished();
        stepped?;
        finished.sort_by_key(|&(ticket, _)| ticket);
        Ok(finished.into_iter().map(|(_, result)| result).collect())
    }

    /// As [`crate::generate::Engine::step`].
    pub fn step(&mut self) -> Result<Vec<Sampled>, LmError> {
        let _guard = tch::no_grad_guard();
        let stepped = self.advance();
        if let Err(error) = &stepped {
            self.fail_running(error);
        }
        stepped
    }

    fn advance(&mut self) -> Result<Vec<Sampled>, LmError> {
        let computed = match self.wave {
            Some(_) => {
                self.admit_wave()?;
                self.compute_wave()?
            }
            None => {
                self.admit_arrivals()?;
                self.compute()?
            }
        };
        let Some((hidden, rows)) = computed else { return Ok(Vec::new()) };
        let sampled = self.draw(&hidden, &rows)?;
        self.batch.compact(&mut self.cache)?;
        Ok(sampled)
    }

    /// Prefill for a wave until nothing of it is missing, then decoding: hidden states, and the
    /// rows of the batch that they belong to.
    fn compute_wave(&mut self) -> Result<Option<(Tensor, Vec<usize>)>, LmError> {
        let limit = self.limits.prefill_tokens;
        let Self { model, cache, batch, wave: Some(wave), stats, .. } = self else {
            return Ok(None);
        };
        if !wave.prefilling {
            return self.decode();
        }
        let computed = prefill::trunks(model, cache, &batch.rows, limit)?;
        stats.prefilled_tokens += computed as u64;
        if computed > 0 {
            return Ok(None);
        }
        let (computed, states) = prefill::rows(model, cache, &batch.rows, (limit, 0))?;
        stats.prefilled_tokens += computed as u64;
        wave.states.extend(states);
        if batch.rows.iter().any(|row| row.left(cache) != Some(0)) {
            return Ok(None);
        }
        wave.prefilling = false;
        let states = Tensor::f_cat(&std::mem::take(&mut wave.states), 0)?;
        Ok(Some((states, (0..batch.rows.len()).collect())))
    }

    /// A pass of prefill, where anything is missing, and a step of decoding of the others:
    /// conversations that go on first, for they lack little.
    ///
    /// While more requests wait for their prompt than generate, the step of decoding is left
    /// out, at most [`PASSES_IN_A_ROW`] times: it costs nearly as much for a few rows as for
    /// all, and every pass of prefill adds rows to it.
    fn compute(&mut self) -> Result<Option<(Tensor, Vec<usize>)>, LmError> {
        let limit = self.limits.prefill_tokens;
        let Self { model, cache, batch, .. } = self;
        let (mut computed, _) = prefill::rows(model, cache, &batch.rows, (limit, 1))?;
        if computed == 0 {
            computed = prefill::trunks(model, cache, &batch.rows, limit)?;
        }
        self.stats.prefilled_tokens += computed as u64;
        let (generating, others): (Vec<&Row>, Vec<&Row>) =
            self.batch.running().partition(|row| row.is_ready(&self.cache));
        let more_wait = others.len() + self.waiting.len() > generating.len();
        if computed > 0 && more_wait && self.passes_in_a_row + 1 < PASSES_IN_A_ROW {
            self.passes_in_a_row += 1;
            return Ok(None);
        }
        self.passes_in_a_row = 0;
        self.decode()
    }

    fn decode(&mut self) -> Result<Option<(Tensor, Vec<usize>)>, LmError> {
        let ready = self.with_room()?;
        if ready.is_empty() {
            return Ok(None);
        }
        let begins = |&&i: &&usize| {
            let Row { job, over, .. } = &self.batch.rows[i];
            job.generated() == 0 && !over
        };
        self.stats.prefilled_tokens += ready.iter().filter(begins).count() as u64;
        let hidden = self.batch.decode(&self.model, &mut self.cache, &ready)?;
        Ok(Some((hidden, ready)))
    }

    /// The rows that are ready, when the cache has room for another token of each. Where it is
    /// full, what is idle goes first, then the youngest request: it waits, and is computed
    /// again later from the tokens that it has.
    fn with_room(&mut self) -> Result<Vec<usize>, LmError> {
        loop {
            let ready = self.batch.ready(&self.cache);
            let columns = self.batch.columns(&self.cache, &ready);
            if columns <= self.cache.row_store.capacity() {
                return Ok(ready);
            }
            self.batch.moved();
            if self.wave.is_some() {
                self.cache.row_store.grow(columns)?;
                return Ok(ready);
            }
            self.batch.drop_over();
            let mut rearrangement = self.cache.rearrange(self.limits.cache_tokens);
            if rearrangement.widen(columns) {
                rearrangement.commit()?;
                self.find_rows();
                continue;
            }
            let Some(youngest) = self.batch.youngest() else { return Ok(Vec::new()) };
            if self.batch.rows.len() > 1 {
                self.put_back(youngest);
            } else {
                let error = self.no_room(&self.batch.rows[youngest].job);
                self.finish(youngest, Err(error));
            }
        }
    }

    /// Draws a token for each of `rows` from their hidden states, and ends what it ends.
    fn draw(&mut self, hidden: &Tensor, rows: &[usize]) -> Result<Vec<Sampled>, LmError> {
        let logits = self.model.weights.logits(hidden)?;
        let size = self.model.config.vocab_size;
        let mut refused = Vec::new();
        let mut draws: Vec<Option<Draw>> = Vec::with_capacity(rows.len());
        let mut asked = rows.iter().peekable();
        for (i, row) in self.batch.rows.iter_mut().enumerate() {
            if asked.next_if_eq(&&i).is_none() {
                continue;
            }
            draws.push(match row.over {
                true => None,
                false => row.job.draw(size).map_err(|error| refused.push((i, error))).ok(),
            });
        }
        let drawn = sample(&logits, &draws)?;
        for (row, error) in refused {
            self.finish(row, Err(error));
        }
        let mut sampled = Vec::new();
        for (&row, drawn) in rows.iter().zip(drawn) {
            if let Some(drawn) = drawn {
                sampled.extend(self.accept(row, drawn));
            }
        }
        self.stats.generated_tokens += sampled.len() as u64;
        Ok(sampled)
    }

    fn accept(&mut self, row: usize, drawn: Drawn) -> Option<Sampled> {
        let job = &mut self.batch.rows[row].job;
        let accepted = job.accept(drawn);
        let sampled = job.last();
        match accepted {
            Ok(None) => {}
            Ok(Some(finish)) => {
                let completion = job.complete(finish);
                self.finish(row, Ok(completion));
            }
            Err(error) => self.finish(row, Err(error)),
        }
        sampled
    }

    fn finish(&mut self, row: usize, result: Result<Completion, LmError>) {
        self.finished.push((self.batch.rows[row].job.ticket, result));
        self.end(row);
    }

    /// Nothing more is generated in a row; what it holds stays cached.
    fn end(&mut self, row: usize) {
        let Row { slot, over, .. } = &mut self.batch.rows[row];
        *over = true;
        if self.wave.is_none() {
            self.cache.release(*slot);
        }
    }

    /// A running request waits again, before all that came later.
    fn put_back(&mut self, row: usize) {
        let Row { job, slot, .. } = self.batch.rows.remove(row);
        self.cache.release(slot);
        self.waiting.push_front(job);
        self.batch.moved();
    }

    /// After a rearrangement of the cache.
    pub(super) fn find_rows(&mut self) {
        let slots: HashMap<Ticket, usize> = self.cache.running().collect();
        for row in &mut self.batch.rows {
            row.slot = slots.get(&row.job.ticket).copied().unwrap_or(row.slot);
        }
        self.batch.moved();
    }

    /// What runs fails with `error`, and everything cached is forgotten: keys and values may be
    /// half written.
    fn fail_running(&mut self, error: &LmError) {
        for row in self.batch.rows.drain(..).filter(|row| !row.over) {
            self.finished.push((row.job.ticket, Err(LmError::Failed(error.to_string()))));
        }
        self.batch.clear();
        self.cache.clear();
    }

    /// The first one that waits fails.
    pub(super) fn fail_first(&mut self) {
        if let Some(job) = self.waiting.pop_front() {
            self.finished.push((job.ticket, Err(self.no_room(&job))));
        }
    }

    fn no_room(&self, job: &Job) -> LmError {
        LmError::Invalid(format!(
            "a prompt of {} tokens with up to {} new ones does not fit into a cache of {}",
            job.prompt, job.limit, self.limits.cache_tokens
        ))
    }

    /// Most tokens that can be generated for `request`.
    fn room(&self, request: &Request) -> usize {
        request.sampling.max_tokens.min(self.limits.context.saturating_sub(request.prompt.len()))
    }

    /// The result of a request for which nothing need be generated, at most `limit` tokens being
    /// possible.
    fn settled(&self, request: &Request, limit: usize) -> Result<Option<Completion>, LmError> {
        let Request { prompt, sampling, .. } = request;
        if prompt.is_empty() {
            return Err(LmError::Invalid("the prompt is empty".to_owned()));
        }
        let context = self.limits.context;
        if prompt.len() > context {
            return Err(LmError::PromptTooLong { tokens: prompt.len(), limit: context });
        }
        let vocabulary = self.model.config.vocab_size;
        if let Some(&id) = prompt.iter().find(|&&id| id as usize >= vocabulary) {
            return Err(LmError::TokenOutside { id, vocabulary });
        }
        sampler::check(sampling)?;
        Ok((limit == 0).then(|| Completion {
            ids: Vec::new(),
            logprobs: Vec::new(),
            top: Vec::new(),
            finish: FinishReason::Length,
            cached_tokens: 0,
        }))
    }
}
