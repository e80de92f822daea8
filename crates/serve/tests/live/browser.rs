//! Headless Chromium, driven over its debugging pipe.
//!
//! Commands are JSON objects terminated by a zero byte, written to the browser's file descriptor
//! 3; results come from descriptor 4. A shell connects both to our pipes. `--dump-dom` is not
//! usable because a page with an open event stream never becomes idle; unlike a WebSocket, the
//! pipe needs no library.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

const NAMES: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "chrome"];

const START: &str = "exec \"$0\" \"$@\" 3<&0 4>&1 0</dev/null 1>/dev/null 2>/dev/null";

pub struct Browser {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
    number: u64,
    session: Option<String>,
    /// Errors of the page: exceptions, blocked resources, policy violations.
    pub errors: Vec<String>,
    _profile: TempDir,
}

impl Browser {
    /// `None`, with a message, if there is no browser.
    pub fn start(test: &str) -> Option<Self> {
        let has = |name: &&&str| {
            let mut command = Command::new(name);
            command.arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
            command.status().is_ok_and(|status| status.success())
        };
        let Some(name) = NAMES.iter().find(has) else {
            eprintln!("skipped {test}: chromium is not installed");
            return None;
        };
        let profile = tempfile::tempdir().unwrap();
        let mut child = Command::new("sh")
            .args(["-c", START, name, "--headless", "--no-sandbox", "--disable-gpu"])
            .args(["--disable-dev-shm-usage", "--no-first-run", "--remote-debugging-pipe"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg("about:blank")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let to = child.stdin.take().unwrap();
        let from = BufReader::new(child.stdout.take().unwrap());
        let errors = Vec::new();
        let mut browser =
            Self { child, to, from, number: 0, session: None, errors, _profile: profile };
        let targets = browser.command("Target.getTargets", json!({}));
        let pages = targets["targetInfos"].as_array().unwrap();
        let page = pages.iter().find(|target| target["type"] == "page").unwrap();
        let target = json!({ "targetId": page["targetId"], "flatten": true });
        let attached = browser.command("Target.attachToTarget", target);
        browser.session = Some(attached["sessionId"].as_str().unwrap().to_owned());
        for domain in ["Page", "Runtime", "Log"] {
            browser.command(&format!("{domain}.enable"), json!({}));
        }
        Some(browser)
    }

    /// Sends a command and waits for its result.
    pub fn command(&mut self, method: &str, params: Value) -> Value {
        self.number += 1;
        let mut message = json!({ "id": self.number, "method": method, "params": params });
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        self.to.write_all(format!("{message}\0").as_bytes()).unwrap();
        loop {
            let mut bytes = Vec::new();
            self.from.read_until(0, &mut bytes).unwrap();
            assert_eq!(bytes.pop(), Some(0), "the browser ended during {method}");
            let message: Value = serde_json::from_slice(&bytes).unwrap();
            if message["id"] == self.number {
                assert_eq!(message["error"], Value::Null, "{method}");
                return message["result"].clone();
            }
            let params = &message["params"];
            match message["method"].as_str() {
                Some("Runtime.exceptionThrown") => {
                    self.errors.push(params["exceptionDetails"].to_string());
                }
                Some("Log.entryAdded") => self.errors.push(params["entry"].to_string()),
                _ => {}
            }
        }
    }

    pub fn go(&mut self, url: &str) {
        self.command("Page.navigate", json!({ "url": url }));
    }

    /// The value of an expression; a promise is awaited.
    pub fn value(&mut self, expression: &str) -> Value {
        let params =
            json!({ "expression": expression, "awaitPromise": true, "returnByValue": true });
        let result = self.command("Runtime.evaluate", params);
        assert_eq!(result["exceptionDetails"], Value::Null, "{expression}");
        result["result"]["value"].clone()
    }

    /// Waits until `condition` holds in the page.
    pub fn until(&mut self, condition: &str) {
        let expression = format!(
            "new Promise((done) => {{
                const end = Date.now() + 30000;
                const look = () => {{
                    let holds = false;
                    try {{ holds = Boolean({condition}); }} catch {{ /* not there yet */ }}
                    if (holds || Date.now() > end) done(holds); else setTimeout(look, 20);
                }};
                look();
            }})"
        );
        if self.value(&expression) != json!(true) {
            let page = self.value("document.body.innerText");
            panic!("condition not met within 30 seconds: {condition}; page text: {page}");
        }
    }

    /// Presses and releases a key.
    pub fn press(&mut self, key: &str) {
        let (code, text) = match key {
            "Enter" => (13, "\r"),
            "Tab" => (9, ""),
            _ => (0, ""),
        };
        for kind in ["keyDown", "keyUp"] {
            let params = json!({
                "type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code, "text": text,
            });
            self.command("Input.dispatchKeyEvent", params);
        }
    }

    pub fn size(&mut self, width: u32, height: u32, mobile: bool) {
        let params = json!({
            "width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile,
        });
        self.command("Emulation.setDeviceMetricsOverride", params);
    }

    pub fn scheme(&mut self, scheme: &str) {
        let feature = json!({ "name": "prefers-color-scheme", "value": scheme });
        self.command("Emulation.setEmulatedMedia", json!({ "features": [feature] }));
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
