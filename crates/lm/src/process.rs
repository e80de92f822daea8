//! The process environment for libtorch.

/// Environment variables with which libtorch works well; other libraries read them before `main`.
///
/// OpenMP threads spin while they wait: with other load on the cores (a tool, a second run) a step
/// of half a second was observed to take twenty. And glibc returns every larger block to the system
/// at once, so that each tensor's pages are faulted in again: a tenth of a small model's step.
const PROCESS: [(&str, &str); 3] = [
    ("OMP_WAIT_POLICY", "passive"),
    ("MALLOC_MMAP_THRESHOLD_", "1073741824"),
    ("MALLOC_TRIM_THRESHOLD_", "2147483648"),
];

/// Restarts the process once with the variables of `PROCESS` set; variables set by the user are
/// kept.
///
/// Call it first in `main`: it does not return if it starts a new image.
pub fn reexec_with_env() {
    use std::os::unix::process::CommandExt;
    let missing: Vec<_> =
        PROCESS.into_iter().filter(|(name, _)| std::env::var_os(name).is_none()).collect();
    if missing.is_empty() {
        return;
    }
    let Ok(program) = std::env::current_exe() else { return };
    // Returns only if the new image could not be started; then this one continues.
    let _ =
        std::process::Command::new(program).args(std::env::args_os().skip(1)).envs(missing).exec();
}
