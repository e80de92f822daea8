//! Fuzz targets of everything that Leyden reads from outside: see README.md.

mod allocations;
pub mod targets;

use std::sync::atomic::{AtomicBool, Ordering};

pub use allocations::Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Bytes that an input may allocate besides twice its own size.
const BESIDES: usize = 64 << 20;

/// Runs a target on an input, and ends the process if its live allocations exceed twice the
/// input's size and 64 MB.
pub fn run(target: fn(&[u8]), data: &[u8]) {
    static WARM: AtomicBool = AtomicBool::new(false);
    if !WARM.swap(true, Ordering::Relaxed) {
        // libFuzzer's hook aborts. A panic that is caught is not a defect; any other one ends
        // the process in libfuzzer-sys.
        std::panic::set_hook(Box::new(|panic| eprintln!("{panic}")));
        // What is made once, such as the embedded model, does not count.
        target(data);
    }
    allocations::limit(2 * data.len() + BESIDES, || target(data));
}
