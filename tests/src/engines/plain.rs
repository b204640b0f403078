//! Hosts without an engine on which the lines of a recipe work: containers are network namespaces
//! made beforehand, and `weave run` and `docker` are scripts that take one of them.

use std::fmt::Write;
use std::fs;
use std::ops::Range;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use weave_perf::lab::{Container, Place, Traffic};

use super::{Engines, image, shell};
use crate::world::{Options, World, weave};

/// Namespaces of each host: how many containers a recipe may run on it.
const CONTAINERS: usize = 3;

/// `weave`: takes a namespace for `run`, and dials the neighbours at a launch.
const WEAVE: &str = r#"
case $1 in
launch) exec @weave@ "$@" $NEIGHBOURS ;;
run)
    shift
    cidrs=
    while case $1 in [0-9]*/[0-9]*) true ;; *) false ;; esac; do cidrs="$cidrs $1"; shift; done
    container=$(docker run "$@") || exit
    @weave@ attach $cidrs "$container" >/dev/null && echo "$container"
    ;;
*) exec @weave@ "$@" ;;
esac
"#;
/// `docker`: the containers of a host are lines of its file `free`; the last one taken is in `last`.
const DOCKER: &str = r#"
cd "$PLACE"
verb=$1
shift
case $verb in
run)
    container=$(head -n 1 free)
    [ -n "$container" ] || { echo "no namespace is left" >&2; exit 1; }
    sed -i 1d free
    mkdir -p "at/$container"
    # As behind an engine's bridge: what is not for the network goes somewhere.
    nsenter --net="$container" sh -c 'ip link add eth0 type bridge && ip link set eth0 up &&
        ip addr add 172.31.0.2/24 dev eth0 && ip route add default dev eth0' || exit
    case "$*" in *"--cap-drop net_raw"*) touch "at/$container/no-raw" ;; esac
    echo "$container" | tee last
    ;;
ps) cat last ;;
rm)
    shift
    # The namespace stays for the next one.
    @weave@ detach $(@weave@ ps "$1" | cut -d ' ' -f 3-) "$1" >/dev/null &&
        nsenter --net="$1" ip link del eth0 && echo "$1" >>free
    ;;
attach) cd "at/$1" && exec nsenter --net="$1" sh ;;
exec)
    container=$1
    shift
    cd "at/$container" || exit
    [ ! -e no-raw ] || set -- setpriv --bounding-set=-net_raw --inh-caps=-net_raw -- "$@"
    exec nsenter --net="$container" setsid -w "$@"
    ;;
*) echo "docker $verb: not here" >&2; exit 1 ;;
esac
"#;

/// Ports that recipes use for weave: what passes to these makes hosts neighbours.
const PORTS: [u16; 2] = [6783, 7001];

/// How the hosts of the network are joined. The first two of a recipe are not next to each other
/// where relays are between them; a third one is next to the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Topology {
    /// Those of the recipe alone, which reach each other.
    Pair,
    /// A relay between the first two.
    Chain,
    /// Three relays, each host next to two others.
    Ring,
    /// Two more, and all reach each other.
    FullMesh,
}

impl Topology {
    const fn relays(self) -> usize {
        match self {
            Self::Pair => 0,
            Self::Chain => 1,
            Self::Ring => 3,
            Self::FullMesh => 2,
        }
    }
}

/// Hosts without engines: those of the network first, then others, then relays.
#[derive(Debug, Clone)]
pub struct PlainOptions {
    /// How those of the network are joined.
    pub topology: Topology,
    /// How many of the network the recipe types at.
    pub members: usize,
    /// How many others: no weave runs there, and all reach them.
    pub outside: usize,
    /// Where hosts are on the underlay; relays are on segment 0.
    pub places: Vec<Place>,
    /// What is typed on each relay before it is launched.
    pub relays_type: Vec<String>,
}

impl PlainOptions {
    fn relays(&self) -> Range<usize> {
        let first = self.members + self.outside;
        first..first + self.topology.relays()
    }

    /// All hosts of the network in an order in which each is next to the one before it.
    fn order(&self) -> Vec<usize> {
        let mut relays = self.relays();
        let mut order: Vec<usize> = (2..self.members).rev().chain([0]).collect();
        order.extend(relays.next());
        order.push(1);
        order.extend(relays);
        order
    }

    /// Pairs of hosts of the network that no link can join.
    fn apart(&self) -> Vec<(usize, usize)> {
        let network = self.order();
        let pairs = network.iter().flat_map(|one| network.iter().map(|other| (*one, *other)));
        pairs.filter(|(one, other)| one < other && !self.joins(*one, *other)).collect()
    }

    /// Whether two hosts of the network are next to each other.
    fn joins(&self, one: usize, other: usize) -> bool {
        let order = self.order();
        let at = |host| order.iter().position(|known| *known == host).unwrap();
        let apart = at(one).abs_diff(at(other));
        match self.topology {
            Topology::Pair | Topology::FullMesh => true,
            Topology::Chain => apart == 1,
            Topology::Ring => apart == 1 || apart == order.len() - 1,
        }
    }
}

/// What is on a host without an engine.
#[derive(Debug)]
pub(super) struct Plain {
    scripts: PathBuf,
    /// Keeps the namespaces of all hosts.
    _containers: Vec<Container>,
    options: PlainOptions,
}

impl Engines {
    /// Hosts without engines. The router of each relay runs.
    #[track_caller]
    #[must_use]
    pub fn plain(options: &PlainOptions) -> Self {
        let count = options.relays().end;
        let world = World::new(Options::clear().bare(count).places(options.places.clone()));
        for (one, other) in options.apart() {
            for port in PORTS {
                world.lab().cut(one, other, Traffic::To(port)).unwrap();
            }
        }
        let tools = image::make_tools(world.lab().directory());
        for (program, name) in [("busybox", "arping"), ("nc.openbsd", "nc")] {
            symlink(image::find(program), tools.join(name)).unwrap();
        }
        // One that waits for an answer ten times as long waits in vain as well.
        let ping = format!("exec {} ping -W 1 \"$@\"", image::find("busybox").display());
        let scripts = world.lab().directory().join("scripts");
        fs::create_dir(&scripts).unwrap();
        for (name, text) in [("weave", WEAVE), ("docker", DOCKER), ("ping", &ping)] {
            let file = scripts.join(name);
            let text = text.replace("@weave@", &weave().display().to_string());
            fs::write(&file, format!("#!/bin/sh\n{text}")).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        }
        let mut containers = Vec::new();
        for index in world.indices() {
            let mut free = String::new();
            for number in 0..CONTAINERS {
                let container = world.lab().container(&format!("plain{index}-{number}")).unwrap();
                let _ = writeln!(free, "{}", container.spec());
                containers.push(container);
            }
            fs::write(world.host(index).directory().join("free"), free).unwrap();
        }
        let plain = Plain { scripts, _containers: containers, options: options.clone() };
        let hosts = Self { engines: Vec::new(), plain: Some(plain), tools, world };
        for index in options.relays() {
            for line in options.relays_type.iter().map(String::as_str).chain(["weave launch"]) {
                hosts.ok(index, line);
            }
        }
        hosts
    }

    /// Whether the network has hosts that are not the recipe's.
    #[must_use]
    pub fn has_relays(&self) -> bool {
        self.plain.as_ref().is_some_and(|plain| !plain.options.relays().is_empty())
    }

    /// Waits until every host with a router knows every other, where a topology was asked for.
    #[track_caller]
    pub fn wait_joined(&self) {
        let Some(plain) = &self.plain else { return };
        let all_known = || {
            let running =
                self.world.indices().into_iter().filter_map(|host| self.world.try_status(host).ok());
            let running: Vec<_> = running.collect();
            running.iter().all(|status| status.routes.len() + 1 >= running.len())
        };
        crate::wait_until(
            crate::world::LINK_WITHIN,
            || format!("a host does not know all; {}", self.world.connections(&self.world.indices())),
            all_known,
        );
        for (one, other) in plain.options.apart() {
            let connections = || self.world.connections(&[one]);
            assert!(!self.world.is_established(one, other), "hosts that are apart: {}", connections());
        }
    }
}

impl Plain {
    pub(super) fn set_variables(
        &self,
        command: &mut std::process::Command,
        world: &World,
        index: usize,
        tools: &Path,
    ) {
        shell::set_variables(command, world, tools);
        let path = command.get_envs().find(|(name, _)| *name == "PATH").and_then(|(_, value)| value);
        let path = format!("{}:{}", self.scripts.display(), path.unwrap_or_default().to_string_lossy());
        command.env("PATH", path).env("PLACE", world.host(index).directory());
        command.env("NEIGHBOURS", self.neighbours(world, index).join(" "));
    }

    /// Addresses of the relays next to a host; those of the recipe dial by themselves.
    fn neighbours(&self, world: &World, index: usize) -> Vec<String> {
        if (self.options.members..self.options.relays().start).contains(&index) {
            return Vec::new();
        }
        let others = self.options.relays().filter(|other| *other != index);
        let near = others.filter(|other| self.options.joins(index, *other));
        near.map(|other| world.host(other).v4().to_string()).collect()
    }
}
