//! Parallel tasks on several threads.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Calls `task` with 0 .. `count` on at most `threads` threads; each thread takes the next number
/// when it is free. If task sizes differ, order them largest first.
pub(crate) fn each(threads: usize, count: usize, task: impl Fn(usize) + Sync) {
    let workers = threads.min(count);
    if workers <= 1 {
        return (0..count).for_each(task);
    }
    let next = AtomicUsize::new(0);
    let work = || {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                return;
            }
            task(number);
        }
    };
    rayon::scope(|scope| {
        for _ in 1..workers {
            scope.spawn(|_| work());
        }
        work();
    });
}

/// A slice whose disjoint parts are written by several threads.
pub(crate) struct Shared<T>(*mut T, usize);

// SAFETY: obtaining a part is unsafe and requires that parts do not overlap.
unsafe impl<T: Send> Sync for Shared<T> {}

impl<T> Shared<T> {
    pub fn new(slice: &mut [T]) -> Self {
        Self(slice.as_mut_ptr(), slice.len())
    }

    /// Pointer to the elements in `range`, for interleaved parts: two threads must not access the
    /// same element.
    pub fn pointer(&self, range: std::ops::Range<usize>) -> *mut T {
        assert!(range.start <= range.end && range.end <= self.1, "a part outside the slice");
        self.0.wrapping_add(range.start)
    }

    /// # Safety
    /// Parts that are alive at the same time do not overlap, and the slice outlives them.
    #[allow(clippy::mut_from_ref, reason = "this is the purpose; the caller guarantees no overlap")]
    pub unsafe fn part(&self, start: usize, length: usize) -> &mut [T] {
        assert!(start <= self.1 && length <= self.1 - start, "a part outside the slice");
        // SAFETY: inside the slice, as just asserted; the caller guarantees no overlap.
        unsafe { std::slice::from_raw_parts_mut(self.0.add(start), length) }
    }
}

#[cfg(test)]
mod tests {
    use super::{Shared, each};

    #[test]
    fn every_task_runs_once() {
        for threads in [1, 2, 5] {
            let mut done = vec![0; 100];
            let shared = Shared::new(&mut done);
            // SAFETY: tasks write disjoint elements.
            each(threads, 100, |i| unsafe { shared.part(i, 1) }[0] += i + 1);
            assert_eq!(done, (1..=100).collect::<Vec<_>>());
        }
        each(3, 0, |_| panic!("there is nothing to do"));
    }
}
