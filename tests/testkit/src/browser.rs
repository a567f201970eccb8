//! A real browser: Debian's Chromium without a window, driven over WebDriver.
//!
//! What always holds: each browser is one process with a folder of its own, ended by its driver on drop. A click waits until there is something to
//! click, and a wait has a deadline. Source: <https://www.w3.org/TR/webdriver2/>, a session is a handful of JSON posts.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use base64::Engine as _;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::must::Must;
use crate::process::{Owned, wait_for};
use crate::{tools, user};

/// How long a browser may take for anything, on a machine that does much else.
const SOON: Duration = Duration::from_secs(60);
/// Fields that a page has at most: a picture's points and a table's links among them.
const TABS: usize = 300;
/// The key that WebDriver gives an element's reference.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// Keys as WebDriver types them.
pub mod key {
    /// Shift, held down until the end of what is typed.
    pub const SHIFT: &str = "\u{e008}";
    /// To the left.
    pub const LEFT: &str = "\u{e012}";
    /// To the right.
    pub const RIGHT: &str = "\u{e014}";
    /// Home.
    pub const HOME: &str = "\u{e011}";
    /// End.
    pub const END: &str = "\u{e010}";
    /// A blank, which presses a button.
    pub const SPACE: &str = " ";
    /// To the next field.
    pub const TAB: &str = "\u{e004}";
    /// Enter.
    pub const ENTER: &str = "\u{e007}";
}

/// A browser with one page.
#[derive(Debug)]
pub struct Browser {
    address: String,
    session: String,
    _driver: Owned,
    _folder: TempDir,
}

/// The text of axe-core, which finds what keeps people from using a page.
///
/// # Panics
/// If it is not installed.
#[must_use]
pub fn axe() -> String {
    std::fs::read_to_string(tools::need("FARSHORE_AXE")).must("read axe-core")
}

impl Browser {
    /// A new one. `scripts` says whether pages may run any.
    ///
    /// # Panics
    /// If it cannot be started.
    #[must_use]
    pub fn start(scripts: bool) -> Self {
        let folder = user::tempdir();
        let path = folder.path().join("driver.log");
        let log = File::create(&path).must("make the driver's log");
        let mut command = Command::new(tools::need("FARSHORE_CHROMEDRIVER"));
        command.arg("--port=0").stdout(log.try_clone().must("share the log")).stderr(log);
        command.current_dir(folder.path());
        let mut command = user::run_as(command);
        // What the browser keeps lies here, and nothing of another one's is found.
        command.env("HOME", folder.path()).env("TMPDIR", folder.path()).env("XDG_CONFIG_HOME", folder.path());
        let driver = Owned::spawn(command, Signal::SIGTERM);
        let said = || std::fs::read_to_string(&path).unwrap_or_default();
        let port = wait_for(SOON, || {
            said().split("on port ").filter_map(|rest| rest.split('.').next()?.parse::<u16>().ok()).next()
        });
        let port = port.must(format_args!("the browser's driver starts: {}", said()));
        let mut browser = Self {
            address: format!("127.0.0.1:{port}"),
            session: String::new(),
            _driver: driver,
            _folder: folder,
        };
        // A sandbox needs rights that containers do not give; the pages are our own.
        let arguments = [
            "--headless=new",
            "--no-sandbox",
            "--disable-dev-shm-usage",
            "--disable-gpu",
            "--force-prefers-no-reduced-motion",
        ];
        let content = if scripts { 1 } else { 2 };
        let options = json!({"capabilities": {"alwaysMatch": {"browserName": "chrome", "acceptInsecureCerts": true,
            "goog:chromeOptions": {"binary": tools::need("FARSHORE_CHROMIUM"), "args": arguments,
                "prefs": {"profile.managed_default_content_settings.javascript": content}}}}});
        let made = browser.post("", &options);
        browser.session = made["sessionId"].as_str().must("a session").to_owned();
        browser.view(1440, 900, false);
        browser
    }

    /// How wide and high its page is, and whether its system is dark.
    pub fn view(&self, width: u32, height: u32, dark: bool) {
        let size = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        self.devtools("Emulation.setDeviceMetricsOverride", &size);
        // A picture leaves them out, and would be narrower than the page by one.
        self.devtools("Emulation.setScrollbarsHidden", &json!({"hidden": true}));
        let scheme = if dark { "dark" } else { "light" };
        let features = json!([{"name": "prefers-color-scheme", "value": scheme}]);
        self.devtools("Emulation.setEmulatedMedia", &json!({"features": features}));
    }

    /// Goes to an address, and waits until it is loaded.
    pub fn go(&self, url: &str) {
        self.post("/url", &json!({"url": url}));
    }

    /// Where it is.
    #[must_use]
    pub fn url(&self) -> String {
        text(&self.get("/url"))
    }

    /// The text of what a selector finds first, as it is seen; `None` when there is none.
    #[must_use]
    pub fn text(&self, css: &str) -> Option<String> {
        let script = "const found = document.querySelector(arguments[0]); return found && found.innerText;";
        self.script(script, &json!([css])).as_str().map(str::to_owned)
    }

    /// The value of an attribute of what a selector finds first.
    #[must_use]
    pub fn attribute(&self, css: &str, name: &str) -> Option<String> {
        let script = "const found = document.querySelector(arguments[0]); return found && found.getAttribute(arguments[1]);";
        self.script(script, &json!([css, name])).as_str().map(str::to_owned)
    }

    /// Waits until the text of what a selector finds is right.
    ///
    /// # Panics
    /// If it never is.
    #[track_caller]
    pub fn wait_text(&self, css: &str, deadline: Duration, right: impl Fn(&str) -> bool) -> String {
        let found = wait_for(deadline, || self.text(css).filter(|text| right(text)));
        found.must(format_args!("{css} is {:?} at {}:\n{:?}", self.text(css), self.url(), self.text("body")))
    }

    /// Clicks what a selector finds first.
    ///
    /// # Panics
    /// If there is nothing to click.
    #[track_caller]
    pub fn click(&self, css: &str) {
        let clicked = wait_for(SOON, || {
            let element = self.find(css)?;
            self.try_post(&format!("/element/{element}/click"), &json!({})).ok()
        });
        clicked.must(format_args!("click {css} at {}:\n{:?}", self.url(), self.text("body")));
    }

    /// Types into what a selector finds first; keys are of [`key`].
    ///
    /// # Panics
    /// If there is nothing to type into.
    #[track_caller]
    pub fn keys(&self, css: &str, keys: &str) {
        let typed = wait_for(SOON, || {
            let element = self.find(css)?;
            self.try_post(&format!("/element/{element}/value"), &json!({"text": keys})).ok()
        });
        typed.must(format_args!("type into {css} at {}", self.url()));
    }

    /// Runs a script's text with arguments; what it returns.
    pub fn script(&self, script: &str, arguments: &Value) -> Value {
        self.post("/execute/sync", &json!({"script": script, "args": arguments}))
    }

    /// Runs a script's text that calls its last argument with what it has to say.
    pub fn script_that_calls(&self, script: &str) -> Value {
        self.post("/execute/async", &json!({"script": script, "args": []}))
    }

    /// Has what is downloaded from now on put into a folder, which its user may write.
    pub fn download_into(&self, folder: &Path) {
        let settings = json!({"behavior": "allow", "downloadPath": folder});
        self.devtools("Browser.setDownloadBehavior", &settings);
    }

    /// Goes from field to field by the keyboard, from where it is, until it is at what a selector finds first.
    ///
    /// # Panics
    /// If the keyboard does not lead there.
    #[track_caller]
    pub fn tab_to(&self, css: &str) {
        let is_there = "const at = document.activeElement; return at !== null && at === document.querySelector(arguments[0]);";
        for _ in 0..TABS {
            if self.script(is_there, &json!([css])) == true {
                return;
            }
            self.press(key::TAB);
        }
        None::<()>.must(format_args!("the keyboard leads to {css} at {}", self.url()));
    }

    /// Presses keys one after the other, wherever the keyboard is.
    pub fn press(&self, keys: &str) {
        let each = keys.chars().flat_map(|key| {
            let key = key.to_string();
            [json!({"type": "keyDown", "value": key}), json!({"type": "keyUp", "value": key})]
        });
        let actions = json!([{"type": "key", "id": "keyboard", "actions": each.collect::<Vec<_>>()}]);
        self.post("/actions", &json!({"actions": actions}));
    }

    /// A picture of the whole page.
    ///
    /// # Panics
    /// If it cannot be written.
    pub fn picture(&self, path: &Path) {
        let taken = self.devtools("Page.captureScreenshot", &json!({"captureBeyondViewport": true}));
        let bytes =
            base64::engine::general_purpose::STANDARD.decode(text(&taken["data"])).must("read a picture");
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).must("make the folder of pictures");
        }
        std::fs::write(path, bytes).must(format_args!("write {}", path.display()));
    }

    fn find(&self, css: &str) -> Option<String> {
        let found = self.try_post("/element", &json!({"using": "css selector", "value": css})).ok()?;
        found[ELEMENT].as_str().map(str::to_owned)
    }

    fn devtools(&self, command: &str, parameters: &Value) -> Value {
        self.post("/goog/cdp/execute", &json!({"cmd": command, "params": parameters}))
    }

    #[track_caller]
    fn post(&self, path: &str, body: &Value) -> Value {
        self.try_post(path, body).must(format_args!("WebDriver {path}"))
    }

    fn try_post(&self, path: &str, body: &Value) -> Result<Value, Value> {
        self.ask("POST", path, Some(body))
    }

    #[track_caller]
    fn get(&self, path: &str) -> Value {
        self.ask("GET", path, None).must(format_args!("WebDriver {path}"))
    }

    /// One request on a connection of its own.
    fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value, Value> {
        let body = body.map(Value::to_string).unwrap_or_default();
        let session = if self.session.is_empty() { String::new() } else { format!("/{}", self.session) };
        let head = format!(
            "{method} /session{session}{path} HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
            self.address,
            body.len()
        );
        let mut stream = TcpStream::connect(&self.address).must("reach the browser's driver");
        stream.set_read_timeout(Some(SOON * 2)).must("set a deadline");
        stream.write_all(head.as_bytes()).must("ask the browser's driver");
        stream.write_all(body.as_bytes()).must("ask the browser's driver");
        // The driver keeps its connections open: an answer ends where its head says.
        let mut answer = BufReader::new(stream);
        let (mut head, mut length) = (String::new(), 0_usize);
        loop {
            let mut line = String::new();
            answer.read_line(&mut line).must("hear the browser's driver");
            if line.trim().is_empty() {
                break;
            }
            if let Some((_, value)) =
                line.split_once(':').filter(|(name, _)| name.eq_ignore_ascii_case("content-length"))
            {
                length = value.trim().parse().must("the length of an answer");
            }
            head.push_str(&line);
        }
        let mut body = vec![0; length];
        answer.read_exact(&mut body).must("hear the browser's driver");
        let ok = head.split_whitespace().nth(1) == Some("200");
        let value: Value = serde_json::from_slice(&body).must("JSON of the browser's driver");
        if ok { Ok(value["value"].clone()) } else { Err(value["value"].clone()) }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The driver ends the browser; killed, it would leave it behind.
        if !self.session.is_empty() {
            let _gone_already = self.ask("DELETE", "", None);
        }
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
