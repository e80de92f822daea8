//! Provenance of a run: the information needed to reproduce it.

use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

/// Hexadecimal SHA-256 of some bytes.
pub fn hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

/// SHA-256 of a file.
pub fn hash_file(path: &Path) -> Result<String, std::io::Error> {
    let mut hasher = Sha256::new();
    let mut file = std::fs::File::open(path)?;
    std::io::copy(&mut file, &mut HashWriter(&mut hasher))?;
    Ok(hasher.finalize().iter().map(|b| format!("{b:02x}")).collect())
}

struct HashWriter<'a>(&'a mut Sha256);

impl std::io::Write for HashWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The sources that a program was built from.
struct Revision {
    commit: Option<&'static str>,
    /// Uncommitted changes, as `git diff` writes them.
    changes: &'static [u8],
}

static REVISION: OnceLock<Revision> = OnceLock::new();

/// Sets the revision that [`collect`] records, once per program; both are known when the program is
/// built ([`set_revision!`](crate::set_revision)).
pub fn set_revision(commit: Option<&'static str>, changes: &'static [u8]) {
    let _ = REVISION.set(Revision { commit, changes });
}

/// Sets the revision of a package whose `build.rs` calls `leyden_setup::record_revision`.
#[macro_export]
macro_rules! set_revision {
    () => {
        $crate::provenance::set_revision(
            option_env!("LEYDEN_REVISION"),
            include_bytes!(concat!(env!("OUT_DIR"), "/changes.diff")),
        )
    };
}

/// Revision, machine and versions; `own` adds the caller's entries (hashes of data, model and
/// template, device, threads, seed).
pub fn collect(own: Map<String, Value>) -> Value {
    let (commit, changes) = REVISION.get().map_or((None, &[][..]), |r| (r.commit, r.changes));
    let dirty = !changes.is_empty();
    let mut provenance = json!({
        "leyden": env!("CARGO_PKG_VERSION"),
        "git_revision": commit,
        "git_dirty": dirty,
        "git_diff_sha256": dirty.then(|| hash(changes)),
        "cargo_lock_sha256": hash(include_bytes!("../../../Cargo.lock")),
        "rustc": command("rustc", &["--version"]),
        "torch": leyden_lm::TORCH_VERSION,
        "os": std::env::consts::OS,
        "arch": std::env::consts::ARCH,
        "cpu": cpu_model(),
        "cores": std::thread::available_parallelism().map(usize::from).ok(),
    });
    if let Value::Object(all) = &mut provenance {
        all.extend(own);
    }
    provenance
}

fn command(program: &str, args: &[&str]) -> Option<String> {
    let output = Command::new(program).args(args).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn cpu_model() -> Option<String> {
    let info = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = info.lines().find(|line| line.starts_with("model name"))?;
    line.split_once(':').map(|(_, name)| name.trim().to_owned())
}
