//! A fake hub on the loopback address.

#![allow(dead_code, reason = "each test binary uses a part")]

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// Contents by path.
type Files = HashMap<String, Vec<u8>>;

/// Path and authorization header of every request.
type Log = Mutex<Vec<(String, Option<String>)>>;

/// The fake hub, with a log of requests.
pub struct Server {
    pub address: String,
    log: Arc<Log>,
}

impl Server {
    pub fn start(files: Files) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let log = Arc::new(Log::default());
        let seen = log.clone();
        // Runs until the test process ends and answers requests sequentially.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                answer(stream, &files, &seen);
            }
        });
        Self { address, log }
    }

    /// A server of one dataset with these files.
    pub fn of_dataset(id: &str, files: &[(&str, Vec<u8>)]) -> Self {
        let names: Vec<String> =
            files.iter().map(|(name, _)| format!("{{\"rfilename\": \"{name}\"}}")).collect();
        let listing = format!("{{\"sha\": \"{COMMIT}\", \"siblings\": [{}]}}", names.join(", "));
        let mut served: Files = files
            .iter()
            .map(|(name, content)| (format!("/datasets/{id}/resolve/main/{name}"), content.clone()))
            .collect();
        served.insert(format!("/api/datasets/{id}/revision/main"), listing.into());
        Self::start(served)
    }

    pub fn requests(&self) -> Vec<(String, Option<String>)> {
        self.log.lock().unwrap().clone()
    }
}

fn answer(stream: TcpStream, files: &Files, log: &Log) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut first = String::new();
    reader.read_line(&mut first).unwrap();
    let path = first.split(' ').nth(1).unwrap_or("").to_owned();
    let mut headers = HashMap::new();
    let mut line = String::new();
    while reader.read_line(&mut line).unwrap() > 2 {
        if let Some((name, value)) = line.split_once(':') {
            headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
        }
        line.clear();
    }
    log.lock().unwrap().push((path.clone(), headers.get("authorization").cloned()));
    let reply = match (files.get(&path), path.contains("secret")) {
        (Some(content), _) => file_reply(content, headers.get("range")),
        (None, true) => reply("401 Unauthorized", "", b""),
        (None, false) => reply("404 Not Found", "", b""),
    };
    (&stream).write_all(&reply).unwrap();
}

/// The content, or the requested range of it.
fn file_reply(content: &[u8], range: Option<&String>) -> Vec<u8> {
    let Some(range) = range.and_then(|range| range.strip_prefix("bytes=")) else {
        return reply("200 OK", "", content);
    };
    let (from, to) = range.split_once('-').unwrap();
    let from: usize = from.parse().unwrap();
    let last = to.parse().unwrap_or(usize::MAX).min(content.len() - 1);
    // As on the hub, the tag identifies the content: content cached under it is not fetched again.
    let tag = content.iter().fold(content.len() as u64, |hash, byte| {
        hash.wrapping_mul(31).wrapping_add(u64::from(*byte))
    });
    let extra = format!(
        "Content-Range: bytes {from}-{last}/{}\r\nETag: \"tag{tag}\"\r\nX-Repo-Commit: {COMMIT}\r\n",
        content.len()
    );
    reply("206 Partial Content", &extra, &content[from..=last])
}

fn reply(status: &str, extra: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n{extra}\r\n"
    );
    [head.as_bytes(), body].concat()
}
