//! Any number of hosts on one underlay, each launched by the test itself; no containers.

use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use weave_api::status::{Connection, ConnectionState, Status};
use weave_api::{Client, ClientError};
use weave_host::PidFd;
use weave_perf::lab::{Host, Lab, LabOptions};

use crate::world::{
    ANSWER_WITHIN, COMMAND_WITHIN, Ran, await_end, clean_up_when_killed, log_of, wait_until, weave,
};

/// Hosts without anything on them.
#[derive(Debug)]
pub struct Hosts {
    lab: Lab,
    program: PathBuf,
}

impl Hosts {
    /// Builds `count` hosts.
    #[track_caller]
    pub fn new(count: usize) -> Self {
        clean_up_when_killed();
        let lab = Lab::new(&LabOptions { hosts: count, ..LabOptions::default() })
            .expect("these tests make network namespaces: run them as root");
        Self { lab, program: weave() }
    }

    /// Host `index`, counted from 0.
    #[must_use]
    pub fn host(&self, index: usize) -> &Host {
        self.lab.host(index)
    }

    /// The address of host `index` on the underlay.
    #[must_use]
    pub fn address(&self, index: usize) -> IpAddr {
        self.host(index).v4().into()
    }

    /// `weave` on host `index`, to be run there.
    #[must_use]
    pub fn command(&self, index: usize, arguments: &[&str]) -> Command {
        let mut command = self.host(index).command(&self.program);
        command.args(arguments);
        command
    }

    /// Runs a command on host `index` to its end.
    pub fn run(&self, index: usize, command: &mut Command) -> Ran {
        let output = self.host(index).output(command, COMMAND_WITHIN).unwrap();
        Ran {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Runs `weave` with `arguments` on host `index`.
    pub fn weave(&self, index: usize, arguments: &[&str]) -> Ran {
        self.run(index, &mut self.command(index, arguments))
    }

    /// Runs another program on host `index` and ends the test when it fails.
    #[track_caller]
    pub fn tool(&self, index: usize, line: &str) -> String {
        let mut words = line.split_whitespace();
        let mut command = self.host(index).command(words.next().unwrap());
        command.args(words);
        let ran = self.run(index, &mut command);
        assert_eq!(ran.code, Some(0), "{line}: {}", ran.stderr);
        ran.stdout
    }

    /// `weave launch` on host `index`, with this password or in clear.
    pub fn launch(&self, index: usize, password: Option<&str>, arguments: &[&str]) -> Ran {
        self.run(index, &mut self.launch_command(index, password, arguments))
    }

    /// The command of [`Hosts::launch`].
    #[must_use]
    pub fn launch_command(&self, index: usize, password: Option<&str>, arguments: &[&str]) -> Command {
        let mut command = self.command(index, &["launch"]);
        if let Some(password) = password {
            let file = self.host(index).directory().join("password");
            fs::write(&file, password).unwrap();
            command.arg("--password-file").arg(file);
        }
        command.args(arguments);
        command
    }

    /// What the router of host `index` says, or why it says nothing.
    ///
    /// # Errors
    /// When no router runs there or it does not answer in time.
    pub fn try_status(&self, index: usize) -> Result<Status, ClientError> {
        Client::connect(&self.host(index).run_dir(), ANSWER_WITHIN).and_then(|mut client| client.status())
    }

    /// What the router of host `index` says.
    #[track_caller]
    pub fn status(&self, index: usize) -> Status {
        self.try_status(index).unwrap_or_else(|error| panic!("status of host {index}: {error}"))
    }

    /// The process of the router of host `index`.
    #[track_caller]
    pub fn router(&self, index: usize) -> PidFd {
        PidFd::open(self.status(index).pid).unwrap().expect("a router that just answered is gone")
    }

    /// Kills the router of host `index` with SIGKILL and waits until it is gone.
    #[track_caller]
    pub fn kill(&self, index: usize) {
        let process = self.router(index);
        process.signal(nix::sys::signal::Signal::SIGKILL).unwrap();
        await_end(&process);
    }

    /// `weave stop` on host `index`; waits until the process is gone.
    #[track_caller]
    pub fn stop(&self, index: usize) {
        let process = self.router(index);
        self.weave(index, &["stop"]).ok();
        await_end(&process);
    }

    /// The link of host `index` to host `other`, or the attempt to make one.
    #[must_use]
    pub fn connection(&self, index: usize, other: usize) -> Option<Connection> {
        let address = self.address(other);
        let connections = self.try_status(index).ok()?.connections;
        connections.into_iter().find(|link| link.address.address(0).map(|a| a.ip()) == Some(address))
    }

    /// True if host `index` has an established link to host `other`.
    #[must_use]
    pub fn is_established(&self, index: usize, other: usize) -> bool {
        self.connection(index, other).is_some_and(|link| link.state == ConnectionState::Established)
    }

    /// Waits until both hosts say that the link between them is established.
    #[track_caller]
    pub fn wait_established(&self, one: usize, other: usize, limit: Duration) {
        wait_until(
            limit,
            || format!("no link between hosts {one} and {other}; {}", self.connections(&[one, other])),
            || self.is_established(one, other) && self.is_established(other, one),
        );
    }

    /// The connections of these hosts, for messages.
    #[must_use]
    pub fn connections(&self, hosts: &[usize]) -> String {
        let show = |host: &usize| {
            format!("host {host}: {:#?}", self.try_status(*host).map(|status| status.connections))
        };
        hosts.iter().map(show).collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for (index, host) in self.lab.hosts().iter().enumerate() {
                eprintln!("---- log of host {index} ----\n{}", log_of(host));
            }
        }
    }
}
