//! Threads on which several engines work side by side.

use rayon::{ThreadPool, ThreadPoolBuilder};

use super::shard::Shard;
use crate::LmError;

/// Threads that stay from step to step: a step of a tiny model takes less time than starting
/// some. They are started when first needed.
#[derive(Default)]
pub(super) struct Crew {
    pool: Option<ThreadPool>,
}

impl Crew {
    /// Runs `work` on every one of these shards at once, each with the `count`th part of the
    /// caller's libtorch threads; the results are in the order of the shards.
    pub fn each<P: Send, T: Send>(
        &mut self,
        count: usize,
        shards: Vec<(&mut Shard, P)>,
        work: impl Fn(&mut Shard, P) -> Result<T, LmError> + Sync,
    ) -> Vec<Result<T, LmError>> {
        let all = usize::try_from(tch::get_num_threads()).unwrap_or(1);
        let share = (all / count.max(1)).max(1);
        let pool = match self.pool.take() {
            Some(pool) if pool.current_num_threads() >= shards.len() => pool,
            _ => match ThreadPoolBuilder::new().num_threads(all.max(shards.len())).build() {
                Ok(pool) => pool,
                Err(error) => {
                    let failed = |_| Err(LmError::Failed(format!("no threads: {error}")));
                    return shards.into_iter().map(failed).collect();
                }
            },
        };
        let mut results: Vec<Option<Result<T, LmError>>> = shards.iter().map(|_| None).collect();
        pool.scope(|scope| {
            for ((shard, part), result) in shards.into_iter().zip(&mut results) {
                let work = &work;
                scope.spawn(move |_| {
                    // libtorch keeps this number for each thread.
                    if tch::get_num_threads() != share as i32 {
                        tch::set_num_threads(share as i32);
                    }
                    *result = Some(work(shard, part));
                });
            }
        });
        self.pool = Some(pool);
        results.into_iter().flatten().collect()
    }
}
