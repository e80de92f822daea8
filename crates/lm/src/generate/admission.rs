//! Admission of waiting requests.

use crate::error::LmError;
use crate::generate::batch::Row;
use crate::generate::cache::{Entry, common_prefix};
use crate::generate::job::Job;
use crate::generate::prefill;
use crate::generate::shard::Shard;

impl Shard {
    /// Admits the next wave, once the previous one has finished.
    pub(super) fn admit_wave(&mut self) -> Result<(), LmError> {
        if self.batch.running().next().is_some() {
            return Ok(());
        }
        self.batch.clear();
        while !self.waiting.is_empty() {
            let limit = self.limits.cache_tokens;
            let entries: Vec<Entry> = self.waiting.iter().map(|job| self.entry(job)).collect();
            let count = self.cache.fitting(&entries, limit);
            if count == 0 {
                self.fail_first();
                continue;
            }
            let admission = self.cache.admit(&entries[..count], limit)?;
            let mut jobs: Vec<Option<Job>> = self.waiting.drain(..count).map(Some).collect();
            for (slot, &entry) in admission.order.iter().enumerate() {
                let Some(mut job) = jobs[entry].take() else { continue };
                let cached = self.found_by_wave(slot, admission.first_new);
                self.stats.reused_tokens += cached as u64;
                job.cached = Some(cached);
                self.batch.rows.push(Row { job, slot, finished: false });
            }
            if let Some(wave) = &mut self.wave {
                wave.prefilling = true;
            }
            break;
        }
        Ok(())
    }

    fn entry<'a>(&self, job: &'a Job) -> Entry<'a> {
        let prompt = job.tokens.as_slice();
        let reuse = if job.named { self.cache.reuse(job.key, prompt) } else { None };
        let trunk = reuse.map_or(prompt.len() - 1, |reuse| self.cache.trunk_length(reuse.row));
        // The last generated token is not computed, but a finished row uses one more column while
        // it waits to leave the batch.
        let need = prompt.len() - trunk + job.limit;
        Entry { key: job.named.then_some(job.key), prompt, reuse, need }
    }

    /// Prompt tokens of row `slot` of a new wave that are cached or are computed for another row;
    /// trunks from `first_new` on are still to be computed.
    fn found_by_wave(&self, slot: usize, first_new: usize) -> usize {
        let trunks = &self.cache.trunks;
        let row = &self.cache.rows[slot];
        let first_of_trunk = slot == 0 || self.cache.rows[slot - 1].trunk != row.trunk;
        if row.trunk < first_new || !first_of_trunk {
            return trunks[row.trunk].tokens.len() + row.tokens.len();
        }
        match row.trunk == first_new {
            true => 0,
            false => common_prefix(&trunks[row.trunk - 1].tokens, &trunks[row.trunk].tokens),
        }
    }

    /// Admits arrivals in order, as far as there is space, once the prompts of earlier ones are
    /// computed; at most about one pass of prefill at a time, so that the first of them need not
    /// wait for the last.
    pub(super) fn admit_arrivals(&mut self) -> Result<(), LmError> {
        if self.waiting.is_empty() || prefill::is_pending(&self.cache, &self.batch.rows) {
            return Ok(());
        }
        self.batch.drop_finished();
        let before = self.batch.rows.len();
        let mut missing = 0;
        let mut rearrangement = self.cache.rearrange(self.limits.cache_tokens);
        while let Some(job) = self.waiting.front() {
            let arrival = rearrangement.find(job);
            missing += job.tokens.len() - arrival.found;
            let is_first = self.batch.rows.len() == before;
            if !rearrangement.fits(&arrival) || (!is_first && missing > self.limits.prefill_tokens)
            {
                break;
            }
            rearrangement.place(job, &arrival);
            let Some(mut job) = self.waiting.pop_front() else { break };
            if job.cached.is_none() {
                let cached = arrival.found.min(job.prompt - 1);
                self.stats.reused_tokens += cached as u64;
                job.cached = Some(cached);
            }
            self.batch.rows.push(Row { job, slot: 0, finished: false });
        }
        if self.batch.rows.len() > before {
            rearrangement.commit()?;
            self.find_rows();
            self.batch.rows.sort_by_key(|row| row.slot);
        } else if before == 0 {
            self.fail_first();
        }
        Ok(())
    }
}
