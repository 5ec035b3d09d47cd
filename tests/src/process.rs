//! The real binary as a process of its own: for what only a process can show, such as `kill -9`.
//!
//! Always true:
//! - Each process has a folder of its own, which lives as long as the [`BrimProcess`], over all restarts.
//! - `data_dir` is the first line of every configuration and belongs to the harness.
//! - The process is killed when the [`BrimProcess`] is dropped; what it wrote is shown when something was missed.
//!
//! All of it blocks. Beside an async test that is fine: a fake origin has a thread of its own.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{Method, StatusCode};
use parking_lot::{Condvar, Mutex};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::certificates::Trust;
use crate::client::Client;
use crate::listening::Listening;
use crate::wait::DEADLINE;

/// Names the binary, where it is not beside the tests.
const BRIM_BIN: &str = "BRIM_BIN";
/// The name of the data directory inside the folder of the process.
pub const DATA_DIR: &str = "brim-data";
const CONFIG_FILE: &str = "brim.toml";
const TOKEN_FILE: &str = "admin.token";
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// A running `brim serve`, or `brim demo`.
#[derive(Debug)]
pub struct BrimProcess {
    dir: TempDir,
    data_dir: PathBuf,
    binary: PathBuf,
    child: Child,
    output: Arc<Output>,
    listening: Listening,
}

/// What the admin API answered.
#[derive(Debug, Clone)]
pub struct AdminAnswer {
    /// Its status.
    pub status: StatusCode,
    /// Its content as JSON; a string when it is none.
    pub body: Value,
}

impl BrimProcess {
    /// A node in front of one endpoint, with every listener on port 0. The lines of `extra` belong to its one route
    /// until they begin a table of their own.
    #[must_use]
    pub fn in_front_of(endpoint: &str, extra: &str) -> Self {
        Self::start(&Self::config(endpoint, extra))
    }

    /// The configuration of [`BrimProcess::in_front_of`].
    #[must_use]
    pub fn config(endpoint: &str, extra: &str) -> String {
        format!(
            "[listen]\nhttp = [\"127.0.0.1:0\"]\nhttps = [\"127.0.0.1:0\"]\n\
             [admin]\nlisten = \"127.0.0.1:0\"\n\
             [origins.test]\nendpoints = [\"{endpoint}\"]\n\
             [[sites]]\nhosts = [\"*\"]\n[[sites.routes]]\npath = \"/\"\norigin = \"test\"\n{extra}\n"
        )
    }

    /// Starts a node with this configuration and waits until it listens.
    #[must_use]
    pub fn start(config: &str) -> Self {
        Self::try_start(&find_binary(), config)
            .unwrap_or_else(|(status, output)| panic!("brim ended with {status} before it listened:\n{output}"))
    }

    /// Starts a node that keeps what it stores in this folder, over all restarts.
    #[must_use]
    pub fn start_on(data_dir: &Path, config: &str) -> Self {
        let config = format!("data_dir = \"{}\"\n{config}", data_dir.display());
        let mut process = Self::start(&config);
        process.data_dir = data_dir.to_owned();
        process
    }

    /// Starts a node; how it ended and what it wrote when it ends before it listens.
    ///
    /// # Errors
    /// When the process ends.
    pub fn try_start(binary: &Path, config: &str) -> Result<Self, (ExitStatus, String)> {
        let dir = TempDir::with_prefix("brim-test-").expect("the folder for temporary files is writable");
        let spawned = spawn(binary, dir.path(), config);
        Self::begun(binary, dir, spawned)
    }

    /// The demo, with every listener on port 0 and without plugins.
    #[must_use]
    pub fn demo() -> Self {
        let dir = TempDir::with_prefix("brim-test-").expect("the folder for temporary files is writable");
        let mut arguments = vec!["demo", "--plugins", "none", "--data-dir", DATA_DIR];
        for listener in ["--http", "--https", "--admin", "--origin"] {
            arguments.extend([listener, "127.0.0.1:0"]);
        }
        let binary = find_binary();
        let spawned = spawn_with(&binary, dir.path(), &arguments);
        Self::begun(&binary, dir, spawned)
            .unwrap_or_else(|(status, output)| panic!("brim ended with {status} before it listened:\n{output}"))
    }

    fn begun(binary: &Path, dir: TempDir, (child, output): (Child, Arc<Output>)) -> Result<Self, (ExitStatus, String)> {
        let data_dir = dir.path().join(DATA_DIR);
        let (binary, listening) = (binary.to_owned(), Listening::default());
        let mut process = Self { dir, data_dir, binary, child, output, listening };
        process.wait_until_listening()?;
        Ok(process)
    }

    /// Starts the same node again in the same folder, after [`BrimProcess::kill9`] or [`BrimProcess::terminate`].
    pub fn restart(&mut self) {
        let config = std::fs::read_to_string(self.dir.path().join(CONFIG_FILE)).expect("written at the first start");
        self.restart_with(&config);
    }

    /// Starts a node with another configuration in the same folder.
    pub fn restart_with(&mut self, config: &str) {
        self.stop_child();
        (self.child, self.output) = spawn(&self.binary, self.dir.path(), config);
        if let Err((status, output)) = self.wait_until_listening() {
            panic!("brim ended with {status} before it listened:\n{output}");
        }
        self.wait_until_opened();
    }

    /// A node answers while its store is opened; who restarts one wants to see what it had stored.
    fn wait_until_opened(&self) {
        if !self.data_dir.join(TOKEN_FILE).exists() {
            return;
        }
        let deadline = Instant::now() + DEADLINE;
        loop {
            let status = self.admin(Method::GET, "/v1/status", None);
            if status.body["store"]["disk"] != "opening" {
                return;
            }
            assert!(Instant::now() < deadline, "the store is still being opened:\n{}", self.output.text());
            std::thread::sleep(LOOK_EVERY);
        }
    }

    fn wait_until_listening(&mut self) -> Result<(), (ExitStatus, String)> {
        let deadline = Instant::now() + DEADLINE;
        loop {
            if let Some(listening) = self.output.find(Listening::parse) {
                self.listening = listening;
                return Ok(());
            }
            if let Some(status) = self.child.try_wait().expect("our own child") {
                self.output.wait_for_end(deadline);
                return Err((status, self.output.text()));
            }
            let is_late = Instant::now() >= deadline;
            assert!(!is_late, "no line with `listening` within {DEADLINE:?}:\n{}", self.output.text());
            self.output.wait_for_line(LOOK_EVERY);
        }
    }

    /// Where it listens.
    #[must_use]
    pub const fn listening(&self) -> &Listening {
        &self.listening
    }

    /// A client of the first plaintext listener, for HTTP/1.1.
    #[must_use]
    pub fn http1(&self) -> Client {
        Client::http1(*self.listening.http.first().expect("the configuration has a plaintext listener"))
    }

    /// A client of the first plaintext listener, for HTTP/2.
    #[must_use]
    pub fn http2(&self) -> Client {
        Client::http2(*self.listening.http.first().expect("the configuration has a plaintext listener"))
    }

    /// A client of the first TLS listener, for HTTP/2.
    #[must_use]
    pub fn https2(&self, trust: Trust, server_name: &str) -> Client {
        let addr = self.listening.https.first().expect("the configuration has a TLS listener");
        Client::https2(*addr, trust, server_name)
    }

    /// The folder of the configuration.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The folder in which the node keeps what it stores.
    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        self.data_dir.clone()
    }

    /// The id of the process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where the admin API is.
    #[must_use]
    pub fn admin_url(&self) -> String {
        format!("http://{}", self.listening.admin.first().expect("the configuration has an admin listener"))
    }

    /// The token of the admin API.
    #[must_use]
    pub fn admin_token(&self) -> String {
        let path = self.data_dir().join(TOKEN_FILE);
        let token = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        token.trim().to_owned()
    }

    /// Calls the admin API with the token.
    #[track_caller]
    pub fn admin(&self, method: Method, path: &str, body: Option<&Value>) -> AdminAnswer {
        let content = body.map(|body| ("application/json", body.to_string().into_bytes()));
        self.admin_call(method, path, Some(&self.admin_token()), content)
    }

    /// Puts bytes to the admin API with the token: a plugin.
    #[track_caller]
    pub fn admin_put_bytes(&self, path: &str, content: Vec<u8>) -> AdminAnswer {
        let content = Some(("application/wasm", content));
        self.admin_call(Method::PUT, path, Some(&self.admin_token()), content)
    }

    /// Calls the admin API with this token or none.
    #[track_caller]
    pub fn admin_call(
        &self,
        method: Method,
        path: &str,
        token: Option<&str>,
        content: Option<(&str, Vec<u8>)>,
    ) -> AdminAnswer {
        let addr = *self.listening.admin.first().expect("the configuration has an admin listener");
        let mut ask = Client::http1(addr).ask(method, path);
        if let Some(token) = token {
            ask = ask.header("authorization", &format!("Bearer {token}"));
        }
        if let Some((media_type, content)) = content {
            ask = ask.header("content-type", media_type).content(content);
        }
        let sending = ask.send();
        // A thread of its own, because the test may be inside a runtime, where another one cannot be entered.
        let outcome = std::thread::scope(|scope| {
            scope
                .spawn(|| {
                    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                    runtime.expect("a runtime").block_on(sending)
                })
                .join()
        });
        let answer = outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let body = serde_json::from_slice(&answer.content)
            .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&answer.content).into_owned()));
        AdminAnswer { status: answer.status, body }
    }

    /// Runs `brim` with these arguments in the node's folder; how it ended, what it wrote to stdout, and what to stderr.
    #[must_use]
    pub fn command(&self, arguments: &[&str]) -> (ExitStatus, String, String) {
        let output = Command::new(&self.binary)
            .args(arguments)
            .current_dir(self.dir.path())
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .output()
            .expect("the binary that runs already");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status, text(&output.stdout), text(&output.stderr))
    }

    /// The binary that runs, for commands whose output is not to be read whole.
    #[must_use]
    pub fn binary(&self) -> &Path {
        &self.binary
    }

    /// Waits for a line of the output, and returns what `look` made of it.
    #[track_caller]
    pub fn wait_for_line<T>(&self, what: &str, look: impl Fn(&str) -> Option<T>) -> T {
        let deadline = Instant::now() + DEADLINE;
        loop {
            if let Some(found) = self.output.find(&look) {
                return found;
            }
            let is_late = Instant::now() >= deadline;
            assert!(!is_late, "no line with {what} within {DEADLINE:?}:\n{}", self.output.text());
            self.output.wait_for_line(LOOK_EVERY);
        }
    }

    /// Everything it wrote so far, stdout and stderr in the order in which the lines came.
    #[must_use]
    pub fn output(&self) -> String {
        self.output.text()
    }

    /// `kill -9`: the process has no moment left to do anything.
    pub fn kill9(&mut self) {
        self.stop_child();
    }

    /// SIGTERM, and waits for the end.
    #[track_caller]
    pub fn terminate(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        let deadline = Instant::now() + DEADLINE;
        loop {
            if let Some(status) = self.child.try_wait().expect("our own child") {
                return status;
            }
            let is_late = Instant::now() >= deadline;
            assert!(!is_late, "still running {DEADLINE:?} after SIGTERM:\n{}", self.output.text());
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// SIGTERM without waiting, to look at what happens meanwhile.
    pub fn begin_to_terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// SIGHUP: read the configuration and the certificates again.
    pub fn hang_up(&self) {
        self.signal(Signal::HUP);
    }

    /// Puts another configuration in place, for [`BrimProcess::hang_up`] or the admin API.
    pub fn write_config(&self, config: &str) {
        write_config(self.dir.path(), config);
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).expect("the id of a process");
        kill_process(pid, signal).expect("our own child, which we have not waited for");
    }

    fn stop_child(&mut self) {
        // Errors say that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for BrimProcess {
    fn drop(&mut self) {
        self.stop_child();
        if std::thread::panicking() {
            eprintln!("--- output of brim ---\n{}", self.output.text());
        }
    }
}

/// `BRIM_BIN`, or `brim` beside the folder of the test executables.
fn find_binary() -> PathBuf {
    if let Some(path) = std::env::var_os(BRIM_BIN) {
        return path.into();
    }
    let test = std::env::current_exe().expect("the path of the test");
    let found = test.ancestors().skip(1).take(2).map(|dir| dir.join("brim")).find(|path| path.is_file());
    found.unwrap_or_else(|| {
        panic!("no `brim` beside {}: `cargo build --bin brim` first, or set {BRIM_BIN}", test.display())
    })
}

fn write_config(dir: &Path, config: &str) {
    let config = match config.starts_with("data_dir") {
        true => config.to_owned(),
        false => format!("data_dir = \"./{DATA_DIR}\"\n{config}"),
    };
    std::fs::write(dir.join(CONFIG_FILE), config).expect("the folder of the test is writable");
}

fn spawn(binary: &Path, dir: &Path, config: &str) -> (Child, Arc<Output>) {
    write_config(dir, config);
    spawn_with(binary, dir, &["serve", "-c", CONFIG_FILE])
}

fn spawn_with(binary: &Path, dir: &Path, arguments: &[&str]) -> (Child, Arc<Output>) {
    let mut child = Command::new(binary)
        .args(arguments)
        .current_dir(dir)
        .env("NO_COLOR", "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{}: {error}", binary.display()));
    let output = Arc::new(Output::default());
    let pipes: [Option<Box<dyn Read + Send>>; 2] = [
        child.stdout.take().map(|pipe| Box::new(pipe) as Box<dyn Read + Send>),
        child.stderr.take().map(|pipe| Box::new(pipe) as Box<dyn Read + Send>),
    ];
    for pipe in pipes.into_iter().flatten() {
        output.lines.lock().open_pipes += 1;
        let output = Arc::clone(&output);
        std::thread::spawn(move || output.take(pipe));
    }
    (child, output)
}

/// The lines of a process, as they come.
#[derive(Debug, Default)]
struct Output {
    lines: Mutex<Lines>,
    came: Condvar,
}

#[derive(Debug, Default)]
struct Lines {
    lines: Vec<String>,
    open_pipes: usize,
}

impl Output {
    fn take(&self, pipe: impl Read) {
        let mut reader = BufReader::new(pipe);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            self.lines.lock().lines.push(text);
            self.came.notify_all();
            line.clear();
        }
        self.lines.lock().open_pipes -= 1;
        self.came.notify_all();
    }

    fn find<T>(&self, look: impl Fn(&str) -> Option<T>) -> Option<T> {
        self.lines.lock().lines.iter().find_map(|line| look(line))
    }

    fn text(&self) -> String {
        self.lines.lock().lines.join("\n")
    }

    fn wait_for_line(&self, at_most: Duration) {
        let mut lines = self.lines.lock();
        self.came.wait_for(&mut lines, at_most);
    }

    /// Waits until the process has closed its pipes, so that its last words are there.
    fn wait_for_end(&self, deadline: Instant) {
        let mut lines = self.lines.lock();
        while lines.open_pipes > 0 && !self.came.wait_until(&mut lines, deadline).timed_out() {}
    }
}
