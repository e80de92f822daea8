//! Fetches from a local test server.

mod server;

use std::collections::HashMap;

use leyden_hub::{Hub, HubError, Repository};

use server::{COMMIT, Server};

/// A server with a file of a dataset, one of a model, and the dataset's listing.
fn start() -> Server {
    let files = [
        ("/datasets/some/data/resolve/main/data/rows.jsonl", "{\"id\": \"a\"}\n"),
        ("/some/model/resolve/v1.0/config.json", "{}"),
        (
            "/api/datasets/some/data/revision/main",
            r#"{"sha": "x", "siblings": [{"rfilename": "z.txt"}, {"rfilename": "data/rows.jsonl"}]}"#,
        ),
    ];
    Server::start(files.map(|(path, content)| (path.to_owned(), content.into())).into())
}

#[test]
fn a_file_is_fetched_once_and_then_read_from_the_cache() {
    let server = start();
    let folder = tempfile::tempdir().unwrap();
    let hub = Hub::new(folder.path()).with_endpoint(&server.address);
    let data = Repository::dataset("some/data");
    let path = hub.fetch(&data, "data/rows.jsonl").unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "{\"id\": \"a\"}\n");
    assert!(path.starts_with(folder.path().join("datasets--some--data/snapshots").join(COMMIT)));
    let before = server.requests().len();
    assert_eq!(hub.fetch(&data, "data/rows.jsonl").unwrap(), path);
    assert_eq!(server.requests().len(), before);

    // Also by commit and without a connection.
    let offline = Hub::new(folder.path()).with_endpoint("http://127.0.0.1:9").with_offline(true);
    assert_eq!(offline.fetch(&data.clone().at(COMMIT), "data/rows.jsonl").unwrap(), path);
    assert_eq!(offline.files(&data).unwrap(), ["data/rows.jsonl"]);
}

#[test]
fn the_token_and_the_revision_are_sent() {
    let server = start();
    let folder = tempfile::tempdir().unwrap();
    let hub = Hub::new(folder.path())
        .with_endpoint(format!("{}/", server.address))
        .with_token(Some("hf_secret".into()));
    let model = Repository::model("some/model").at("v1.0");
    let path = hub.fetch(&model, "config.json").unwrap();
    assert_eq!(std::fs::read_to_string(path).unwrap(), "{}");
    let requests = server.requests();
    assert!(requests.iter().all(|(path, _)| path == "/some/model/resolve/v1.0/config.json"));
    assert!(requests.iter().all(|(_, token)| token.as_deref() == Some("Bearer hf_secret")));
}

#[test]
fn files_are_listed_in_order() {
    let server = start();
    let folder = tempfile::tempdir().unwrap();
    let hub = Hub::new(folder.path()).with_endpoint(&server.address);
    let files = hub.files(&Repository::dataset("some/data")).unwrap();
    assert_eq!(files, ["data/rows.jsonl", "z.txt"]);
}

#[test]
fn errors_name_the_repository_and_the_file() {
    let server = start();
    let folder = tempfile::tempdir().unwrap();
    let hub = Hub::new(folder.path()).with_endpoint(&server.address);
    let data = Repository::dataset("some/data");
    let missing = hub.fetch(&data, "none.txt").unwrap_err();
    assert!(matches!(missing, HubError::NotFound { .. }));
    let message = missing.to_string();
    let expected = "the file none.txt of the dataset some/data (revision main) does not exist at";
    assert!(message.starts_with(expected), "{message}");

    let refused = hub.fetch(&Repository::model("some/secret"), "config.json").unwrap_err();
    assert!(matches!(refused, HubError::Refused { .. }));
    assert!(refused.to_string().contains("set HF_TOKEN"), "{refused}");

    // No server listens on port 9 of the loopback address.
    let nowhere = Hub::new(folder.path()).with_endpoint("http://127.0.0.1:9");
    let failed = nowhere.files(&data).unwrap_err().to_string();
    let expected = "the list of files of the dataset some/data (revision main) cannot be fetched \
                    from http://127.0.0.1:9: ";
    assert!(failed.starts_with(expected), "{failed}");
}

#[test]
fn offline_only_the_cache_is_used() {
    let server = start();
    let folder = tempfile::tempdir().unwrap();
    let hub = Hub::new(folder.path()).with_endpoint(&server.address).with_offline(true);
    let data = Repository::dataset("some/data");
    for error in [hub.fetch(&data, "data/rows.jsonl").unwrap_err(), hub.files(&data).unwrap_err()] {
        let message = error.to_string();
        assert!(
            message.contains("of the dataset some/data (revision main) is not in the cache at")
        );
        assert!(
            message.contains("datasets--some--data") && message.contains("HF_HUB_OFFLINE"),
            "{message}"
        );
    }
    assert!(server.requests().is_empty());
}

#[test]
fn names_cannot_leave_the_cache() {
    let folder = tempfile::tempdir().unwrap();
    let hub = Hub::new(folder.path()).with_endpoint("http://127.0.0.1:9");
    let data = Repository::dataset("some/data");
    for file in ["../x", "/etc/passwd", "a/../../x", "", "a\0b"] {
        assert!(matches!(hub.fetch(&data, file), Err(HubError::Path { .. })), "{file:?}");
    }
    for id in ["../x", "", "a b", "x?y"] {
        let error = hub.fetch(&Repository::model(id), "f").unwrap_err();
        assert!(matches!(error, HubError::Repository(_)), "{id:?}");
    }
    let error = hub.files(&data.at("../..")).unwrap_err();
    assert!(matches!(error, HubError::Repository(_)));
}

#[test]
fn settings_come_from_the_variables_of_the_hubs_own_tools() {
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join("token"), " from_file \n").unwrap();
    let home_text = home.path().display().to_string();
    let with = |variables: &[(&str, &str)]| {
        let variables: HashMap<String, String> =
            variables.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        Hub::from_variables(move |name| variables.get(name).cloned())
    };
    let server = start();
    let token_sent = |hub: Hub| {
        let _ = hub.files(&Repository::dataset("some/data"));
        server.requests().pop().unwrap().1
    };
    let hub = with(&[("HF_HOME", &home_text), ("HF_ENDPOINT", &server.address)]);
    assert_eq!(hub.cache(), home.path().join("hub"));
    assert_eq!(token_sent(hub).as_deref(), Some("Bearer from_file"));
    let hub = with(&[
        ("HF_HOME", &home_text),
        ("HF_ENDPOINT", &server.address),
        ("HF_TOKEN", "from_variable"),
    ]);
    assert_eq!(token_sent(hub).as_deref(), Some("Bearer from_variable"));
    assert_eq!(with(&[("HF_HUB_CACHE", "/c"), ("HF_HOME", "/h")]).cache().to_str(), Some("/c"));
    let by_default = with(&[("HOME", "/home/me"), ("HF_HOME", "")]);
    assert_eq!(by_default.cache().to_str(), Some("/home/me/.cache/huggingface/hub"));
    for (value, offline) in [("1", true), ("TRUE", true), ("0", false), ("", false)] {
        let hub = with(&[("HF_HOME", &home_text), ("HF_HUB_OFFLINE", value)])
            .with_endpoint("http://127.0.0.1:9");
        let error = hub.files(&Repository::dataset("some/data")).unwrap_err();
        assert_eq!(matches!(error, HubError::Offline { .. }), offline, "{value:?}");
    }
}
