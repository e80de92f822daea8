//! Contents of the cache of the Hugging Face hub.

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::Hub;

/// The cache shared by all tools of the Hugging Face hub.
#[derive(Debug, Clone, Serialize)]
pub struct ModelCache {
    pub path: PathBuf,
    /// The variable or default that determines `path`.
    pub by: String,
    pub offline: bool,
    pub repositories: Vec<CachedRepository>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CachedRepository {
    /// `model` or `dataset`.
    pub kind: String,
    pub id: String,
    pub bytes: u64,
}

impl ModelCache {
    /// Lists the cache configured by the environment.
    pub fn look() -> Self {
        let path = Hub::from_env().cache().to_owned();
        let set = |name: &str| std::env::var(name).is_ok_and(|value| !value.trim().is_empty());
        let by = ["HF_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"].into_iter().find(|name| set(name));
        let offline = std::env::var("HF_HUB_OFFLINE").unwrap_or_default().to_ascii_lowercase();
        Self {
            repositories: cached_repositories(&path),
            by: by.unwrap_or("the default; HF_HOME or HF_HUB_CACHE change it").to_owned(),
            offline: ["1", "true", "yes", "on"].contains(&offline.trim()),
            path,
        }
    }
}

/// The models and datasets in the cache, sorted by name.
fn cached_repositories(cache: &Path) -> Vec<CachedRepository> {
    let mut found: Vec<CachedRepository> = std::fs::read_dir(cache)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name();
            let (kind, id) = name.to_str()?.split_once("--")?;
            let kind = match kind {
                "models" => "model",
                "datasets" => "dataset",
                _ => return None,
            };
            let blobs = std::fs::read_dir(entry.path().join("blobs")).into_iter().flatten();
            let sizes = blobs.flatten().filter_map(|blob| Some(blob.metadata().ok()?.len()));
            let id = id.replacen("--", "/", 1);
            Some(CachedRepository { kind: kind.to_owned(), id, bytes: sizes.sum() })
        })
        .collect();
    found.sort_by(|a, b| (&a.kind, &a.id).cmp(&(&b.kind, &b.id)));
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_lists_repositories_with_their_sizes() {
        let cache = tempfile::tempdir().unwrap();
        for (folder, bytes) in [("models--a--b--c", 3), ("datasets--x--y", 5), ("version", 9)] {
            let blobs = cache.path().join(folder).join("blobs");
            std::fs::create_dir_all(&blobs).unwrap();
            std::fs::write(blobs.join("1"), vec![0; bytes]).unwrap();
        }
        let found = cached_repositories(cache.path());
        let found: Vec<_> =
            found.iter().map(|r| (r.kind.as_str(), r.id.as_str(), r.bytes)).collect();
        assert_eq!(found, [("dataset", "x/y", 5), ("model", "a/b--c", 3)]);
        assert!(cached_repositories(Path::new("/nowhere")).is_empty());
    }
}
