//! `weave-perf dns`: answers a second beside those of dnsmasq, with the same names.
//!
//! Both servers run in one simulated host, pinned to one core, and `dnsperf` asks them from another,
//! in turns: names that the router told ours and that dnsmasq reads from a hosts file, then names
//! that both forward to one resolver and remember.

use std::fmt::Write as _;
use std::io::Write;
use std::net::Ipv4Addr;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use weave_api::REPLY_MAX;
use weave_api::frame::encode;
use weave_api::names::{NamesUpdate, Says, names_socket, prepare};
use weave_api::server::hello_frame;
use weave_perf::lab::{Host, Lab, LabOptions, Process};
use weave_perf::stats::{Summary, ratios};

use crate::ab::error::{Error, Result};
use crate::ab::{self, program};

/// Least share of dnsmasq's answers a second that ours are to reach.
const SHARE_MIN: f64 = 1.0;
/// Time a server has to know all names.
const READY_WITHIN: Duration = Duration::from_secs(30);
/// Names in one frame of the router.
const FRAME: usize = 1000;
/// Names that are forwarded.
const FORWARDED: u32 = 1000;
const OURS: &str = "127.0.0.1";
const THEIRS: &str = "127.0.0.2";
const RESOLVER: &str = "127.0.0.3";

/// What to measure, and how long.
#[derive(Debug, Args)]
pub struct Options {
    /// How often each is measured.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=1000))]
    rounds: u16,
    /// Length of each measurement, seconds.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=600))]
    seconds: u16,
    /// How many names there are.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    names: u32,
    /// The build of `weave` to measure; none given: the one beside this program, or in PATH.
    #[arg(long, value_name = "PATH")]
    weave: Option<PathBuf>,
}

/// Measures and prints; the exit code, which is not 0 when ours answers less than dnsmasq, or not
/// everything at half the rate.
pub fn run(options: &Options) -> Result<i32> {
    ab::require_root()?;
    let weave = program::weave(options.weave.as_deref())?;
    let lab = Lab::new(&LabOptions { hosts: 1, ..LabOptions::default() })?;
    let host = lab.host(0);
    let bench = Bench { host, seconds: options.seconds };
    let (own, other) = (Names::new(options.names, "weave.local", 3), Names::new(FORWARDED, "other.test", 4));
    let files = [own.write(host.directory())?, other.write(host.directory())?];
    let mut resolver = bench.dnsmasq(RESOLVER, &["-h", "-T", "300", "-H", &files[1].hosts])?;
    play_router(host.run_dir(), own)?;
    bench.launch(&weave)?;
    let mut theirs = bench.dnsmasq(THEIRS, &["-h", "-c", "10000", "-H", &files[0].hosts, "-S", RESOLVER])?;
    let mut holds = true;
    for (what, file) in [("names", &files[0]), ("forwarded", &files[1])] {
        for server in [OURS, THEIRS] {
            bench.wait(server, &file.last)?;
        }
        holds &= bench.compare(what, &file.queries, options.rounds)?;
    }
    print(&format!("memory of ours: {} KiB\n", bench.memory()?))?;
    for process in [&mut theirs, &mut resolver] {
        process.kill()?;
    }
    Ok(i32::from(!holds))
}

fn print(text: &str) -> Result<()> {
    std::io::stdout().write_all(text.as_bytes()).map_err(|error| Error::file("write", "stdout", error))
}

/// Names and their addresses.
struct Names {
    all: Vec<(String, Ipv4Addr)>,
    domain: &'static str,
}

/// What the programs read of them.
struct Files {
    hosts: String,
    queries: String,
    last: String,
}

impl Names {
    fn new(count: u32, domain: &'static str, net: u8) -> Self {
        let base = u32::from(Ipv4Addr::new(10, net, 0, 0));
        let all = (1..=count).map(|n| (format!("name-{n}.{domain}"), Ipv4Addr::from(base + n)));
        Self { all: all.collect(), domain }
    }

    fn write(&self, directory: &Path) -> Result<Files> {
        let (mut hosts, mut queries) = (String::new(), String::new());
        for (name, address) in &self.all {
            let _ = writeln!(hosts, "{address} {name}");
            let _ = writeln!(queries, "{name} A");
        }
        let write = |end: &str, text: &str| -> Result<String> {
            let path = directory.join(format!("{}.{end}", self.domain));
            std::fs::write(&path, text).map_err(|error| Error::file("write", &path, error))?;
            Ok(path.display().to_string())
        };
        let last = self.all.last().map(|(name, _)| name.clone()).unwrap_or_default();
        Ok(Files { hosts: write("hosts", &hosts)?, queries: write("queries", &queries)?, last })
    }
}

/// Tells the names, as a router does.
fn play_router(run_dir: PathBuf, names: Names) -> Result<()> {
    let path = names_socket(&run_dir);
    prepare(&run_dir).map_err(|error| Error::file("make", &run_dir, error))?;
    let listener = UnixListener::bind(&path).map_err(|error| Error::file("bind", &path, error))?;
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o660);
    std::fs::set_permissions(&path, mode).map_err(|error| Error::file("open", &path, error))?;
    thread::spawn(move || {
        let kept: Vec<UnixStream> =
            listener.incoming().flatten().map_while(|stream| tell(stream, &names).ok()).collect();
        drop(kept);
    });
    Ok(())
}

fn tell(mut stream: UnixStream, names: &Names) -> std::io::Result<UnixStream> {
    stream.write_all(&hello_frame())?;
    let origin = "02:00:00:00:00:02".parse().map_err(std::io::Error::other)?;
    for chunk in names.all.chunks(FRAME) {
        let set = chunk.iter().map(|(name, address)| {
            let says = Says { origin, address: (*address).into(), container: Default::default() };
            Ok((name.parse().map_err(std::io::Error::other)?, vec![says]))
        });
        let update = NamesUpdate::Set(set.collect::<std::io::Result<_>>()?);
        stream.write_all(&encode(&update, REPLY_MAX).map_err(std::io::Error::other)?)?;
    }
    stream.write_all(&encode(&NamesUpdate::Complete, REPLY_MAX).map_err(std::io::Error::other)?)?;
    Ok(stream)
}

/// What `dnsperf` says.
struct Said {
    per_second: f64,
    lost: u64,
}

struct Bench<'a> {
    host: &'a Host,
    seconds: u16,
}

impl Bench<'_> {
    fn dnsmasq(&self, address: &str, more: &[&str]) -> Result<Process> {
        let mut command = self.host.command("taskset");
        command.args([
            "-c",
            "0",
            "dnsmasq",
            "-k",
            "-C",
            "/dev/null",
            "-R",
            "-u",
            "root",
            "--bind-interfaces",
        ]);
        command.args(["-a", address, "--pid-file", "--dns-forward-max", "512"]).args(more);
        Ok(self.host.spawn(&mut command)?)
    }

    /// The sidecar, with another file that names its resolver.
    fn launch(&self, weave: &Path) -> Result<()> {
        let file = self.host.directory().join("resolv.conf");
        std::fs::write(&file, format!("nameserver {RESOLVER}\n"))
            .map_err(|e| Error::file("write", &file, e))?;
        let mut command = self.host.command("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c"]);
        command.arg("mount --bind \"$0\" /etc/resolv.conf && exec taskset -c 0 \"$@\"").arg(&file).arg(weave);
        command.args(["launch-dns", "--listen", OURS]);
        self.output(&mut command).map(drop)
    }

    fn output(&self, command: &mut Command) -> Result<String> {
        let limit = READY_WITHIN + Duration::from_secs(self.seconds.into());
        let output = self.host.output(command, limit)?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let cause = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        Err(Error::Command { line: format!("{command:?}"), cause })
    }

    /// Waits until a server knows a name.
    fn wait(&self, server: &str, name: &str) -> Result<()> {
        let deadline = Instant::now() + READY_WITHIN;
        loop {
            let mut dig = self.host.command("dig");
            dig.args(["+short", "+time=1", "+tries=1", &format!("@{server}"), name]);
            if self.output(&mut dig).is_ok_and(|said| said.starts_with("10.")) {
                return Ok(());
            }
            if Instant::now() >= deadline {
                let hint = format!("{server} does not know {name}");
                return Err(Error::NotReady { seconds: READY_WITHIN.as_secs(), hint });
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    fn ask(&self, server: &str, queries: &str, rate: Option<f64>) -> Result<Said> {
        let mut command = self.host.command("taskset");
        command.args(["-c", "1", "dnsperf", "-s", server, "-d", queries, "-c", "4", "-q", "200"]);
        command.args(["-l", &self.seconds.to_string()]);
        if let Some(rate) = rate {
            command.args(["-Q", &format!("{rate:.0}")]);
        }
        let said = self.output(&mut command)?;
        let figure = |label: &str| {
            let line = said.lines().find_map(|line| line.trim().strip_prefix(label))?;
            line.split_whitespace().next().map(str::to_owned)
        };
        let odd = || Error::Command { line: "dnsperf".into(), cause: said.clone() };
        let per_second = figure("Queries per second:").and_then(|text| text.parse().ok()).ok_or_else(odd)?;
        let lost = figure("Queries lost:").and_then(|text| text.parse().ok()).ok_or_else(odd)?;
        Ok(Said { per_second, lost })
    }

    /// Measures both in turns; whether ours reaches what it has to.
    fn compare(&self, what: &str, queries: &str, rounds: u16) -> Result<bool> {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for round in 0..rounds {
            // Who is first changes from round to round.
            for turn in 0..2 {
                let (server, rates) =
                    if (round + turn) % 2 == 0 { (OURS, &mut ours) } else { (THEIRS, &mut theirs) };
                rates.push(Some(self.ask(server, queries, None)?.per_second));
            }
        }
        let median = |rates: &[Option<f64>]| {
            let present: Vec<f64> = rates.iter().flatten().copied().collect();
            Summary::of(&present).map_or(0.0, |summary| summary.median)
        };
        let share = Summary::of(&ratios(&ours, &theirs)).map_or(0.0, |summary| summary.median);
        let half = self.ask(OURS, queries, Some(median(&ours) / 2.0))?;
        print(&format!(
            "{what}: {:.0} answers a second, dnsmasq {:.0}, ratio {share:.2}; at half the rate {} lost\n",
            median(&ours),
            median(&theirs),
            half.lost
        ))?;
        Ok(share >= SHARE_MIN && half.lost == 0)
    }

    /// Memory of the sidecar, KiB.
    fn memory(&self) -> Result<u64> {
        let file = self.host.run_dir().join("dns.pid");
        let read =
            |path: &Path| std::fs::read_to_string(path).map_err(|error| Error::file("read", path, error));
        let status = read(Path::new(&format!("/proc/{}/status", read(&file)?.trim())))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        Ok(line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or_default())
    }
}
