//! The report's page in a real browser, on a phone's width and a screen's: it fits, says nothing on the console, and asks
//! nobody for anything.
//!
//! Uses headless Chromium through its debugging pipe: the one that `$CHROMIUM` names, else the first of `chromium`,
//! `chromium-browser`, `google-chrome`, `chrome` in `$PATH`. Without any it says so and passes.

mod support;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde_json::{Value, json};
use support::Place;

fn program() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("CHROMIUM") {
        return Some(named.into());
    }
    let path = std::env::var_os("PATH")?;
    let names = ["chromium", "chromium-browser", "google-chrome", "chrome"];
    std::env::split_paths(&path).flat_map(|folder| names.map(|name| folder.join(name))).find(|file| file.is_file())
}

/// A browser with one page open, and what happened in it.
struct Browser {
    child: Child,
    input: ChildStdin,
    output: Receiver<Value>,
    session: Option<String>,
    next: u64,
    events: Vec<Value>,
    _profile: tempfile::TempDir,
}

impl Browser {
    /// Nothing, with a word, when there is no browser.
    fn start() -> Option<Self> {
        let Some(program) = program() else {
            eprintln!("skipped: no Chromium in $CHROMIUM or $PATH");
            return None;
        };
        let profile = tempfile::tempdir().unwrap();
        // The pipe is on descriptors 3 and 4.
        let mut child = Command::new("sh")
            .args(["-c", r#"exec "$0" "$@" 3<&0 4>&1 0</dev/null 1>/dev/null 2>/dev/null"#])
            .arg(program)
            .args(["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--remote-debugging-pipe"])
            .arg("--disable-dev-shm-usage")
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg("about:blank")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let input = child.stdin.take().unwrap();
        let messages = BufReader::new(child.stdout.take().unwrap()).split(0);
        let (sender, output) = channel();
        std::thread::spawn(move || {
            for message in messages.map_while(Result::ok) {
                if sender.send(serde_json::from_slice(&message).unwrap()).is_err() {
                    break;
                }
            }
        });
        let (session, events) = (None, Vec::new());
        let mut browser = Self { child, input, output, session, next: 0, events, _profile: profile };
        let targets = browser.call("Target.getTargets", json!({}));
        let page = targets["targetInfos"].as_array().unwrap().iter().find(|target| target["type"] == "page").unwrap();
        let attached = browser.call("Target.attachToTarget", json!({"targetId": page["targetId"], "flatten": true}));
        browser.session = Some(attached["sessionId"].as_str().unwrap().to_owned());
        for domain in ["Page", "Network", "Runtime", "Log"] {
            browser.call(&format!("{domain}.enable"), json!({}));
        }
        Some(browser)
    }

    fn call(&mut self, method: &str, parameters: Value) -> Value {
        self.next += 1;
        let mut message = json!({"id": self.next, "method": method, "params": parameters});
        if let Some(session) = &self.session {
            message["sessionId"] = session.as_str().into();
        }
        self.input.write_all(format!("{message}\0").as_bytes()).unwrap();
        self.input.flush().unwrap();
        loop {
            let answer = self.output.recv_timeout(Duration::from_secs(60));
            let mut answer = answer.unwrap_or_else(|_| panic!("waited a minute for {method}"));
            if answer["id"] == self.next {
                assert!(answer["error"].is_null(), "{method}: {}", answer["error"]);
                return answer["result"].take();
            }
            self.events.push(answer);
        }
    }

    fn value(&mut self, expression: &str) -> Value {
        let parameters = json!({"expression": expression, "returnByValue": true, "awaitPromise": true});
        let found = self.call("Runtime.evaluate", parameters);
        assert!(found["exceptionDetails"].is_null(), "{expression}: {}", found["exceptionDetails"]);
        found["result"]["value"].clone()
    }

    /// Opens a page in a window of this width, and forgets what happened before.
    fn open(&mut self, path: &Path, width: u64) {
        let screen = json!({"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": false});
        self.call("Emulation.setDeviceMetricsOverride", screen);
        self.call("Page.navigate", json!({"url": "about:blank"}));
        self.events.clear();
        self.call("Page.navigate", json!({"url": url(path)}));
        // A moment after everything is there: what a page starts may be told of a little later.
        let ready = "new Promise(done => { const soon = () => setTimeout(() => done(true), 300); \
             document.readyState === 'complete' ? soon() : addEventListener('load', soon); })";
        assert_eq!(self.value(ready), true);
    }

    fn happened(&self, methods: &[&str]) -> Vec<&Value> {
        let among = |event: &&Value| methods.iter().any(|method| event["method"] == *method);
        self.events.iter().filter(among).map(|event| &event["params"]).collect()
    }

    /// Words on the console: messages, exceptions, the browser's own complaints.
    fn console(&self) -> Vec<&Value> {
        self.happened(&["Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded"])
    }

    /// What was asked for, but for the page itself and what it carries.
    fn requests(&self, page: &Path) -> Vec<&str> {
        let asked = self.happened(&["Network.requestWillBeSent"]).into_iter();
        let asked = asked.map(|request| request["request"]["url"].as_str().unwrap());
        asked.filter(|asked| *asked != url(page) && !asked.starts_with("data:")).collect()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn url(path: &Path) -> String {
    format!("file://{}", path.display())
}

#[test]
fn the_page_fits_phone_and_screen_is_silent_and_asks_for_nothing() {
    let Some(mut browser) = Browser::start() else { return };
    let place = Place::new();

    // A page that speaks and asks is noticed. Port 9 of this machine discards, where anybody listens at all.
    let loud = place.path("loud.html");
    fs::write(&loud, "<script>console.log('!')</script><img src='http://127.0.0.1:9/x.png'>").unwrap();
    browser.open(&loud, 390);
    assert!(!browser.console().is_empty());
    assert_eq!(browser.requests(&loud), ["http://127.0.0.1:9/x.png"]);

    // Both papers: whatever a page can show, failed runs with their logs among it.
    assert_eq!(place.run("run --seeds 2").status.code(), Some(3));
    let page = place.path("out/report.html");
    for width in [390, 1280] {
        browser.open(&page, width);
        browser.value("document.querySelectorAll('details').forEach(part => part.open = true)");
        assert_eq!(browser.value("document.querySelectorAll('table.claims tbody tr').length"), 8, "{width}");
        let whole = "[...document.images].every(image => image.complete && image.naturalWidth > 0)";
        assert_eq!(browser.value(whole), true, "{width}");
        let widest = browser.value("document.documentElement.scrollWidth").as_u64().unwrap();
        assert!(widest <= width, "{widest} pixels in a window of {width}");
        assert!(browser.console().is_empty(), "{width}: {:?}", browser.console());
        assert!(browser.requests(&page).is_empty(), "{width}: {:?}", browser.requests(&page));
    }
}
