//! One engine: a model, its cache, waiting and running requests.
//!
//! A step admits requests, runs one prefill pass if prompts are incomplete, computes one token of
//! every row that is ready, and samples. There are two modes. Requests submitted one by one join
//! between two steps, and prefill and decoding alternate ([`Wave`] absent). The requests of one
//! call of `generate` run in waves: as many as fit with their maximum response lengths, placed and
//! prefilled together before the first token is sampled. That has no cost if all are known from the
//! start, and the batches of every pass, and with them all bytes, depend on the requests alone.

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

/// The generation state of one thread.
pub(super) struct Shard {
    pub(super) model: Model,
    pub(super) limits: Limits,
    pub(super) cache: Cache,
    pub(super) stats: EngineStats,
    /// In order of submission.
    pub(super) waiting: VecDeque<Job>,
    pub(super) batch: DecodeBatch,
    pub(super) wave: Option<Wave>,
    /// Prefill passes since the last decoding step, for requests submitted one by one.
    passes_in_a_row: usize,
    finished: Vec<(Ticket, Result<Completion, LmError>)>,
}

/// Maximum prefill passes without a decoding step: bounds how long many arrivals may delay
/// generating requests.
const PASSES_IN_A_ROW: usize = 4;

/// Requests of one call of `generate`.
#[derive(Default)]
pub(super) struct Wave {
    /// Not all prompts of the wave have been computed.
    pub prefilling: bool,
    /// Hidden states of the last tokens of the prompts computed so far.
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

    /// A second shard with the same weights and its own `limits`.
    pub fn with_limits(&self, limits: Limits) -> Self {
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

    /// Running requests are requeued with the tokens they have.
    pub fn forget_all(&mut self) {
        while let Some(youngest) = self.batch.youngest() {
            self.requeue(youngest);
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

    /// Prompt tokens of a request that this shard has cached, and its number of requests: the
    /// arguments for and against placing the request here.
    pub fn placement_score(&self, request: &Request) -> (usize, usize) {
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

    /// Adds a request; an invalid one is reported as a result.
    pub fn submit(&mut self, ticket: Ticket, request: Request) {
        let limit = self.max_new_tokens(&request);
        let result = self.immediate_result(&request, limit);
        if let Some(result) = result.transpose() {
            self.finished.push((ticket, result));
            return;
        }
        let key = request.key;
        let mut others = self.waiting.iter().chain(self.batch.running().map(|row| &row.job));
        let named = others.all(|job| !(job.named && job.key == key));
        self.waiting.push_back(Job::new(ticket, request, limit, named));
    }

    /// Cancels a request; no further results are reported for it. Returns `false` if it is unknown.
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
        // Tickets are numbered per call: no other requests are present.
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

    /// Prefills a wave until it is complete, then decodes: returns hidden states, and the rows of
    /// the batch that they belong to.
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

    /// Runs a prefill pass if prompts are incomplete, and a decoding step of the others:
    /// conversations that continue come first, since they lack few tokens.
    ///
    /// While more requests wait for their prompt than generate, the decoding step is skipped, at
    /// most [`PASSES_IN_A_ROW`] times: it costs nearly as much for a few rows as for all, and every
    /// prefill pass adds rows to it.
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
        let ready = self.rows_with_space()?;
        if ready.is_empty() {
            return Ok(None);
        }
        let begins = |&&i: &&usize| {
            let Row { job, finished, .. } = &self.batch.rows[i];
            job.generated() == 0 && !finished
        };
        self.stats.prefilled_tokens += ready.iter().filter(begins).count() as u64;
        let hidden = self.batch.decode(&self.model, &mut self.cache, &ready)?;
        Ok(Some((hidden, ready)))
    }

    /// The rows that are ready, once the cache has space for another token of each. If it is full,
    /// idle entries are evicted first, then the most recent request is requeued and later
    /// recomputed from the tokens it has.
    fn rows_with_space(&mut self) -> Result<Vec<usize>, LmError> {
        loop {
            let ready = self.batch.ready(&self.cache);
            let columns = self.batch.columns(&self.cache, &ready);
            if columns <= self.cache.row_store.capacity() {
                return Ok(ready);
            }
            self.batch.invalidate();
            if self.wave.is_some() {
                self.cache.row_store.grow(columns)?;
                return Ok(ready);
            }
            self.batch.drop_finished();
            let mut rearrangement = self.cache.rearrange(self.limits.cache_tokens);
            if rearrangement.widen(columns) {
                rearrangement.commit()?;
                self.find_rows();
                continue;
            }
            let Some(youngest) = self.batch.youngest() else { return Ok(Vec::new()) };
            if self.batch.rows.len() > 1 {
                self.requeue(youngest);
            } else {
                let error = self.out_of_space(&self.batch.rows[youngest].job);
                self.finish(youngest, Err(error));
            }
        }
    }

    /// Draws a token for each of `rows` from their hidden states, and ends finished requests.
    fn draw(&mut self, hidden: &Tensor, rows: &[usize]) -> Result<Vec<Sampled>, LmError> {
        let logits = self.model.weights.logits(hidden)?;
        let size = self.model.config.vocab_size;
        let mut refused = Vec::new();
        let mut draws: Vec<Option<Draw>> = Vec::with_capacity(rows.len());
        let mut pending = rows.iter().peekable();
        for (i, row) in self.batch.rows.iter_mut().enumerate() {
            if pending.next_if_eq(&&i).is_none() {
                continue;
            }
            draws.push(match row.finished {
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

    /// Ends generation in a row; its tokens stay cached.
    fn end(&mut self, row: usize) {
        let Row { slot, finished, .. } = &mut self.batch.rows[row];
        *finished = true;
        if self.wave.is_none() {
            self.cache.release(*slot);
        }
    }

    /// Requeues a running request, before all later ones.
    fn requeue(&mut self, row: usize) {
        let Row { job, slot, .. } = self.batch.rows.remove(row);
        self.cache.release(slot);
        self.waiting.push_front(job);
        self.batch.invalidate();
    }

    /// Updates the rows after a rearrangement of the cache.
    pub(super) fn find_rows(&mut self) {
        let slots: HashMap<Ticket, usize> = self.cache.running().collect();
        for row in &mut self.batch.rows {
            row.slot = slots.get(&row.job.ticket).copied().unwrap_or(row.slot);
        }
        self.batch.invalidate();
    }

    /// Fails the running requests with `error` and clears the cache: keys and values may be half
    /// written.
    fn fail_running(&mut self, error: &LmError) {
        for row in self.batch.rows.drain(..).filter(|row| !row.finished) {
            self.finished.push((row.job.ticket, Err(LmError::Failed(error.to_string()))));
        }
        self.batch.clear();
        self.cache.clear();
    }

    /// Fails the first waiting request.
    pub(super) fn fail_first(&mut self) {
        if let Some(job) = self.waiting.pop_front() {
            self.finished.push((job.ticket, Err(self.out_of_space(&job))));
        }
    }

    fn out_of_space(&self, job: &Job) -> LmError {
        LmError::Invalid(format!(
            "a prompt of {} tokens with up to {} new ones does not fit into a cache of {}",
            job.prompt, job.limit, self.limits.cache_tokens
        ))
    }

    /// Maximum number of tokens that can be generated for `request`.
    fn max_new_tokens(&self, request: &Request) -> usize {
        request.sampling.max_tokens.min(self.limits.context.saturating_sub(request.prompt.len()))
    }

    /// The result of a request that needs no generation, given a limit of `limit` tokens.
    fn immediate_result(
        &self,
        request: &Request,
        limit: usize,
    ) -> Result<Option<Completion>, LmError> {
        let Request { prompt, sampling, .. } = request;
        if prompt.is_empty() {
            return Err(LmError::Invalid("the prompt is empty".to_owned()));
        }
        let context = self.limits.context;
        // A prompt that fills the context leaves no room for a response.
        if prompt.len() > context || (prompt.len() == context && sampling.max_tokens > 0) {
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
