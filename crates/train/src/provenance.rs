//! Provenance of a run: the information needed to reproduce it.

use std::path::Path;
use std::process::Command;

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

/// Revision, machine and versions; `own` adds the caller's entries (hashes of data, model and
/// template, device, threads, seed).
pub fn collect(own: Map<String, Value>) -> Value {
    let git = |args: &[&str]| command("git", args);
    let dirty = git(&["status", "--porcelain", "--untracked-files=no"]).filter(|s| !s.is_empty());
    let mut provenance = json!({
        "leyden": env!("CARGO_PKG_VERSION"),
        "git_revision": git(&["rev-parse", "HEAD"]),
        "git_dirty": dirty.is_some(),
        "git_diff_sha256": dirty.and_then(|_| git(&["diff", "HEAD"])).map(|d| hash(d.as_bytes())),
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
