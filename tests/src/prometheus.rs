//! A Prometheus on one host of a world, which scrapes the routers of all.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;
use weave_perf::lab::Process;

use super::http::ask_at;
use super::{World, wait_until};

/// Where it listens, on its host.
const ADDRESS: &str = "127.0.0.1:9090";
/// How often it scrapes and looks at its rules.
const EVERY: &str = "500ms";
/// Time it needs to start, and to see what changes.
const SEEN_WITHIN: Duration = Duration::from_secs(20);

/// The directory of rules and dashboards.
#[must_use]
pub fn dashboards() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../dashboards").canonicalize().unwrap()
}

/// A Prometheus that runs.
#[derive(Debug)]
pub struct Prometheus<'a> {
    world: &'a World,
    host: usize,
    rules: PathBuf,
    process: Process,
}

impl<'a> Prometheus<'a> {
    /// Starts one on host `host` with these rules; it scrapes the routers of `scraped`, which must
    /// listen on every address, as job `weave`, each by the name `hostN`.
    #[track_caller]
    pub fn start(world: &'a World, host: usize, scraped: &[usize], rules: &str) -> Self {
        let directory = world.host(host).directory().join("prometheus");
        fs::create_dir(&directory).unwrap();
        let (config, rules_file) = (directory.join("prometheus.yml"), directory.join("rules.yml"));
        let targets: String = scraped
            .iter()
            .map(|index| {
                let address = world.host(*index).v4();
                format!("      - {{ targets: ['{address}:6782'], labels: {{ instance: host{index} }} }}\n")
            })
            .collect();
        let text = format!(
            "global: {{ scrape_interval: {EVERY}, scrape_timeout: {EVERY}, evaluation_interval: {EVERY} }}\n\
             rule_files: [ rules.yml ]\nscrape_configs:\n  - job_name: weave\n    static_configs:\n{targets}"
        );
        fs::write(config.as_path(), text).unwrap();
        fs::write(&rules_file, rules).unwrap();
        let mut command = world.host(host).command("prometheus");
        command
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", directory.join("data").display()))
            .arg(format!("--web.listen-address={ADDRESS}"))
            .arg("--log.level=error");
        let process = world.host(host).spawn(&mut command).unwrap();
        let prometheus = Self { world, host, rules: rules_file, process };
        let up = || format!("{} routers are scraped", scraped.len());
        let expected = scraped.len().to_string();
        wait_until(SEEN_WITHIN, up, || {
            prometheus.is_ready() && prometheus.try_value("sum(up)").as_deref() == Some(&expected)
        });
        prometheus
    }

    fn is_ready(&self) -> bool {
        self.world.on_host(self.host, || std::net::TcpStream::connect(ADDRESS).is_ok())
    }

    fn get(&self, path: &str) -> Value {
        let request = format!("GET {path} HTTP/1.0\r\nHost: {ADDRESS}\r\n\r\n");
        let answer = self.world.on_host(self.host, || ask_at(ADDRESS, &request));
        serde_json::from_str(&answer.body).unwrap_or(Value::Null)
    }

    /// The result of a query now, or the error.
    ///
    /// # Errors
    /// What Prometheus says of a query it does not take.
    pub fn query(&self, query: &str) -> Result<Vec<Value>, String> {
        let answer = self.get(&format!("/api/v1/query?query={}", escape(query)));
        let result = answer["data"]["result"].as_array().cloned();
        result.filter(|_| answer["status"] == "success").ok_or_else(|| answer.to_string())
    }

    /// The value of the first series that a query gives.
    #[must_use]
    pub fn try_value(&self, query: &str) -> Option<String> {
        let result = self.query(query).ok()?;
        Some(result.first()?["value"][1].as_str()?.to_owned())
    }

    /// The instances, or jobs, for which an alert fires.
    #[must_use]
    pub fn firing(&self, alert: &str) -> Vec<String> {
        let answer = self.get("/api/v1/alerts");
        let alerts = answer["data"]["alerts"].as_array().cloned().unwrap_or_default();
        let fires = |one: &&Value| one["labels"]["alertname"] == alert && one["state"] == "firing";
        let label = |one: &Value| one["labels"]["instance"].as_str().unwrap_or("all").to_owned();
        alerts.iter().filter(fires).map(label).collect()
    }

    /// Waits until an alert fires for `instance`.
    #[track_caller]
    pub fn wait_fires(&self, alert: &str, instance: &str) {
        let what = || format!("{alert} fires for {instance}: {:?}", self.get("/api/v1/alerts"));
        wait_until(SEEN_WITHIN, what, || self.firing(alert).iter().any(|one| one == instance));
    }

    /// Waits until an alert fires for nobody.
    #[track_caller]
    pub fn wait_clears(&self, alert: &str) {
        wait_until(
            SEEN_WITHIN,
            || format!("{alert} clears: {:?}", self.firing(alert)),
            || self.firing(alert).is_empty(),
        );
    }

    /// Waits until the rules were looked at once more, after what was scraped by then.
    #[track_caller]
    pub fn wait_evaluated(&self) {
        let last = || {
            let groups = self.get("/api/v1/rules")["data"]["groups"].as_array().cloned().unwrap_or_default();
            groups.iter().filter_map(|group| group["lastEvaluation"].as_str().map(str::to_owned)).min()
        };
        // One that began before it was asked may have seen the rules before these.
        for _ in 0..2 {
            let before = last();
            wait_until(SEEN_WITHIN, || "rules are looked at".into(), || last() > before);
        }
    }

    /// Other rules from now on.
    pub fn set_rules(&self, rules: &str) {
        fs::write(&self.rules, rules).unwrap();
        let pid = nix::unistd::Pid::from_raw(self.process.pid().cast_signed());
        nix::sys::signal::kill(pid, Signal::SIGHUP).unwrap();
    }
}

/// A text as part of an address (RFC 3986, 2.1).
fn escape(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    };
    text.bytes().map(byte).collect()
}

/// Runs `promtool` and ends the test with what it says when it finds a fault.
#[track_caller]
pub fn promtool(arguments: &[&str], directory: &Path, input: Option<&Path>) {
    let mut command = Command::new("promtool");
    command.args(arguments).current_dir(directory);
    if let Some(input) = input {
        command.stdin(fs::File::open(input).unwrap());
    }
    let output = command.output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "promtool {arguments:?}: {}", String::from_utf8_lossy(&said));
}
