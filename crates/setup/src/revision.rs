//! The revision of the sources, recorded at build time.
//!
//! A program may run in any folder, so only the build knows which sources it is made of.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What the programs are built from; changes elsewhere do not change them.
const SOURCES: [&str; 6] =
    ["crates", "agents", "datasets", "benchmarks", "Cargo.toml", "Cargo.lock"];

/// Sets `LEYDEN_REVISION` to the commit of the sources and writes their uncommitted changes to
/// `changes.diff` in `OUT_DIR`. Outside of a checkout of Leyden the variable is not set and the file
/// is empty.
///
/// Call it from the `build.rs` of a package whose program records provenance; such a package is
/// built again after every change of a source and every commit.
pub fn record_revision() {
    let Some(out) = env::var_os("OUT_DIR").map(PathBuf::from) else { return };
    let revision = Revision::of(Path::new("."));
    if let Some(revision) = &revision {
        println!("cargo:rustc-env=LEYDEN_REVISION={}", revision.commit);
        for path in &revision.watched {
            println!("cargo:rerun-if-changed={}", path.display());
        }
    }
    let changes = revision.map(|revision| revision.changes).unwrap_or_default();
    if let Err(error) = fs::write(out.join("changes.diff"), changes) {
        println!("cargo:warning=the uncommitted changes cannot be recorded: {error}");
    }
}

struct Revision {
    commit: String,
    /// `git diff` of the sources.
    changes: Vec<u8>,
    /// Files and folders whose changes may change the revision.
    watched: Vec<PathBuf>,
}

impl Revision {
    /// The revision of the checkout that contains `folder`, if it is one of Leyden.
    fn of(folder: &Path) -> Option<Self> {
        let line = |args: &[&str]| {
            let text = String::from_utf8(git(folder, args)?).ok()?;
            Some(text.trim().to_owned())
        };
        let root = PathBuf::from(line(&["rev-parse", "--show-toplevel"])?);
        // The sources may be a part of somebody else's repository.
        if !root.join("crates/setup/Cargo.toml").is_file() {
            return None;
        }
        let commit = line(&["rev-parse", "HEAD"])?;
        let sources: Vec<PathBuf> = SOURCES.iter().map(|name| root.join(name)).collect();
        let names: Vec<&str> = sources.iter().filter_map(|path| path.to_str()).collect();
        let changes = git(folder, &[&["diff", "HEAD", "--"], &names[..]].concat())?;
        let in_git = |name: &str| line(&["rev-parse", "--git-path", name]).map(|p| folder.join(p));
        let refs = ["HEAD", "refs/heads", "packed-refs"].into_iter().filter_map(in_git);
        let watched = refs.filter(|path| path.exists()).chain(sources).collect();
        Some(Self { commit, changes, watched })
    }
}

fn git(folder: &Path, args: &[&str]) -> Option<Vec<u8>> {
    let output = Command::new("git").current_dir(folder).args(args).output().ok()?;
    output.status.success().then_some(output.stdout)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commit_and_changes_of_a_checkout_and_of_no_other_folder() {
        let folder = env::temp_dir().join(format!("leyden-revision-{}", std::process::id()));
        let sources = folder.join("crates/setup");
        fs::create_dir_all(&sources).unwrap();
        let run = |args: &[&str]| git(&folder, args).unwrap_or_else(|| panic!("git {args:?}"));
        run(&["init", "--quiet"]);
        fs::write(folder.join("other.txt"), "").unwrap();
        assert!(Revision::of(&folder).is_none(), "not Leyden's");
        fs::write(sources.join("Cargo.toml"), "one").unwrap();
        run(&["add", "."]);
        let author = ["-c", "user.name=a", "-c", "user.email=a@b"];
        run(&[&author[..], &["commit", "--quiet", "-m", "one"]].concat());
        let clean = Revision::of(&sources).unwrap();
        assert_eq!((clean.commit.len(), clean.changes.len()), (40, 0));
        assert!(clean.watched.iter().all(|path| path.is_absolute() || sources.join(path).exists()));
        // What is not a source is no change.
        fs::write(folder.join("other.txt"), "changed").unwrap();
        assert!(Revision::of(&folder).unwrap().changes.is_empty());
        fs::write(sources.join("Cargo.toml"), "two").unwrap();
        let changed = Revision::of(&folder).unwrap();
        assert_eq!(changed.commit, clean.commit);
        assert!(String::from_utf8(changed.changes).unwrap().contains("+two"));
        fs::remove_dir_all(&folder).unwrap();
    }
}
