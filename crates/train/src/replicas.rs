//! Replicas of the policy that share the micro-batches of an update.
//!
//! If a model is too small to parallelise single matrix products over cores, whole micro-batches
//! are distributed instead. A replica shares the policy's values and has separate gradients; these
//! are summed in a fixed order, so that the same seed gives the same bytes.

use leyden_lm::policy::Policy;
use leyden_lm::policy::forest::Pack;
use leyden_lm::threads::ThreadTeam;

use crate::error::TrainError;

/// The replicas in addition to the policy itself.
pub(crate) struct Replicas {
    others: Vec<Policy>,
    team: ThreadTeam,
}

impl Replicas {
    /// `count` replicas, including the policy itself.
    ///
    /// # Errors
    /// A policy with adapters; out of memory for the gradients.
    pub fn of(policy: &Policy, count: usize) -> Result<Self, TrainError> {
        let others = (1..count).map(|_| policy.replica()).collect::<Result<_, _>>()?;
        Ok(Self { others, team: ThreadTeam::default() })
    }

    fn count(&self) -> usize {
        1 + self.others.len()
    }

    /// Splits rows into micro-batches with `pack`, which takes a budget of tokens: at least one per
    /// replica, if there are enough rows, such that concurrent micro-batches together stay within
    /// `budget`. `longest` is the length of the longest row.
    ///
    /// # Errors
    /// Errors of `pack`.
    pub fn cut(
        &self,
        budget: usize,
        longest: usize,
        pack: impl Fn(usize) -> Result<Vec<Pack>, TrainError>,
    ) -> Result<Vec<Pack>, TrainError> {
        let count = self.count();
        let budget = budget.div_ceil(count);
        let packs = pack(budget)?;
        if packs.is_empty() || packs.len() >= count {
            return Ok(packs);
        }
        let merged: usize = packs.iter().map(Pack::len).sum();
        // Rows are not split, so a pack may end up to one row short of its budget.
        pack(budget.min(merged.div_ceil(count) + longest))
    }

    /// Calls `work` with every job, on the policy or a replica; all gradients are added to the
    /// policy's. Returns the results in the order of the jobs.
    ///
    /// # Errors
    /// Errors of `work`; the gradients are then invalid.
    pub fn share<J: Sync, T: Send>(
        &mut self,
        policy: &mut Policy,
        jobs: &[J],
        work: impl Fn(&Policy, &J) -> Result<T, TrainError> + Sync,
    ) -> Result<Vec<T>, TrainError> {
        let count = self.count();
        if count == 1 {
            return jobs.iter().map(|job| work(policy, job)).collect();
        }
        let all = std::iter::once(&mut *policy).chain(&mut self.others).enumerate().collect();
        let done = self.team.each(count, all, |(place, policy): (usize, &mut Policy)| {
            let own = jobs.iter().skip(place).step_by(count);
            own.map(|job| work(policy, job)).collect::<Result<Vec<T>, TrainError>>()
        });
        let done: Vec<Vec<T>> = done.into_iter().collect::<Result<_, _>>()?;
        self.gather(policy)?;
        let mut done: Vec<_> = done.into_iter().map(Vec::into_iter).collect();
        Ok((0..jobs.len()).filter_map(|job| done[job % count].next()).collect())
    }

    /// Moves the replicas' gradients to the policy.
    fn gather(&self, policy: &Policy) -> Result<(), TrainError> {
        for other in &self.others {
            if let (Some(sum), Some(part)) = (policy.trained().grad(), other.trained().grad()) {
                let _ = sum.shallow_clone().f_add_(part).map_err(leyden_lm::LmError::from)?;
            }
            other.trained().zero_grad();
        }
        Ok(())
    }
}
