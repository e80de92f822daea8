//! The page's routes without a browser.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use leyden_serve::live::{Feed, Guard, Handle, LiveError, serve};
use reqwest::header::{COOKIE, HOST, LOCATION, SET_COOKIE};
use reqwest::{Client, Response, StatusCode, redirect};
use serde_json::Value;

use crate::fixtures::{TestRollouts, feed, flight, step};

fn start(guard: Guard) -> (Feed, Handle) {
    let feed = feed();
    let handle =
        serve(([127, 0, 0, 1], 0).into(), guard, feed.clone(), Arc::new(TestRollouts)).unwrap();
    (feed, handle)
}

fn client() -> Client {
    Client::builder().redirect(redirect::Policy::none()).build().unwrap()
}

/// Reads a stream until `done` returns true or it ends.
async fn read(response: &mut Response, done: impl Fn(&str) -> bool) -> String {
    let mut text = String::new();
    while !done(&text) {
        match response.chunk().await.unwrap() {
            Some(bytes) => text.push_str(std::str::from_utf8(&bytes).unwrap()),
            None => break,
        }
    }
    text
}

fn events(text: &str) -> Vec<&str> {
    text.lines().filter_map(|line| line.strip_prefix("event: ")).collect()
}

#[tokio::test]
async fn the_page_loads_only_its_own_files() {
    let (_, handle) = start(Guard::loopback());
    let entrance = client().get(format!("http://{}/", handle.address())).send().await.unwrap();
    assert_eq!(entrance.headers()[LOCATION], "/live/");
    for file in ["", "page.js", "page.css"] {
        let response = client().get(handle.url() + file).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        let policy = response.headers()["content-security-policy"].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'; script-src 'self';"), "{policy}");
        assert!(!policy.contains("unsafe"), "{policy}");
        let text = response.text().await.unwrap();
        for word in
            ["http://", "https://", "innerHTML", "insertAdjacentHTML", "new Function", "style="]
        {
            // SVG's namespace is a URL that is never fetched.
            let found = text.replace("http://www.w3.org/2000/svg", "").contains(word);
            assert!(!found, "{file} has {word}");
        }
    }
}

#[tokio::test]
async fn a_stream_resumes_at_its_last_event() {
    let (feed, handle) = start(Guard::loopback());
    feed.record(&step(1, 0.5));
    let url = handle.url() + "events";
    let mut first = client().get(&url).send().await.unwrap();
    let text = read(&mut first, |text| text.ends_with("\n\n")).await;
    assert_eq!(events(&text), ["snapshot"]);
    let id = text.lines().find_map(|line| line.strip_prefix("id: ")).unwrap().to_owned();
    drop(first);

    feed.record(&step(2, 0.5));
    feed.flight(&flight(3));
    let mut second = client().get(&url).header("last-event-id", id).send().await.unwrap();
    let text = read(&mut second, |text| text.contains("event: flight")).await;
    assert_eq!(events(&text), ["step", "flight"]);
    assert!(text.contains(r#""to":2"#), "{text}");

    // The last events arrive before the stream ends.
    feed.finished();
    tokio::task::spawn_blocking(|| drop(handle)).await.unwrap();
    let rest = read(&mut second, |_| false).await;
    assert_eq!(events(&rest), ["status", "flight"]);
    assert!(rest.contains("finished"), "{rest}");
}

#[tokio::test]
async fn rollouts_and_errors_are_json() {
    let (_, handle) = start(Guard::loopback());
    for (path, status, word) in [
        ("rollouts", 200, "hacked"),
        ("rollouts?step=2&phase=sampled", 200, r#""later":3"#),
        ("rollouts/3/train/0", 200, "hacked"),
        ("rollouts/3/train/77", 404, "there is no such rollout"),
        ("rollouts/3/..%2F..%2Fetc/77", 404, "there is no such rollout"),
        ("rollouts/three/train/0", 400, "step"),
        ("rollouts/-1/train/0", 400, "step"),
        ("rollouts?step=x", 400, "step"),
        ("rollouts?step=99999999999999999999999", 400, "step"),
        ("rollouts?step=99", 500, "rollouts.sqlite is damaged"),
    ] {
        let response = client().get(handle.url() + path).send().await.unwrap();
        assert_eq!(response.status(), status, "{path}");
        assert_eq!(response.headers()["content-type"], "application/json");
        let text = response.text().await.unwrap();
        assert!(text.contains(word), "{path}: {text}");
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["error"].is_string(), status != 200, "{text}");
    }
    let response = client().get(handle.url() + "nothing").send().await.unwrap();
    assert_eq!(response.status(), 404);
    let response = client().post(handle.url() + "rollouts").send().await.unwrap();
    assert_eq!(response.status(), 405);
}

#[tokio::test]
async fn non_loopback_host_names_are_refused() {
    let (_, handle) = start(Guard::loopback());
    for path in ["", "page.js", "events", "rollouts"] {
        let request = client().get(handle.url() + path).header(HOST, "evil.example");
        assert_eq!(request.send().await.unwrap().status(), StatusCode::FORBIDDEN, "{path}");
    }
    let request = client().get(handle.url()).header(HOST, "localhost:1234");
    assert_eq!(request.send().await.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn a_key_is_exchanged_for_a_cookie() {
    let (_, handle) = start(Guard::key("a &+% key"));
    let url = handle.url();
    for wrong in ["", "?key=", "?key=wrong", "?key=a", "events", "rollouts"] {
        let response = client().get(url.clone() + wrong).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED, "{wrong}");
    }
    let exchanged = client().get(url.clone() + "?key=a+%26%2B%25+key").send().await.unwrap();
    assert_eq!(exchanged.status(), StatusCode::SEE_OTHER);
    assert_eq!(exchanged.headers()[LOCATION], "/live/");
    let cookie = exchanged.headers()[SET_COOKIE].to_str().unwrap();
    assert!(cookie.contains("HttpOnly; SameSite=Strict"), "{cookie}");
    let pair = cookie.split(';').next().unwrap();
    let with = |value: &str| client().get(&url).header(COOKIE, format!("other=1; {value}"));
    assert_eq!(with(pair).send().await.unwrap().status(), StatusCode::OK);
    let (name, _) = pair.split_once('=').unwrap();
    let forged = format!("{name}=a &+% key");
    assert_eq!(with(&forged).send().await.unwrap().status(), StatusCode::UNAUTHORIZED);
    let program = client().get(&url).bearer_auth("a &+% key").header(HOST, "gpu-box:8080");
    assert_eq!(program.send().await.unwrap().status(), StatusCode::OK);
}

#[test]
fn errors_name_the_address() {
    let refused = |address: SocketAddr| {
        serve(address, Guard::loopback(), feed(), Arc::new(TestRollouts)).unwrap_err()
    };
    let error = refused(([0, 0, 0, 0], 0).into());
    assert!(matches!(error, LiveError::KeyNeeded(_)));
    assert!(error.to_string().contains("0.0.0.0:0"), "{error}");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let error = refused(taken.local_addr().unwrap());
    assert!(error.to_string().contains(&taken.local_addr().unwrap().to_string()), "{error}");
}
