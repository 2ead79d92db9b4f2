//! A headless Chromium, driven over WebDriver (W3C): JSON over HTTP, spoken to `chromedriver`. Tests that need one pass
//! over what they cannot see where there is none.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::Workplace;

/// A page in a browser; closed when dropped.
pub struct Browser {
    driver: Child,
    port: u16,
    session: String,
    page: String,
}

fn program(names: &[&str]) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    names
        .iter()
        .flat_map(|name| folders.iter().map(move |folder| folder.join(name)))
        .find(|file| file.is_file())
}

impl Browser {
    /// Starts one, if the machine has Chromium and its driver.
    pub fn start(here: &Workplace) -> Option<Self> {
        let chromium = program(&["chromium", "chromium-browser", "google-chrome", "chrome"]);
        let (Some(chromium), Some(driver)) = (chromium, program(&["chromedriver"])) else {
            eprintln!("skipped: no chromium with chromedriver on the path, so no page was opened");
            return None;
        };
        let mut driver = Command::new(driver)
            .arg("--port=0")
            .current_dir(here.path("."))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(driver.stdout.take().unwrap()).lines();
        let port = loop {
            let line = lines.next().expect("the driver says where it listens").unwrap();
            if let Some(rest) = line.split("successfully on port ").nth(1) {
                break rest.trim_end_matches('.').trim().parse().unwrap();
            }
        };
        // What else it says is read, or it would wait for a reader.
        std::thread::spawn(move || lines.for_each(drop));
        let profile = format!("--user-data-dir={}", here.path("profile").display());
        let arguments = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--mute-audio",
            "--window-size=1280,1000",
            "--autoplay-policy=no-user-gesture-required",
            "--disable-dev-shm-usage",
            &profile,
        ];
        let mut browser = Self { driver, port, session: String::new(), page: String::new() };
        let options = json!({ "binary": chromium, "args": arguments });
        let wanted = json!({ "capabilities": { "alwaysMatch": {
            "browserName": "chrome", "goog:chromeOptions": options,
            "goog:loggingPrefs": { "browser": "ALL", "performance": "ALL" },
        } } });
        let session = browser.call("POST", "/session", &wanted);
        browser.session =
            session["sessionId"].as_str().unwrap_or_else(|| panic!("no session: {session}")).to_owned();
        Some(browser)
    }

    /// Opens a file.
    pub fn open(&mut self, file: &Path) {
        self.page = format!("file://{}", file.canonicalize().unwrap().display()).replace(' ', "%20");
        self.post("url", &json!({ "url": self.page }));
    }

    /// Runs the body of a function in the page.
    pub fn script(&mut self, script: &str) -> Value {
        self.post("execute/sync", &json!({ "script": script, "args": [] }))
    }

    /// Waits until a script says true.
    pub fn wait(&mut self, script: &str, what: &str) {
        let start = Instant::now();
        while self.script(script) != true {
            assert!(start.elapsed() < Duration::from_secs(20), "not so after 20 s: {what}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Makes the window so large.
    pub fn resize(&mut self, width: u32, height: u32) {
        self.post("window/rect", &json!({ "width": width, "height": height }));
    }

    /// Clicks on the map where a clip stands.
    pub fn click_clip(&mut self, clip: usize) {
        self.wait(
            "return document.getElementById('map-canvas').dataset.ready === 'true'",
            "the map is there",
        );
        let place = self.script(&format!(
            "const map = document.getElementById('map-canvas'); map.scrollIntoView({{block: 'center', behavior: 'instant'}});
             const box = map.getBoundingClientRect(), at = map.place({clip}); return [box.left + at[0], box.top + at[1]]"
        ));
        let [x, y] = [0, 1].map(|i| place[i].as_f64().unwrap().round() as i64);
        self.post(
            "actions",
            &json!({ "actions": [{
            "type": "pointer", "id": "mouse", "parameters": { "pointerType": "mouse" },
            "actions": [
                { "type": "pointerMove", "duration": 0, "x": x, "y": y },
                { "type": "pointerDown", "button": 0 }, { "type": "pointerUp", "button": 0 },
            ],
        }] }),
        );
        self.wait("return document.querySelector('#map-clip h4') !== null", "a click chooses a clip");
    }

    /// The console is empty, and nothing but the page, what lies beside it and what it holds was asked for.
    pub fn assert_quiet(&mut self) {
        let console = self.post("se/log", &json!({ "type": "browser" }));
        assert_eq!(console, json!([]), "the console");
        let events = self.post("se/log", &json!({ "type": "performance" }));
        let mut asked = Vec::new();
        for entry in events.as_array().unwrap() {
            let message: Value = serde_json::from_str(entry["message"].as_str().unwrap()).unwrap();
            if message["message"]["method"] == "Network.requestWillBeSent" {
                asked.push(message["message"]["params"]["request"]["url"].as_str().unwrap().to_owned());
            }
        }
        assert!(asked.contains(&self.page), "requests are seen: {asked:?}");
        let folder = self.page.rsplit_once('/').unwrap().0;
        // `chrome:` is the page that the browser itself began with.
        let own =
            |url: &String| ["data:", "blob:", "chrome:", folder].iter().any(|start| url.starts_with(start));
        asked.retain(|url| !own(url));
        assert_eq!(asked, [""; 0], "requests");
    }

    fn post(&self, what: &str, body: &Value) -> Value {
        self.call("POST", &format!("/session/{}/{what}", self.session), body)
    }

    fn call(&self, method: &str, path: &str, body: &Value) -> Value {
        let value = self.ask(method, path, body).unwrap_or_else(|e| panic!("{method} {path}: {e}"));
        assert!(value["error"].is_null(), "{method} {path}: {value}");
        value
    }

    fn ask(&self, method: &str, path: &str, body: &Value) -> std::io::Result<Value> {
        let body = body.to_string();
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
             Connection: close\r\n\r\n",
            body.len()
        );
        stream.write_all((head + &body).as_bytes())?;
        let mut answer = BufReader::new(stream);
        let mut length = 0;
        loop {
            let mut line = String::new();
            answer.read_line(&mut line)?;
            let line = line.trim_end().to_ascii_lowercase();
            if let Some(rest) = line.strip_prefix("content-length:") {
                length = rest.trim().parse().unwrap_or(0);
            }
            if line.is_empty() {
                break;
            }
        }
        let mut text = vec![0; length];
        answer.read_exact(&mut text)?;
        let answer: Value = serde_json::from_slice(&text)?;
        Ok(answer["value"].clone())
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Closes Chromium, also after a failed test; without its driver it would stay.
        if !self.session.is_empty() {
            self.ask("DELETE", &format!("/session/{}", self.session), &json!({})).ok();
        }
        self.driver.kill().ok();
        self.driver.wait().ok();
    }
}
