//! What `docker run` is told so that a container asks the sidecar: `run --with-dns`, `dns-args`.

use std::ffi::OsString;
use std::net::IpAddr;

use weave_api::names::PODMAN_BRIDGES;
use weave_host::exposed;
use weave_host::{Netlink, Result as HostResult};
use weave_wire::HostName;

use crate::environment::Environment;
use crate::failure::{Failure, Result};
use crate::output;

/// Options for `docker run`, whose own arguments are `rest`.
pub fn arguments(rest: &[OsString], environment: &Environment) -> Result<Vec<OsString>> {
    let settings = super::settings(environment)?;
    let on_bridge = bridge_address(environment)
        .map_err(|error| Failure::because("cannot find the address of the engine's bridge", error))?;
    let exposed = || Some(exposed::read_all(&environment.state_dir().ok()?).ok()?.first()?.cidr.addr());
    let address = settings.listen.or(on_bridge).or(settings.cidr.map(|cidr| cidr.addr())).or_else(exposed);
    let address = address.ok_or_else(|| {
        Failure::new(
            "cannot have the container ask the DNS",
            "it has no address: there is no bridge of the engine",
            "give it one, as in `weave launch-dns 10.2.254.1/24`",
        )
    })?;
    if !settings.enabled {
        output::note("no DNS runs here: start it with `weave launch-dns`");
    }
    let mut arguments = vec!["--dns".into(), address.to_string().into()];
    // Docker looks in the order given, and what it is given by the user stands behind this.
    let mut domains = given(rest, "dns-search", None);
    let own = host_name(rest).and_then(|name| Some(name.as_str().split_once('.')?.1.to_owned()));
    for domain in own.into_iter().chain([settings.domain.to_string()]) {
        if !domains.contains(&domain) {
            domains.push(domain);
        }
    }
    arguments.extend(domains.into_iter().map(|domain| format!("--dns-search={domain}").into()));
    Ok(arguments)
}

/// Prints them, as the original's command of this name; nothing where no DNS is to run.
pub fn run(rest: &[OsString], environment: &Environment) -> Result<()> {
    if !super::settings(environment)?.enabled {
        return Ok(());
    }
    let arguments = arguments(rest, environment)?;
    let words: Vec<_> = arguments.iter().map(|word| word.to_string_lossy()).collect();
    output::print(format_args!("{}\n", words.join(" ")))
}

/// Where the sidecar is asked on the engine's bridge.
fn bridge_address(environment: &Environment) -> HostResult<Option<IpAddr>> {
    let name = environment.engine_bridge().unwrap_or_default();
    for name in [name.as_str()].into_iter().chain(PODMAN_BRIDGES) {
        if let Some(address) = first_address(name)? {
            return Ok(Some(address));
        }
    }
    Ok(None)
}

fn first_address(bridge: &str) -> HostResult<Option<IpAddr>> {
    let mut host = Netlink::open()?;
    let Some(link) = host.link(bridge)? else { return Ok(None) };
    let all = host.addresses()?.into_iter().filter(|held| held.index == link.index && !held.link_local);
    let mut all: Vec<IpAddr> = all.map(|held| held.cidr.addr()).collect();
    all.sort_by_key(IpAddr::is_ipv6);
    Ok(all.first().copied())
}

/// Options of `docker run` and `podman run` that take no value.
const FLAGS: [&str; 19] = [
    "detach",
    "disable-content-trust",
    "env-host",
    "help",
    "init",
    "interactive",
    "no-healthcheck",
    "no-hosts",
    "oom-kill-disable",
    "privileged",
    "publish-all",
    "quiet",
    "read-only",
    "read-only-tmpfs",
    "replace",
    "rm",
    "rmi",
    "sig-proxy",
    "tty",
];
/// The same of one letter.
const SHORT_FLAGS: &str = "diPqt";

/// The host name that Docker's arguments give, if it has a domain.
fn host_name(rest: &[OsString]) -> Option<HostName> {
    let named = given(rest, "hostname", Some('h'));
    // The last one counts, as Docker has it.
    HostName::typed(named.last()?).ok().filter(|name| name.as_str().contains('.'))
}

/// The values that Docker's arguments give an option, by its name or letter. What follows the image is
/// not Docker's.
fn given(rest: &[OsString], wanted: &str, short: Option<char>) -> Vec<String> {
    let mut given = Vec::new();
    let mut words = rest.iter().map(|word| word.to_string_lossy());
    while let Some(word) = words.next() {
        if let Some(option) = word.strip_prefix("--") {
            let (name, value) = match option.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                // No more options.
                None if option.is_empty() => break,
                None if FLAGS.contains(&option) => continue,
                None => (option, words.next().map(Into::into)),
            };
            if name == wanted {
                given.extend(value);
            }
        } else if let Some(letters) = word.strip_prefix('-').filter(|letters| !letters.is_empty()) {
            let flags = letters.chars().take_while(|letter| SHORT_FLAGS.contains(*letter)).count();
            let Some(letter) = letters.chars().nth(flags) else { continue };
            // What follows the letter is its value, with or without `=`.
            let glued: String = letters.chars().skip(flags + 1).collect();
            let glued = glued.strip_prefix('=').unwrap_or(&glued).to_owned();
            let value = if glued.is_empty() { words.next().map(Into::into) } else { Some(glued) };
            if short == Some(letter) {
                given.extend(value);
            }
        } else {
            break;
        }
    }
    given
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_domain_of_the_host_name_is_found() {
        let of = |line: &str| host_name(&line.split(' ').map(OsString::from).collect::<Vec<_>>());
        for line in [
            "-t -h a.weave.local ubuntu",
            "--hostname=A.weave.local ubuntu",
            "--hostname a.weave.local. x",
            "-ha.weave.local x",
            "-h=a.weave.local x",
            "-tih a.weave.local x",
            "-it --rm -e A=B -v /a:/b --name web -p80:80 --network=none -h a.weave.local x y",
            // The last one counts, as Docker has it.
            "-h b.example.com -h a.weave.local x",
        ] {
            assert_eq!(of(line).map(|name| name.to_string()).as_deref(), Some("a.weave.local"), "{line}");
        }
        for line in [
            "-t ubuntu",
            "-h web ubuntu",
            "ubuntu ls -h",
            "mysql mysql -h db.example.com",
            "-t --name -h mysql -h db.example.com",
            "-e -h mysql",
            "--rm -- mysql -h db.example.com",
            "-h",
            "-",
            "",
        ] {
            assert_eq!(of(line), None, "{line}");
        }
    }
}
