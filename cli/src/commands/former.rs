//! Commands of the original that are no more: each names what to use instead.

use crate::failure::Failure;

/// `weave prime`: waited for the address allocator.
pub fn prime() -> Failure {
    gone("prime", "no addresses are allocated, so there is nothing to wait for", "leave it out")
}

/// `weave rmpeer`: took over a lost peer's share of the addresses.
pub fn rmpeer() -> Failure {
    gone("rmpeer", "no peer owns a share of the addresses", "use `weave forget PEER` for a host that is gone")
}

/// `weave env`: pointed Docker's client to the proxy.
pub fn env() -> Failure {
    gone("env", "there is no proxy to point to", "use docker as it is, then `weave attach`")
}

/// `weave launch-proxy`: attached what Docker started.
pub fn launch_proxy() -> Failure {
    gone("launch-proxy", "there is no proxy", "use docker as it is, then `weave attach`")
}

/// `weave launch-plugin`: Docker's networks.
pub fn launch_plugin() -> Failure {
    gone("launch-plugin", "there is no plugin", "use `weave run`, or the label weave.cidr")
}

/// `weave restart`: restarted a container and attached it again.
pub fn restart() -> Failure {
    gone("restart", "containers that run again are attached again by themselves", "use `docker restart`")
}

fn gone(command: &str, why: &str, remedy: &str) -> Failure {
    Failure::new(format_args!("cannot {command}"), why, remedy)
}
