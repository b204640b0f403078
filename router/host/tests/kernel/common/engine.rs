//! An engine that says what a test has it say, at a socket, as Docker does.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Child, Command};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use serde_json::json;
use weave_host::{Namespace, Netlink};

use super::container;

/// Time for what is awaited to happen, if it ever does.
const WITHIN: Duration = Duration::from_secs(20);

/// Containers and what they say, until this is dropped.
pub struct FakeEngine {
    directory: tempfile::TempDir,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    told: Mutex<Told>,
    changed: Condvar,
}

#[derive(Default)]
struct Told {
    containers: BTreeMap<String, FakeContainer>,
    /// How often the list was asked for.
    lists: usize,
    /// Done once, after the next list is made and before it is sent.
    before_list: Option<Box<dyn FnOnce() + Send>>,
    /// Nothing is answered.
    hangs: bool,
}

/// What an engine tells of a container.
#[derive(Clone, Debug)]
pub struct FakeContainer {
    /// Docker's word.
    pub state: &'static str,
    /// Its first process; 0: none.
    pub pid: u32,
    /// Where its namespace is.
    pub sandbox: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// It is in the list.
    pub is_listed: bool,
}

/// A process in a network namespace of its own, as the first of a container.
pub struct Sandbox {
    pub namespace: Namespace,
    process: Child,
}

impl Sandbox {
    pub fn new() -> Self {
        let namespace = container("sandbox");
        let process = namespace.run(|| Command::new("sleep").arg("1000").spawn().unwrap()).unwrap();
        Self { namespace, process }
    }

    /// What the engine says of a container that runs in it.
    pub fn runs(&self) -> FakeContainer {
        FakeContainer {
            state: "running",
            pid: self.process.id(),
            sandbox: self.namespace.path().display().to_string(),
            labels: BTreeMap::new(),
            is_listed: true,
        }
    }

    /// Whether it has an interface on the network.
    pub fn is_attached(&self, host: &mut Netlink) -> bool {
        weave_host::attach::attached(host, &self.namespace).unwrap().is_some()
    }
}

impl Sandbox {
    /// The process ends; the namespace lives as long as this.
    pub fn end(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        self.end();
    }
}

impl FakeEngine {
    /// Listens. What a test has it do is done in the network namespace of the calling thread.
    pub fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(directory.path().join("docker.sock")).unwrap();
        let shared = Arc::new(Shared::default());
        let serving = Arc::clone(&shared);
        // Both end with the process.
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let shared = Arc::clone(&serving);
                std::thread::spawn(move || shared.serve(&stream));
            }
        });
        Self { directory, shared }
    }

    /// Where it listens, as `DOCKER_HOST` is written.
    pub fn host(&self) -> String {
        format!("unix://{}/docker.sock", self.directory.path().display())
    }

    /// It has this container from now on.
    pub fn put(&self, id: &str, container: FakeContainer) {
        self.shared.told.lock().unwrap().containers.insert(id.to_owned(), container);
    }

    /// It knows nothing of this container.
    pub fn remove(&self, id: &str) {
        self.shared.told.lock().unwrap().containers.remove(id);
    }

    /// Has this done once, after the next list is made and before it is sent.
    pub fn before_list(&self, what: impl FnOnce() + Send + 'static) {
        self.shared.told.lock().unwrap().before_list = Some(Box::new(what));
    }

    /// It takes questions of containers and answers none, or answers again.
    pub fn hang(&self, hangs: bool) {
        self.shared.told.lock().unwrap().hangs = hangs;
        self.shared.changed.notify_all();
    }

    /// How often the list was asked for.
    pub fn lists(&self) -> usize {
        self.shared.told.lock().unwrap().lists
    }

    /// Waits until it was asked for so often.
    #[track_caller]
    pub fn wait_lists(&self, count: usize) {
        let told = self.shared.told.lock().unwrap();
        let (told, _) =
            self.shared.changed.wait_timeout_while(told, WITHIN, |told| told.lists < count).unwrap();
        assert!(told.lists >= count, "asked {} times and not {count}", told.lists);
    }
}

impl Shared {
    fn serve(&self, mut stream: &UnixStream) {
        let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
        while let Some(request) = lines.next() {
            // None of the requests has a body.
            if lines.by_ref().take_while(|line| !line.is_empty()).count() == 0 {
                return;
            }
            let path = request.split(' ').nth(1).unwrap_or_default();
            let path = path.split('?').next().unwrap_or_default().to_owned();
            let (status, body) = self.answer(&path);
            let head = format!(
                "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
                body.len()
            );
            if stream.write_all((head + &body).as_bytes()).is_err() {
                return;
            }
        }
    }

    fn answer(&self, path: &str) -> (&'static str, String) {
        if path.ends_with("/version") {
            return ("200 OK", json!({"ApiVersion": "1.43", "Version": "1"}).to_string());
        }
        let mut told = self.told.lock().unwrap();
        let is_list = path.ends_with("/containers/json");
        if is_list {
            told.lists += 1;
            self.changed.notify_all();
        }
        let mut told = self.changed.wait_while(told, |told| told.hangs).unwrap();
        if is_list {
            let listed = told.containers.iter().filter(|(_, one)| one.is_listed);
            let tell = |(id, one): (&String, &FakeContainer)| json!({"Id": id, "Names": [format!("/{id:.4}")], "State": one.state, "Labels": one.labels});
            let listed: Vec<_> = listed.map(tell).collect();
            let before = told.before_list.take();
            drop(told);
            before.into_iter().for_each(|what| what());
            return ("200 OK", json!(listed).to_string());
        }
        let id = path.strip_suffix("/json").and_then(|path| path.rsplit('/').next()).unwrap_or_default();
        match told.containers.get(id) {
            Some(one) => {
                let running = ["running", "paused", "restarting"].contains(&one.state);
                let body = json!({
                    "Id": id,
                    "Name": format!("/{id:.4}"),
                    "State": {"Status": one.state, "Running": running, "Pid": one.pid},
                    "Config": {"Hostname": "c", "Labels": one.labels},
                    "NetworkSettings": {"SandboxKey": one.sandbox},
                });
                ("200 OK", body.to_string())
            }
            None => ("404 Not Found", json!({"message": "No such container"}).to_string()),
        }
    }
}
