//! One simulated host.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::time::Duration;

use ipnet::IpNet;
use weave_host::{Namespace, Netlink};

use super::error::{Error, Result};
use super::layout::{self, Place, TRANSLATED};
use super::memory::{MemoryLimit, MemoryUse};
use super::process::{Process, name_of};
use super::registry;
use super::underlay::UNDERLAY;

/// Variables of the caller that would change what `weave` does in a host.
const CLEARED: [&str; 5] =
    ["WEAVE_PASSWORD", "WEAVE_PORT", "WEAVE_MTU", "WEAVE_STATUS_ADDR", "WEAVE_METRICS_ADDR"];

/// A network namespace with addresses on the underlay and directories of its own.
#[derive(Debug)]
pub struct Host {
    number: u8,
    namespace: Namespace,
    directory: PathBuf,
    place: Place,
    /// Where its first device is now.
    segment: AtomicU8,
    outputs: AtomicU32,
    memory: Option<MemoryLimit>,
    variables: &'static [(&'static str, &'static str)],
}

impl Host {
    pub(super) fn new(
        number: usize,
        namespace: Namespace,
        directory: PathBuf,
        place: Place,
        memory: Option<MemoryLimit>,
        variables: &'static [(&'static str, &'static str)],
    ) -> Result<Self> {
        place.check()?;
        let host = Self {
            number: u8::try_from(number).map_err(|_| Error::Hosts { given: number })?,
            namespace,
            directory,
            segment: AtomicU8::new(place.segments.first().copied().unwrap_or_default()),
            place,
            outputs: AtomicU32::new(0),
            memory,
            variables,
        };
        for directory in [&host.directory, &host.run_dir(), &host.state_dir()] {
            registry::make_directory(directory).map_err(|error| Error::file("make", directory, error))?;
        }
        Ok(host)
    }

    /// Its number, counted from 1.
    #[must_use]
    pub fn number(&self) -> u8 {
        self.number
    }

    /// Its address on the segment of its first device, 10.99.SEGMENT.N; behind a translator
    /// 192.168.N.2.
    #[must_use]
    pub fn v4(&self) -> Ipv4Addr {
        match self.place.nat {
            Some(_) => layout::v4_behind(self.number, TRANSLATED),
            None => layout::v4(self.segment(), self.number),
        }
    }

    /// The same of IPv6: fd99:0:0:SEGMENT::N; behind a translator fdc0:0:0:N::2.
    #[must_use]
    pub fn v6(&self) -> Ipv6Addr {
        match self.place.nat {
            Some(_) => layout::v6_behind(self.number, TRANSLATED),
            None => layout::v6(self.segment(), self.number),
        }
    }

    /// Where it was put.
    #[must_use]
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// The addresses that others see its packets come from: all that its devices on the underlay
    /// have now, or those of its translator.
    ///
    /// # Errors
    /// When the kernel does not list them.
    pub fn seen_as(&self) -> Result<Vec<IpAddr>> {
        if self.place.nat.is_some() {
            return Ok(layout::on_segment(self.segment(), self.number)?.map(|net| net.addr()).to_vec());
        }
        let devices = 0..self.place.segments.len();
        let mut addresses = Vec::new();
        for device in devices {
            addresses.extend(self.addresses_on(&device_name(device))?.iter().map(IpNet::addr));
        }
        Ok(addresses)
    }

    /// Addresses of a device, without link-local ones.
    pub(super) fn addresses_on(&self, device: &str) -> Result<Vec<IpNet>> {
        let mut netlink = Netlink::in_namespace(&self.namespace)?;
        let index = netlink.expect_link(device)?.index;
        let found = netlink.addresses()?.into_iter();
        let found = found.filter(|address| address.index == index && !address.link_local);
        Ok(found.map(|address| address.cidr).collect())
    }

    /// Changes the addresses of the first device.
    pub(super) fn change_addresses(&self, old: &[IpNet], new: &[IpNet]) -> Result<()> {
        let mut netlink = Netlink::in_namespace(&self.namespace)?;
        let index = netlink.expect_link(UNDERLAY)?.index;
        // First the old ones: with the first address of a subnet the kernel deletes all others.
        for address in old {
            netlink.delete_address(index, *address)?;
        }
        for address in new {
            netlink.add_address(index, *address)?;
        }
        Ok(())
    }

    pub(super) fn segment(&self) -> u8 {
        self.segment.load(Ordering::Relaxed)
    }

    pub(super) fn set_segment(&self, segment: u8) {
        self.segment.store(segment, Ordering::Relaxed);
    }

    /// Name of the far end of its device number `device`, counted from 0.
    pub(super) fn port(&self, device: usize) -> String {
        format!("host{}-{device}", self.number)
    }

    /// Its namespace.
    #[must_use]
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// What `WEAVE_RUN_DIR` is in it.
    #[must_use]
    pub fn run_dir(&self) -> PathBuf {
        self.directory.join("run")
    }

    /// What `WEAVE_STATE_DIR` is in it.
    #[must_use]
    pub fn state_dir(&self) -> PathBuf {
        self.directory.join("state")
    }

    /// A directory for files of this host.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Runs `work` on a thread inside.
    ///
    /// # Errors
    /// When the namespace cannot be entered.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        Ok(self.namespace.run(work)?)
    }

    /// Lets the kernel join received segments over time as well: it holds them for up to `hold`
    /// and leaves the device's interrupt off for `polls` empty polls, as a busy network card does.
    /// Takes effect on a device of this host that joins at all ([`super::Underlay::gro`]).
    ///
    /// # Errors
    /// When there is no such device, or /sys cannot be mounted.
    pub fn set_gro_timing(&self, device: &str, hold: Duration, polls: u32) -> Result<()> {
        let hold = ("gro_flush_timeout", hold.as_nanos().to_string());
        super::sysfs::write(self, device, &[hold, ("napi_defer_hard_irqs", polls.to_string())])
    }

    /// What its processes have used, where they are limited ([`super::LIMIT_VARIABLE`]). Who asks
    /// judges it: what ended for lack of memory is no longer a panic at the end of the host.
    #[must_use]
    pub fn memory_use(&self) -> Option<MemoryUse> {
        self.memory.as_ref().map(MemoryLimit::ask)
    }

    /// Whether the limit of this host, if it has one, counts what a process uses.
    #[must_use]
    pub fn limits(&self, pid: u32) -> bool {
        self.memory.as_ref().is_some_and(|memory| memory.holds(pid))
    }

    /// A command with the environment of this host, to be given to [`Host::output`] or [`Host::spawn`].
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        self.in_memory(program.as_ref(), self.memory.as_ref())
    }

    /// The same for what is no part of the overlay, as a container engine: the limit of this host
    /// does not count it.
    pub fn unlimited_command(&self, program: impl AsRef<OsStr>) -> Command {
        self.in_memory(program.as_ref(), None)
    }

    fn in_memory(&self, program: &OsStr, memory: Option<&MemoryLimit>) -> Command {
        let mut command = match memory {
            Some(memory) => {
                let mut shell = Command::new("sh");
                shell.args(["-c", "echo 0 >\"$0\" && exec \"$@\""]).arg(memory.procs()).arg(program);
                shell
            }
            None => Command::new(program),
        };
        for variable in CLEARED {
            command.env_remove(variable);
        }
        command.env("WEAVE_RUN_DIR", self.run_dir()).env("WEAVE_STATE_DIR", self.state_dir());
        command.envs(self.variables.iter().copied());
        command.stdin(Stdio::null());
        command
    }

    /// Runs a command to its end and returns what it wrote. Processes it leaves behind are no
    /// obstacle: output goes through files.
    ///
    /// # Errors
    /// [`Error::TimedOut`] when it does not end within `limit` (it is killed then); when it cannot
    /// be started. A command that fails is no error: see the status.
    pub fn output(&self, command: &mut Command, limit: Duration) -> Result<Output> {
        let number = self.outputs.fetch_add(1, Ordering::Relaxed);
        let paths = ["out", "err"].map(|end| self.directory.join(format!("{number}.{end}")));
        let mut files = Vec::with_capacity(paths.len());
        for path in &paths {
            files.push(File::create_new(path).map_err(|error| Error::file("make", path, error))?);
        }
        if let (Some(errors), Some(out)) = (files.pop(), files.pop()) {
            command.stdout(out).stderr(errors);
        }
        let ended = self.spawn(command).and_then(|mut process| process.wait(limit));
        let mut contents = Vec::with_capacity(paths.len());
        for path in &paths {
            contents.push(fs::read(path).map_err(|error| Error::file("read", path, error))?);
            fs::remove_file(path).map_err(|error| Error::file("remove", path, error))?;
        }
        let (stderr, stdout) = (contents.pop().unwrap_or_default(), contents.pop().unwrap_or_default());
        Ok(Output { status: ended?, stdout, stderr })
    }

    /// Starts a command that stays; it is killed when the returned value or the lab is dropped.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn(&self, command: &mut Command) -> Result<Process> {
        let program = name_of(command);
        // A child belongs to the namespace of the thread that starts it.
        let child = registry::unless_closed(|| self.run(|| command.spawn()));
        let child = child
            .and_then(|child| child.unwrap_or_else(|error| Err(std::io::Error::other(error))))
            .map_err(|cause| Error::Program { step: "start", program: program.clone(), cause })?;
        Ok(Process::new(child, program))
    }
}

/// Name of a host's device number `device` on the underlay, counted from 0.
pub(super) fn device_name(device: usize) -> String {
    format!("eth{device}")
}
