//! Lines typed inside a container, and what its interface has.

use std::time::Duration;

use super::{Engines, SOON};
use crate::world::{Ran, wait_until};

/// A container and the host it is on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inside {
    /// The host, counted from 0.
    pub host: usize,
    /// The id or name.
    pub id: String,
}

impl Engines {
    /// `docker run` on a host with these arguments: the image, and a shell that stays, are added.
    #[track_caller]
    #[must_use]
    pub fn docker_run(&self, host: usize, arguments: &str) -> Inside {
        let id = self.ok(host, &format!("docker run -d -t -i {arguments} {}", super::IMAGE));
        Inside { host, id }
    }

    /// `weave run` on a host with these arguments, likewise.
    #[track_caller]
    #[must_use]
    pub fn weave_run(&self, host: usize, arguments: &str) -> Inside {
        let id = self.ok(host, &format!("weave run {arguments} -t -i {}", super::IMAGE));
        Inside { host, id }
    }

    /// Runs a line of shell inside a container to its end.
    pub fn inside(&self, container: &Inside, line: &str) -> Ran {
        let mut command = self.command(container.host, "docker");
        command.args(["exec", &container.id, "sh", "-c", line]);
        self.world().run(container.host, &mut command)
    }

    /// IPv4 addresses of `ethwe`, with their prefixes, in order; none when it is not there.
    #[must_use]
    pub fn addresses(&self, container: &Inside) -> Vec<String> {
        let shown = self.inside(container, "ip -4 -o addr show dev ethwe").stdout;
        let words = shown.split_whitespace();
        let after = words.clone().zip(words.skip(1)).filter(|(word, _)| *word == "inet");
        after.map(|(_, address)| address.to_owned()).collect()
    }

    /// Waits until a container has these addresses and no others.
    #[track_caller]
    pub fn wait_addresses(&self, container: &Inside, addresses: &[&str], limit: Duration) {
        wait_until(
            limit,
            || format!("{} has {:?} and not {addresses:?}", container.id, self.addresses(container)),
            || self.addresses(container) == addresses,
        );
    }

    /// The same, as soon as it must be when nobody types anything.
    #[track_caller]
    pub fn wait_attached(&self, container: &Inside, addresses: &[&str]) {
        self.wait_addresses(container, addresses, SOON);
    }

    /// True if a ping from a container is answered.
    #[must_use]
    pub fn reaches(&self, from: &Inside, address: &str) -> bool {
        self.inside(from, &format!("ping -c 1 -W 1 -q {address}")).code == Some(0)
    }

    /// Waits until a container reaches an address.
    #[track_caller]
    pub fn wait_reaches(&self, from: &Inside, address: &str, limit: Duration) {
        wait_until(
            limit,
            || format!("{} gets no answer from {address}", from.id),
            || self.reaches(from, address),
        );
    }

    /// What `weave ps` says on a host.
    #[track_caller]
    #[must_use]
    pub fn ps(&self, host: usize) -> String {
        self.ok(host, "weave ps")
    }
}
