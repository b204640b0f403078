//! Lines typed inside a container, and what its interface has.

use std::time::Duration;

use weave_host::Netlink;
use weave_perf::lab::Container;

use super::{Engines, SOON};
use crate::world::{INTERFACE, Ran, of_containers, wait_until};

/// Time an engine has to start a container again by itself.
const RUNS_WITHIN: Duration = Duration::from_secs(20);

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
    pub fn docker_run(&self, host: usize, arguments: &str) -> Inside {
        let more = self.engines[host].run_arguments();
        let id = self.ok(host, &format!("docker run -d -t -i {more} {arguments} {}", super::IMAGE));
        Inside { host, id }
    }

    /// `weave run` on a host with these arguments, likewise.
    #[track_caller]
    pub fn weave_run(&self, host: usize, arguments: &str) -> Inside {
        self.weave_run_image(host, arguments, super::IMAGE)
    }

    /// The same with another image.
    #[track_caller]
    pub fn weave_run_image(&self, host: usize, arguments: &str, image: &str) -> Inside {
        let more = self.engines[host].run_arguments();
        let id = self.ok(host, &format!("weave run {arguments} {more} -t -i {image}"));
        Inside { host, id }
    }

    /// Runs a line of shell inside a container to its end.
    pub fn inside(&self, container: &Inside, line: &str) -> Ran {
        let mut command = self.command(container.host, "docker");
        command.args(["exec", &container.id, "sh", "-c", line]);
        self.world().run(container.host, &mut command)
    }

    /// The network namespace of a container, while it runs.
    #[must_use]
    pub fn try_namespace(&self, container: &Inside) -> Option<Container> {
        let asked = format!("docker inspect -f '{{{{.NetworkSettings.SandboxKey}}}}' {}", container.id);
        let sandbox = self.sh(container.host, &asked).stdout;
        self.engines[container.host].namespace(sandbox.trim())
    }

    /// The same of one that runs.
    #[track_caller]
    #[must_use]
    pub fn namespace(&self, container: &Inside) -> Container {
        self.try_namespace(container).unwrap_or_else(|| panic!("{} does not run", container.id))
    }

    /// Addresses of `ethwe`, with their prefixes; none when it is not there or the container does
    /// not run.
    #[must_use]
    pub fn addresses(&self, container: &Inside) -> Vec<String> {
        let read = || -> weave_host::Result<Vec<String>> {
            let Some(namespace) = self.try_namespace(container) else { return Ok(Vec::new()) };
            let mut netlink = Netlink::in_namespace(namespace.namespace())?;
            let Some(link) = netlink.link(INTERFACE)? else { return Ok(Vec::new()) };
            let all = netlink.addresses()?.into_iter();
            let own = all.filter(|held| held.index == link.index && !held.link_local);
            Ok(own.map(|held| held.cidr.to_string()).collect())
        };
        // One that ends while it is looked at has none.
        read().unwrap_or_default()
    }

    /// Waits until a container runs.
    #[track_caller]
    pub fn wait_runs(&self, container: &Inside) {
        let asked = format!("docker inspect -f '{{{{.State.Running}}}}' {}", container.id);
        wait_until(
            RUNS_WITHIN,
            || format!("{} does not run", container.id),
            || self.sh(container.host, &asked).stdout.trim() == "true",
        );
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

    /// What `weave ps` says of the containers of a host.
    #[track_caller]
    #[must_use]
    pub fn ps(&self, host: usize) -> String {
        of_containers(&self.ok(host, "weave ps"))
    }
}
