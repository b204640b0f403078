//! What a test asks of its world.

use weave_perf::lab::{Place, Underlay};

/// Password of an encrypted world, unless another is asked for.
pub const PASSWORD: &str = "correct horse battery staple";

/// The family of addresses that the routers reach each other by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// How the router of one host is launched.
#[derive(Debug, Clone, Default)]
pub struct HostOptions {
    /// Its password; `None`: a clear network.
    pub password: Option<String>,
    /// More arguments of `weave launch`.
    pub arguments: Vec<String>,
    /// More variables of `weave launch`.
    pub environment: Vec<(String, String)>,
}

/// A router that is launched, and the hosts that it is told to dial.
pub type Launch = (usize, Vec<usize>);

/// How to build a [`World`](super::World).
#[derive(Debug, Clone)]
pub struct Options {
    /// Each host.
    pub hosts: Vec<HostOptions>,
    /// Number of containers on each host, 0 to [`CONTAINERS_MAX`](super::CONTAINERS_MAX).
    pub containers: usize,
    /// The network between the hosts.
    pub underlay: Underlay,
    /// Where they are on it; those after the last one given are on segment 0.
    pub places: Vec<Place>,
    /// By which family hosts dial others.
    pub family: Family,
    /// Which routers are launched, in this order.
    pub launches: Vec<Launch>,
    /// Attach the containers.
    pub attach: bool,
    /// Wait until the links to all that were dialled are established at both ends.
    pub wait: bool,
}

impl Options {
    /// Two hosts of an encrypted network over IPv4, of which host 1 dials host 0; everything else
    /// as usual.
    #[must_use]
    pub fn encrypted() -> Self {
        let usual = HostOptions { password: Some(PASSWORD.into()), ..HostOptions::default() };
        Self::of(usual)
    }

    /// The same without a password.
    #[must_use]
    pub fn clear() -> Self {
        Self::of(HostOptions::default())
    }

    fn of(usual: HostOptions) -> Self {
        let options = Self {
            hosts: vec![usual],
            containers: 1,
            underlay: Underlay::default(),
            places: Vec::new(),
            family: Family::V4,
            launches: Vec::new(),
            attach: true,
            wait: true,
        };
        options.count(2)
    }

    /// So many hosts, all like the first; each dials host 0. To be said before what is to be
    /// different on one of them, or in which order they are launched.
    #[must_use]
    pub fn count(mut self, hosts: usize) -> Self {
        let usual = self.hosts.first().cloned().unwrap_or_default();
        self.hosts.resize(hosts, usual);
        self.launches = (0..hosts).map(|index| (index, if index == 0 { vec![] } else { vec![0] })).collect();
        self
    }

    /// Nothing runs and nothing is attached; no containers. The test does all that itself.
    #[must_use]
    pub fn bare(self, hosts: usize) -> Self {
        Self { containers: 0, ..self.count(hosts).not_launched() }
    }

    /// Launches these routers in this order, each with the hosts that it dials.
    #[must_use]
    pub fn launches(self, launches: &[(usize, &[usize])]) -> Self {
        let launches = launches.iter().map(|(host, targets)| (*host, targets.to_vec())).collect();
        Self { launches, ..self }
    }

    /// So many containers on each host.
    #[must_use]
    pub fn containers(self, containers: usize) -> Self {
        Self { containers, ..self }
    }

    /// Where the hosts are on the underlay, from the first.
    #[must_use]
    pub fn places(self, places: Vec<Place>) -> Self {
        Self { places, ..self }
    }

    /// Adds arguments, separated by blanks, to all launches.
    #[must_use]
    pub fn args(mut self, arguments: &str) -> Self {
        for host in 0..self.hosts.len() {
            self = self.args_of(host, arguments);
        }
        self
    }

    /// Adds arguments, separated by blanks, to the launch of one host.
    #[must_use]
    pub fn args_of(mut self, host: usize, arguments: &str) -> Self {
        self.hosts[host].arguments.extend(arguments.split_whitespace().map(str::to_owned));
        self
    }

    /// Sets a variable for all launches.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        for host in 0..self.hosts.len() {
            self = self.env_of(host, name, value);
        }
        self
    }

    /// Sets a variable for the launch of one host.
    #[must_use]
    pub fn env_of(mut self, host: usize, name: &str, value: &str) -> Self {
        self.hosts[host].environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// By which family hosts dial others.
    #[must_use]
    pub fn family(self, family: Family) -> Self {
        Self { family, ..self }
    }

    /// The network between the hosts.
    #[must_use]
    pub fn underlay(self, underlay: Underlay) -> Self {
        Self { underlay, ..self }
    }

    /// Launches nothing: the test does.
    #[must_use]
    pub fn not_launched(self) -> Self {
        Self { launches: Vec::new(), wait: false, ..self }
    }

    /// Attaches no container: the test does, or leaves it.
    #[must_use]
    pub fn not_attached(self) -> Self {
        Self { attach: false, ..self }
    }

    /// Does not wait for the links: the test does, or none is to come.
    #[must_use]
    pub fn no_wait(self) -> Self {
        Self { wait: false, ..self }
    }
}
