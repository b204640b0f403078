//! Hosts without an engine on which the lines of a recipe work: containers are network namespaces
//! made beforehand, and `weave run` and `docker` are scripts that take one of them.

use std::fmt::Write;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use weave_perf::lab::{Container, Traffic};

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
    nsenter --net="$1" sh -c 'ip link del eth0; ip link del ethwe' && echo "$1" >>free
    ;;
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

/// How hosts are joined. The first two are those of a recipe, and not next to each other where
/// others are between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Topology {
    /// Two hosts.
    Pair,
    /// A third one relays.
    Chain,
    /// Five, each next to two others.
    Ring,
    /// Four that reach each other.
    FullMesh,
}

impl Topology {
    /// All hosts in an order in which each is next to the one before it.
    const fn order(self) -> &'static [usize] {
        match self {
            Self::Pair => &[0, 1],
            Self::Chain => &[0, 2, 1],
            Self::Ring => &[0, 2, 1, 3, 4],
            Self::FullMesh => &[0, 1, 2, 3],
        }
    }

    /// Whether two hosts are next to each other.
    fn joins(self, one: usize, other: usize) -> bool {
        let at = |host| self.order().iter().position(|known| *known == host).unwrap();
        let apart = at(one).abs_diff(at(other));
        match self {
            Self::FullMesh => true,
            Self::Pair | Self::Chain => apart == 1,
            Self::Ring => apart == 1 || apart == self.order().len() - 1,
        }
    }
}

/// What is on a host without an engine.
#[derive(Debug)]
pub(super) struct Plain {
    scripts: PathBuf,
    /// Keeps the namespaces of all hosts.
    _containers: Vec<Container>,
    topology: Topology,
}

impl Engines {
    /// Hosts without engines. Those but the first two have a router that runs.
    #[track_caller]
    #[must_use]
    pub fn plain(topology: Topology) -> Self {
        let count = topology.order().len();
        let world = World::new(Options::clear().bare(count));
        for (one, other) in (0..count).flat_map(|one| (0..one).map(move |other| (one, other))) {
            if !topology.joins(one, other) {
                world.lab().cut(one, other, Traffic::All).unwrap();
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
        let plain = Plain { scripts, _containers: containers, topology };
        let hosts = Self { engines: Vec::new(), plain: Some(plain), tools, world };
        for index in 2..hosts.count() {
            hosts.ok(index, "weave launch");
        }
        hosts
    }

    /// Waits until every host knows every other, where a topology was asked for.
    #[track_caller]
    pub fn wait_joined(&self) {
        if self.plain.is_none() {
            return;
        }
        let knows_all = |index: usize| {
            self.world.try_status(index).is_ok_and(|status| status.routes.len() >= self.count() - 1)
        };
        crate::wait_until(
            crate::world::LINK_WITHIN,
            || format!("a host does not know all; {}", self.world.connections(&self.world.indices())),
            || self.world.indices().into_iter().all(knows_all),
        );
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

    /// Addresses of those next to a host, but for the two of the recipe, which dial by themselves.
    fn neighbours(&self, world: &World, index: usize) -> Vec<String> {
        let others = (2..world.indices().len()).filter(|other| *other != index);
        let near = others.filter(|other| self.topology.joins(index, *other));
        near.map(|other| world.host(other).v4().to_string()).collect()
    }
}
