//! Parallel work: engines that share requests, replicas of a policy that share a batch.
//!
//! For models so small that a single product is not worth dividing among cores: each part has its
//! share of libtorch's threads, and parts run concurrently.

use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::error::LmError;

/// Persistent threads: a step of a tiny model takes less time than starting some. They are started
/// when first needed.
#[derive(Default)]
pub struct ThreadTeam {
    pool: Option<ThreadPool>,
}

impl ThreadTeam {
    /// Runs `work` on all `parts` concurrently, each with a `1 / count` share of the caller's
    /// libtorch threads; the results are in the order of the parts. A panic in one of them is
    /// propagated to the caller.
    pub fn each<P: Send, T: Send, E: Send + From<LmError>>(
        &mut self,
        count: usize,
        parts: Vec<P>,
        work: impl Fn(P) -> Result<T, E> + Sync,
    ) -> Vec<Result<T, E>> {
        let all = usize::try_from(tch::get_num_threads()).unwrap_or(1);
        let share = (all / count.max(1)).max(1);
        let pool = match self.pool.take() {
            Some(pool) if pool.current_num_threads() >= parts.len() => pool,
            _ => match ThreadPoolBuilder::new().num_threads(all.max(parts.len())).build() {
                Ok(pool) => pool,
                Err(error) => {
                    let failed = |_| Err(LmError::Failed(format!("no threads: {error}")).into());
                    return parts.into_iter().map(failed).collect();
                }
            },
        };
        let mut results: Vec<Option<Result<T, E>>> = parts.iter().map(|_| None).collect();
        pool.scope(|scope| {
            for (part, result) in parts.into_iter().zip(&mut results) {
                let work = &work;
                scope.spawn(move |_| {
                    // libtorch stores this number per thread.
                    if tch::get_num_threads() != share as i32 {
                        tch::set_num_threads(share as i32);
                    }
                    *result = Some(work(part));
                });
            }
        });
        self.pool = Some(pool);
        results.into_iter().flatten().collect()
    }
}
