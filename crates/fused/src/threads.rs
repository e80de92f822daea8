//! Tasks on several threads.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Calls `task` with 0 .. `count`, on at most `threads` threads, each taking the next number
/// when it is free. Order tasks by size, largest first, where they differ.
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

/// A slice of which several threads write parts that do not overlap.
pub(crate) struct Shared<T>(*mut T, usize);

// SAFETY: handing out parts is unsafe and demands that they do not overlap.
unsafe impl<T: Send> Sync for Shared<T> {}

impl<T> Shared<T> {
    pub fn new(slice: &mut [T]) -> Self {
        Self(slice.as_mut_ptr(), slice.len())
    }

    /// Where the elements in `range` lie, for parts that interleave: two threads must not touch
    /// the same element.
    pub fn pointer(&self, range: std::ops::Range<usize>) -> *mut T {
        assert!(range.start <= range.end && range.end <= self.1, "a part outside the slice");
        self.0.wrapping_add(range.start)
    }

    /// # Safety
    /// No two parts that live at the same time overlap, and the slice outlives them.
    #[allow(clippy::mut_from_ref, reason = "that is the point; the caller promises no overlap")]
    pub unsafe fn part(&self, start: usize, length: usize) -> &mut [T] {
        assert!(start <= self.1 && length <= self.1 - start, "a part outside the slice");
        // SAFETY: inside the slice, as just asserted; no overlap, as the caller promises.
        unsafe { std::slice::from_raw_parts_mut(self.0.add(start), length) }
    }
}

#[cfg(test)]
mod tests {
    use super::{Shared, each};

    #[test]
    fn every_task_is_done_once() {
        for threads in [1, 2, 5] {
            let mut done = vec![0; 100];
            let shared = Shared::new(&mut done);
            // SAFETY: each task has a number of its own.
            each(threads, 100, |i| unsafe { shared.part(i, 1) }[0] += i + 1);
            assert_eq!(done, (1..=100).collect::<Vec<_>>());
        }
        each(3, 0, |_| panic!("there is nothing to do"));
    }
}
