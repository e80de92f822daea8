//! `leyden serve` and HTTP clients.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};

use crate::common::{assert_contains, leyden, refused};
use serde_json::{Value, json};

const CHAT: &str = "/v1/chat/completions";

/// A server with the tiny model on a free port; killed on drop.
struct Server {
    process: Child,
    address: String,
    /// Kept open so that the server never writes to a closed pipe.
    _stdout: BufReader<ChildStdout>,
}

impl Server {
    fn start(arguments: &[&str]) -> Self {
        let mut command = serve(arguments);
        let mut process = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut stdout = BufReader::new(process.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let url = line.split_whitespace().find_map(|word| word.strip_prefix("http://"));
        let address = url.unwrap_or_else(|| panic!("no URL in: {line}")).trim_end_matches("/v1");
        let address = address.to_owned();
        line.clear();
        stdout.read_line(&mut line).unwrap();
        assert!(line.contains("curl") && line.contains(&address), "{line}");
        Self { process, address, _stdout: stdout }
    }

    fn connect(&self) -> TcpStream {
        TcpStream::connect(&self.address).unwrap()
    }

    /// Sends a request and returns the connection.
    fn send(&self, method: &str, path: &str, headers: &[&str], body: &str) -> TcpStream {
        let mut connection = self.connect();
        let mut head =
            format!("{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n");
        for header in headers {
            head += &format!("{header}\r\n");
        }
        if !headers.iter().any(|header| header.starts_with("Content-Length")) {
            head += &format!("Content-Length: {}\r\n", body.len());
        }
        write!(connection, "{head}Content-Type: application/json\r\n\r\n{body}").unwrap();
        connection
    }

    fn request(&self, method: &str, path: &str, headers: &[&str], body: &str) -> Response {
        Response::read(self.send(method, path, headers, body))
    }

    fn get(&self, path: &str) -> Response {
        self.request("GET", path, &[], "")
    }

    fn post(&self, path: &str, body: &Value) -> Response {
        self.request("POST", path, &[], &body.to_string())
    }

    /// Sends SIGINT to the server.
    fn interrupt(&self) {
        let id = i32::try_from(self.process.id()).unwrap();
        // SAFETY: a signal to a process that is our child and has not been waited for.
        assert_eq!(unsafe { libc::kill(id, libc::SIGINT) }, 0);
    }

    fn wait(mut self) -> ExitStatus {
        self.process.wait().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn serve(arguments: &[&str]) -> Command {
    let mut command = leyden(&["serve", "--model", "tiny", "--threads", "1"]);
    command.args(arguments).env_remove("LEYDEN_KEY");
    if !arguments.contains(&"--port") {
        command.args(["--port", "0"]);
    }
    command
}

/// A response with its complete body.
struct Response {
    status: u16,
    body: String,
}

impl Response {
    fn read(connection: TcpStream) -> Self {
        let mut stream = Stream::open(connection);
        let mut body = String::new();
        while let Some(piece) = stream.piece() {
            body += &piece;
        }
        Self { status: stream.status, body }
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.body))
    }

    /// The JSON body of a successful response.
    fn good(&self) -> Value {
        assert_eq!(self.status, 200, "{}", self.body);
        self.json()
    }
}

/// A response whose body is read piece by piece.
struct Stream {
    status: u16,
    chunked: bool,
    reader: BufReader<TcpStream>,
}

impl Stream {
    fn open(connection: TcpStream) -> Self {
        let mut reader = BufReader::new(connection);
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        let status = line.split(' ').nth(1).unwrap_or_else(|| panic!("{line}")).parse().unwrap();
        let mut chunked = false;
        loop {
            line.clear();
            reader.read_line(&mut line).unwrap();
            if line.trim().is_empty() {
                break;
            }
            chunked |= line.to_ascii_lowercase().starts_with("transfer-encoding: chunked");
        }
        Self { status, chunked, reader }
    }

    /// The next piece of the body; `None` at its end.
    fn piece(&mut self) -> Option<String> {
        let mut text = String::new();
        if !self.chunked {
            self.reader.read_to_string(&mut text).unwrap();
            return (!text.is_empty()).then_some(text);
        }
        self.reader.read_line(&mut text).unwrap();
        let size = usize::from_str_radix(text.trim(), 16).unwrap();
        let mut piece = vec![0; size + 2];
        self.reader.read_exact(&mut piece).unwrap();
        piece.truncate(size);
        (size > 0).then(|| String::from_utf8(piece).unwrap())
    }
}

/// The chunks of a streamed response, checking its terminator.
fn chunks(body: &str) -> Vec<Value> {
    let lines: Vec<&str> = body.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
    assert_eq!(lines.last(), Some(&"[DONE]"), "{body}");
    lines[..lines.len() - 1].iter().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn question(tokens: usize) -> Value {
    json!({
        "model": "tiny",
        "messages": [{"role": "user", "content": "Tom has 3 apples and buys 4. How many?"}],
        "max_tokens": tokens,
        "seed": 5,
    })
}

fn streamed(tokens: usize) -> Value {
    let mut body = question(tokens);
    body["stream"] = json!(true);
    body
}

#[test]
fn a_model_answers_whole_and_streamed() {
    let server = Server::start(&[]);
    assert_eq!(server.get("/healthz").status, 200);
    let models = server.get("/v1/models").good();
    assert_eq!(models["data"][0]["id"], "tiny");
    let whole = server.post(CHAT, &question(24)).good();
    let text = whole["choices"][0]["message"]["content"].as_str().unwrap();
    assert!(!text.is_empty());
    assert_eq!(whole["model"], "tiny");
    assert!(whole["usage"]["completion_tokens"].as_u64().unwrap() > 0);
    let response = server.post(CHAT, &streamed(24));
    assert_eq!(response.status, 200, "{}", response.body);
    let joined: String = chunks(&response.body)
        .iter()
        .filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str())
        .collect();
    assert_eq!(joined, text);
    let metrics = server.get("/metrics");
    assert_eq!(metrics.status, 200);
    for name in ["leyden_response_tokens_total", "leyden_engine_finished_total 2"] {
        assert!(metrics.body.contains(name), "`{name}` is not in: {}", metrics.body);
    }
}

/// Several clients, one of which disconnects midway: the others get complete responses.
#[test]
fn a_disconnecting_client_does_not_affect_others() {
    let server = Server::start(&[]);
    let alone = server.post(CHAT, &question(40)).good();
    let mut leaving = Stream::open(server.send("POST", CHAT, &[], &streamed(400).to_string()));
    assert_eq!(leaving.status, 200);
    let others: Vec<TcpStream> =
        (0..4).map(|_| server.send("POST", CHAT, &[], &question(40).to_string())).collect();
    assert!(leaving.piece().is_some());
    drop(leaving);
    for other in others {
        let answer = Response::read(other).good();
        assert_eq!(answer["choices"], alone["choices"]);
    }
}

#[test]
fn invalid_requests_are_refused() {
    let server = Server::start(&["--key", "a long enough key"]);
    let bearer = "Authorization: Bearer a long enough key";
    let refusal = |headers: &[&str], body: &str, status: u16, word: &str| {
        let response = server.request("POST", CHAT, headers, body);
        assert_eq!(response.status, status, "{}", response.body);
        let message = response.json()["error"]["message"].as_str().unwrap().to_owned();
        assert!(message.contains(word), "`{word}` is not in: {message}");
    };
    let good = question(4).to_string();
    refusal(&[], &good, 401, "key");
    refusal(&["Authorization: Bearer another long key"], &good, 401, "key");
    assert_eq!(server.get("/healthz").status, 200, "health needs no key");
    let mut other = question(4);
    other["model"] = json!("gpt-9");
    refusal(&[bearer], &other.to_string(), 404, "gpt-9");
    refusal(&[bearer], "{\"model\": ", 400, "JSON");
    let mut long = question(4);
    long["messages"][0]["content"] = json!("apples ".repeat(4000));
    refusal(&[bearer], &long.to_string(), 400, "prompt is too long");
    // Rejected by Content-Length, before the body is sent.
    let length = format!("Content-Length: {}", 1u64 << 30);
    let response = server.request("POST", CHAT, &[bearer, &length], "");
    assert_eq!(response.status, 413, "{}", response.body);
    server.request("POST", CHAT, &[bearer], &good).good();
}

/// Responses in flight at shutdown are completed.
#[test]
fn shutdown_drains() {
    let server = Server::start(&[]);
    let mut open = Stream::open(server.send("POST", CHAT, &[], &streamed(200).to_string()));
    assert_eq!(open.status, 200);
    let mut body = open.piece().unwrap();
    server.interrupt();
    while let Some(piece) = open.piece() {
        body += &piece;
    }
    let last = chunks(&body);
    assert!(last.iter().any(|chunk| chunk["choices"][0]["finish_reason"].is_string()));
    let address = server.address.clone();
    assert!(server.wait().success());
    assert!(TcpStream::connect(address).is_err(), "the server no longer listens");
}

/// Successive calls of a rollout extend the same token sequence, and persist across a restart.
#[test]
fn a_rollout_is_captured_and_persists() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("store");
    let arguments = ["--store", store.to_str().unwrap()];
    let server = Server::start(&arguments);
    let created = server.post("/api/rollouts", &json!([{"rollout_id": "r1", "input": {}}]));
    assert_eq!(created.status, 201, "{}", created.body);
    let path = "/proxy/rollout/r1/attempt/0/mode/train/openai/v1/chat/completions";
    let mut body = question(12);
    body["model"] = json!("auto");
    let first = server.post(path, &body).good();
    let ids = |value: &Value| -> Vec<u64> {
        value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap()).collect()
    };
    let messages = body["messages"].as_array_mut().unwrap();
    messages.push(first["choices"][0]["message"].clone());
    messages.push(json!({"role": "user", "content": "And then?"}));
    let second = server.post(path, &body).good();
    let before = [ids(&first["prompt_token_ids"]), ids(&first["choices"][0]["token_ids"])].concat();
    assert!(ids(&second["prompt_token_ids"]).starts_with(&before));
    drop(server);

    let server = Server::start(&arguments);
    let events = server.get("/api/rollouts/r1/events?format=triplet").good();
    let events = events.as_array().unwrap();
    assert_eq!(events.len(), 2, "{events:?}");
    for event in events {
        let data = &event["data"];
        let tokens = data["response_token_ids"].as_array().unwrap().len();
        assert!(tokens > 0);
        assert_eq!(data["response_log_probs"].as_array().unwrap().len(), tokens);
    }
}

#[test]
fn a_server_that_cannot_start_says_why() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let file = tempfile::NamedTempFile::new().unwrap();
    let no_folder = file.path().join("store");
    for (arguments, words) in [
        (&["--port", &*port][..], &[&*port, "listen"][..]),
        (&["--host", "0.0.0.0"], &["0.0.0.0", "key"]),
        (&["--key", "short"], &["key", "8 characters"]),
        (&["--store", no_folder.to_str().unwrap()], &["store", "irectory"]),
        (&["--dtype", "f8"], &["f8", "bf16"]),
    ] {
        assert_contains(&refused(&mut serve(arguments)), words);
    }
    let mut unknown = leyden(&["serve", "--model", "no/such/model", "--port", "0"]);
    assert_contains(
        &refused(unknown.env_remove("LEYDEN_KEY")),
        &["no/such/model", "does not exist"],
    );
}
