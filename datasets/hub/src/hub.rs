//! Fetches files of a repository, with the settings of Hugging Face's own tools.
//!
//! The crate hf-hub downloads. This module adds the token and the offline switch from the
//! environment (hf-hub reads neither), cache look-ups by commit hash, paths that cannot leave the
//! cache, and errors that name file and repository and suggest a remedy.

use std::fmt;
use std::path::{Component, Path, PathBuf};

use hf_hub::api::sync::{Api, ApiBuilder, ApiError};
use hf_hub::{Cache, Repo, RepoType};

/// Default endpoint, unless `HF_ENDPOINT` is set.
const ENDPOINT: &str = "https://huggingface.co";

/// Retries of an interrupted download.
const RETRIES: usize = 3;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RepositoryKind {
    Dataset,
    Model,
}

impl fmt::Display for RepositoryKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Dataset => "dataset",
            Self::Model => "model",
        })
    }
}

/// A repository of the hub at one revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repository {
    pub kind: RepositoryKind,
    /// `owner/name`.
    pub id: String,
    /// A branch, a tag or a commit.
    pub revision: String,
}

impl Repository {
    /// A dataset at its branch `main`.
    pub fn dataset(id: impl Into<String>) -> Self {
        Self { kind: RepositoryKind::Dataset, id: id.into(), revision: "main".to_owned() }
    }

    /// A model at its branch `main`.
    pub fn model(id: impl Into<String>) -> Self {
        Self { kind: RepositoryKind::Model, id: id.into(), revision: "main".to_owned() }
    }

    /// The same repository at another revision.
    #[must_use]
    pub fn at(self, revision: impl Into<String>) -> Self {
        Self { revision: revision.into(), ..self }
    }

    fn repo(&self) -> Repo {
        let kind = match self.kind {
            RepositoryKind::Dataset => RepoType::Dataset,
            RepositoryKind::Model => RepoType::Model,
        };
        Repo::with_revision(self.id.clone(), kind, self.revision.clone())
    }
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the {} {} (revision {})", self.kind, self.id, self.revision)
    }
}

/// Why a file or a listing could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    #[error("{0:?} is not a repository of the hub: give owner/name, and a revision without `..`")]
    Repository(String),
    #[error("{file:?} is not a path inside {repository}")]
    Path { repository: String, file: String },
    #[error(
        "{what} of {repository} is not in the cache at {}, and HF_HUB_OFFLINE forbids \
         looking for it at {endpoint}",
        cache.display()
    )]
    Offline { what: String, repository: String, cache: PathBuf, endpoint: String },
    #[error("{what} of {repository} does not exist at {endpoint}")]
    NotFound { what: String, repository: String, endpoint: String },
    #[error(
        "access to {what} of {repository} at {endpoint} requires authentication: set HF_TOKEN to a \
        token with access to it"
    )]
    Refused { what: String, repository: String, endpoint: String },
    #[error("{what} of {repository} cannot be fetched from {endpoint}: {reason}")]
    Failed { what: String, repository: String, endpoint: String, reason: String },
}

/// The hub with its settings.
#[derive(Debug, Clone)]
pub struct Hub {
    endpoint: String,
    cache: PathBuf,
    token: Option<String>,
    offline: bool,
    progress: bool,
}

impl Hub {
    /// The hub with its cache at `cache`, no token, online, no progress bar.
    pub fn new(cache: impl Into<PathBuf>) -> Self {
        Self {
            endpoint: ENDPOINT.to_owned(),
            cache: cache.into(),
            token: None,
            offline: false,
            progress: false,
        }
    }

    /// The hub configured by the environment: `HF_ENDPOINT`; `HF_HUB_CACHE`, else `hub` under
    /// `HF_HOME`, else under `~/.cache/huggingface`; `HF_TOKEN`, else the file `token` next to the
    /// cache; `HF_HUB_OFFLINE`.
    pub fn from_env() -> Self {
        Self::from_variables(|name| std::env::var(name).ok())
    }

    /// Like [`Hub::from_env`], with variables from `variable`. Empty values count as unset.
    pub fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Self {
        let variable = |name: &str| variable(name).filter(|value| !value.trim().is_empty());
        let home = variable("HF_HOME").map(PathBuf::from).unwrap_or_else(|| {
            let cache = variable("XDG_CACHE_HOME").map(PathBuf::from).unwrap_or_else(|| {
                PathBuf::from(variable("HOME").unwrap_or_else(|| ".".to_owned())).join(".cache")
            });
            cache.join("huggingface")
        });
        let cache = variable("HF_HUB_CACHE").map_or_else(|| home.join("hub"), PathBuf::from);
        let token = variable("HF_TOKEN")
            .or_else(|| std::fs::read_to_string(home.join("token")).ok())
            .map(|token| token.trim().to_owned())
            .filter(|token| !token.is_empty());
        let endpoint = variable("HF_ENDPOINT").unwrap_or_else(|| ENDPOINT.to_owned());
        let switched_on = |value: String| {
            matches!(value.trim().to_ascii_lowercase().as_str(), "1" | "true" | "yes" | "on")
        };
        let offline = variable("HF_HUB_OFFLINE").is_some_and(switched_on);
        Self { token, offline, ..Self::new(cache).with_endpoint(endpoint) }
    }

    #[must_use]
    pub fn with_endpoint(self, endpoint: impl Into<String>) -> Self {
        Self { endpoint: endpoint.into().trim_end_matches('/').to_owned(), ..self }
    }

    #[must_use]
    pub fn with_token(self, token: Option<String>) -> Self {
        Self { token, ..self }
    }

    /// Whether only the cache is used.
    #[must_use]
    pub fn with_offline(self, offline: bool) -> Self {
        Self { offline, ..self }
    }

    /// Whether downloads show a progress bar on standard error.
    #[must_use]
    pub fn with_progress(self, progress: bool) -> Self {
        Self { progress, ..self }
    }

    /// The folder of the cache.
    pub fn cache(&self) -> &Path {
        &self.cache
    }

    /// Returns the path of a file in the cache, downloading it if necessary.
    ///
    /// # Errors
    /// [`HubError`] with repository and file: not in the cache while offline, no such file, no
    /// access, no connection.
    pub fn fetch(&self, repository: &Repository, file: &str) -> Result<PathBuf, HubError> {
        check(repository)?;
        if !is_inside(file) {
            let repository = repository.to_string();
            return Err(HubError::Path { repository, file: file.to_owned() });
        }
        if let Some(path) = self.cached(repository, file) {
            return Ok(path);
        }
        let what = format!("the file {file}");
        if self.offline {
            return Err(self.offline_error(what, repository));
        }
        let api = self.api().map_err(|error| self.failure(&what, repository, error))?;
        let download = api.repo(repository.repo()).download(file);
        download.map_err(|error| self.failure(&what, repository, error))
    }

    /// The paths of all files of a repository, sorted. Offline, only of those in the cache.
    ///
    /// # Errors
    /// As [`Hub::fetch`].
    pub fn files(&self, repository: &Repository) -> Result<Vec<String>, HubError> {
        check(repository)?;
        let what = "the list of files";
        let mut files = if self.offline {
            let mut found = Vec::new();
            if let Some(snapshot) = self.snapshot(repository) {
                collect_files(&snapshot, "", &mut found);
            }
            if found.is_empty() {
                return Err(self.offline_error("a file".to_owned(), repository));
            }
            found
        } else {
            let api = self.api().map_err(|error| self.failure(what, repository, error))?;
            let info = api.repo(repository.repo()).info();
            let info = info.map_err(|error| self.failure(what, repository, error))?;
            info.siblings.into_iter().map(|sibling| sibling.rfilename).collect()
        };
        files.sort();
        Ok(files)
    }

    fn api(&self) -> Result<Api, ApiError> {
        ApiBuilder::from_cache(Cache::new(self.cache.clone()))
            .with_endpoint(self.endpoint.clone())
            .with_token(self.token.clone())
            .with_retries(RETRIES)
            .with_progress(self.progress)
            .with_user_agent("leyden", env!("CARGO_PKG_VERSION"))
            .build()
    }

    /// The folder of the repository's files in the cache, by branch, tag or commit.
    fn snapshot(&self, repository: &Repository) -> Option<PathBuf> {
        let folder = self.cache.join(repository.repo().folder_name());
        let commit = std::fs::read_to_string(folder.join("refs").join(&repository.revision));
        let commit = commit.map_or_else(|_| repository.revision.clone(), |c| c.trim().to_owned());
        let snapshot = folder.join("snapshots").join(commit);
        snapshot.is_dir().then_some(snapshot)
    }

    fn cached(&self, repository: &Repository, file: &str) -> Option<PathBuf> {
        let path = self.snapshot(repository)?.join(file);
        path.is_file().then_some(path)
    }

    fn offline_error(&self, what: String, repository: &Repository) -> HubError {
        HubError::Offline {
            what,
            repository: repository.to_string(),
            cache: self.cache.join(repository.repo().folder_name()),
            endpoint: self.endpoint.clone(),
        }
    }

    fn failure(&self, what: &str, repository: &Repository, error: ApiError) -> HubError {
        let (what, repository) = (what.to_owned(), repository.to_string());
        let endpoint = self.endpoint.clone();
        let reason = error.to_string();
        let status = match error {
            ApiError::RequestError(request) => request.into_response().map(|r| r.status()),
            _ => None,
        };
        match status {
            Some(401 | 403) => HubError::Refused { what, repository, endpoint },
            Some(404) => HubError::NotFound { what, repository, endpoint },
            _ => HubError::Failed { what, repository, endpoint, reason },
        }
    }
}

/// Rejects names that would leave the cache or break the URL.
fn check(repository: &Repository) -> Result<(), HubError> {
    let plain = |text: &str| {
        is_inside(text) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_./".contains(&b))
    };
    if plain(&repository.id) && plain(&repository.revision) {
        return Ok(());
    }
    Err(HubError::Repository(format!("{}@{}", repository.id, repository.revision)))
}

/// Whether a path is relative and has only normal components.
fn is_inside(path: &str) -> bool {
    !path.is_empty()
        && !path.contains('\0')
        && Path::new(path).components().all(|part| matches!(part, Component::Normal(_)))
}

fn collect_files(folder: &Path, prefix: &str, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        // `is_dir` and `is_file` follow links: files in a snapshot are links to blobs.
        let path = entry.path();
        if path.is_dir() {
            collect_files(&path, &format!("{name}/"), found);
        } else if path.is_file() {
            found.push(name);
        }
    }
}
