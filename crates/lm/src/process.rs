//! The process that libtorch runs in.

/// Environment in which libtorch works well, as read by other libraries before `main`.
///
/// OpenMP threads spin while they wait: with anything else on the cores (a tool, a second
/// run) a step that takes half a second was seen to take twenty. And glibc returns every
/// larger block to the system at once, so that each tensor's pages are faulted in anew: a
/// tenth of a small model's step.
const PROCESS: [(&str, &str); 3] = [
    ("OMP_WAIT_POLICY", "passive"),
    ("MALLOC_MMAP_THRESHOLD_", "1073741824"),
    ("MALLOC_TRIM_THRESHOLD_", "2147483648"),
];

/// Starts the process again with the variables of `PROCESS` set, once; a user's own values stay.
///
/// Call it first in `main`: it does not return where it starts a new image.
pub fn reexec_with_env() {
    use std::os::unix::process::CommandExt;
    let missing: Vec<_> =
        PROCESS.into_iter().filter(|(name, _)| std::env::var_os(name).is_none()).collect();
    if missing.is_empty() {
        return;
    }
    let Ok(program) = std::env::current_exe() else { return };
    // Only returns if the new image could not be started; then this one goes on.
    let _ =
        std::process::Command::new(program).args(std::env::args_os().skip(1)).envs(missing).exec();
}
