//! The way to a peer: its name, its TCP port, what the route passes, and how the link stands.

use std::io;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use rustix::net::sockopt;
use weave_api::status::{Connection, ConnectionState, Direction};
use weave_api::target::TargetHost;
use weave_api::{Status, Target};
use weave_wire::Nickname;

use super::{Finding, Wanted, remedies};

/// Time to look up the peer's name.
const RESOLVE_WITHIN: Duration = Duration::from_secs(5);
/// Time to connect to one address.
const CONNECT_WITHIN: Duration = Duration::from_secs(2);
/// Datagrams sent to see whether they are turned back, and time for that of each.
const UDP_SENT: u32 = 2;
/// See [`UDP_SENT`].
const UDP_WITHIN: Duration = Duration::from_millis(300);
/// Addresses of one name that are tried, at most.
const ADDRESSES: usize = 8;
/// What stands around a full frame, VLAN tag included, over IPv4 and IPv6, bytes; the Ethernet
/// header of the frame is in it.
const AROUND: (u16, u16) = (94, 114);

/// Looks at the way to `wanted`; with the address where it was reached, if it was.
pub(super) fn look(
    wanted: &Wanted,
    status: Option<&Status>,
    port: u16,
    mtu: u16,
) -> (Vec<Finding>, Option<SocketAddr>) {
    let links = status.map_or(&[][..], |status| &status.connections);
    let named = links.iter().find(|link| is_called(link, wanted));
    let (subject, resolved) = match wanted {
        Wanted::Target(target) => (format!("peer {target}"), resolve(target, port)),
        Wanted::Name(name) => {
            (format!("peer {name}"), Err(io::Error::new(io::ErrorKind::NotFound, "no link is its")))
        }
    };
    let addresses = match (resolved, named.and_then(|link| listens(link, port))) {
        (Ok(addresses), _) => addresses,
        (Err(_), Some(address)) => vec![address],
        (Err(error), None) => {
            let remedy = "correct the name, or give an address";
            let text = format_args!("its name is not known: {error}");
            return (vec![Finding::failed(subject, text, remedy)], None);
        }
    };
    let mut findings = Vec::new();
    let mut reached = None;
    for address in addresses {
        let finding = tcp(&subject, address);
        let ok = finding.standing == super::Standing::Ok;
        findings.push(finding);
        if ok {
            reached = Some(address);
            break;
        }
    }
    if let Some(address) = reached {
        // Of several addresses one is enough.
        findings.drain(..findings.len() - 1);
        findings.extend(route(&subject, address, mtu));
    }
    // A link that the peer dialled has any port of it.
    let from = |link: &&Connection| reached.is_some_and(|at| link.address.host == Target::from(at).host);
    let exact = |link: &&Connection| reached.is_some_and(|at| link.address == at.into());
    let link = links.iter().find(exact).or(named).or_else(|| links.iter().find(from));
    findings.extend(reached.map(|at| {
        // One that this host dialled says nothing of other ports there.
        let there = link.filter(|link| link.direction == Direction::Inbound || link.address == at.into());
        udp(&subject, at, there)
    }));
    findings.extend(link.map(|link| state(&subject, link)));
    (findings, reached)
}

/// True when `wanted` is what the link, or the peer at its other end, is called.
fn is_called(link: &Connection, wanted: &Wanted) -> bool {
    match wanted {
        Wanted::Name(name) => link.peer == Some(*name),
        Wanted::Target(target) => {
            let nickname = link.nickname.as_ref().map(Nickname::as_str);
            link.address == *target
                || matches!(&target.host, TargetHost::Name(name)
                    if nickname.is_some_and(|nickname| nickname.eq_ignore_ascii_case(name)))
        }
    }
}

/// Where the peer of `link` listens, as far as the link tells: a peer that dialled us shows the
/// port it came from, until it has described itself.
fn listens(link: &Connection, port: u16) -> Option<SocketAddr> {
    let address = link.address.address(port)?;
    let is_described = link.nickname.is_some();
    Some(match link.direction {
        Direction::Inbound if !is_described => SocketAddr::new(address.ip(), port),
        Direction::Inbound | Direction::Outbound => address,
    })
}

fn resolve(target: &Target, port: u16) -> io::Result<Vec<SocketAddr>> {
    let TargetHost::Name(name) = &target.host else {
        return Ok(target.address(port).into_iter().collect());
    };
    let port = target.port.unwrap_or(port);
    let addresses = weave_lookup::addresses(name, RESOLVE_WITHIN, ADDRESSES)?;
    Ok(addresses.into_iter().map(|ip| SocketAddr::new(ip, port)).collect())
}

fn tcp(subject: &str, address: SocketAddr) -> Finding {
    match TcpStream::connect_timeout(&address, CONNECT_WITHIN) {
        Ok(_) => {
            Finding::ok(subject, format_args!("TCP port {} of {} answers", address.port(), address.ip()))
        }
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Finding::failed(
            subject,
            format_args!("{address} refuses connections: no router listens there"),
            "launch it there, or name its port: PEER:PORT",
        ),
        Err(error) if error.kind() == io::ErrorKind::TimedOut => Finding::failed(
            subject,
            format_args!("{address} does not answer"),
            format_args!(
                "let TCP and UDP port {} pass the firewalls between, and check the address",
                address.port()
            ),
        ),
        Err(error) => {
            Finding::failed(subject, format_args!("{address}: {error}"), "check address and routes")
        }
    }
}

/// Whether UDP reaches a peer: by the link to it, or by what turns a datagram back. A router answers
/// no stranger, so that silence means nothing.
fn udp(subject: &str, address: SocketAddr, link: Option<&Connection>) -> Finding {
    let port = address.port();
    let remedy = format!("let UDP port {port} pass the firewalls between, both ways");
    match link {
        Some(link) if link.state == ConnectionState::Established => {
            let took = link.rtt_us.map_or_else(String::new, |us| format!(" in {us} us"));
            return Finding::ok(subject, format_args!("UDP passes both ways: a heartbeat came back{took}"));
        }
        Some(link) if link.state == ConnectionState::Pending => {
            let text = "TCP passes, and no datagram made the round trip yet";
            return Finding::warning(subject, text, remedy);
        }
        Some(_) | None => {}
    }
    match turned_back(address) {
        Ok(None) => {
            let text = format!(
                "nothing turns UDP to port {port} back; whether it arrives only a link shows, for a router answers no \
                 stranger"
            );
            Finding::warning(subject, text, "`weave connect` the peer and look again")
        }
        Ok(Some(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
            let text = format!("UDP port {port} is refused: no router there, or a firewall rejects it");
            Finding::failed(subject, text, remedy)
        }
        Ok(Some(error)) => Finding::failed(subject, format_args!("UDP is turned back: {error}"), remedy),
        Err(error) => Finding::failed(subject, format_args!("UDP cannot be sent: {error}"), remedy),
    }
}

/// Sends datagrams that no router takes for one of its own; the error that came back for one.
fn turned_back(address: SocketAddr) -> io::Result<Option<io::Error>> {
    let any = if address.is_ipv6() { "[::]:0" } else { "0.0.0.0:0" };
    let socket = UdpSocket::bind(any)?;
    socket.connect(address)?;
    socket.set_read_timeout(Some(UDP_WITHIN))?;
    for _ in 0..UDP_SENT {
        if let Err(error) = socket.send(&[0]) {
            // What came back for the one before.
            return Ok(Some(error));
        }
        match socket.recv(&mut [0; 1]) {
            // Nothing came, in full time or until a signal did.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted
                ) => {}
            Err(error) => return Ok(Some(error)),
            Ok(_) => return Ok(None),
        }
    }
    Ok(None)
}

/// What the route to a peer carries, as far as this host knows.
fn route(subject: &str, address: SocketAddr, mtu: u16) -> Option<Finding> {
    let any = if address.is_ipv6() { "[::]:0" } else { "0.0.0.0:0" };
    let socket = UdpSocket::bind(any).and_then(|socket| socket.connect(address).map(|()| socket)).ok()?;
    let path = if address.is_ipv6() { sockopt::ipv6_mtu(&socket) } else { sockopt::ip_mtu(&socket) };
    let path = u16::try_from(path.ok()?).unwrap_or(u16::MAX);
    let around = if address.is_ipv6() { AROUND.1 } else { AROUND.0 };
    if path >= mtu.saturating_add(around) {
        return Some(Finding::ok(subject, format_args!("its route carries {path} bytes, full frames fit")));
    }
    let text =
        format!("its route carries {path} bytes, full frames need {}: they go in fragments", mtu + around);
    let fits = path.saturating_sub(around);
    Some(Finding::warning(subject, text, format_args!("WEAVE_MTU={fits} on all hosts avoids that")))
}

fn state(subject: &str, link: &Connection) -> Finding {
    let reason = link.reason.as_deref().unwrap_or("not yet");
    match link.state {
        ConnectionState::Established => {
            let sealed = if link.encrypted == Some(true) { "encrypted" } else { "unencrypted" };
            Finding::ok(subject, format_args!("the link is established, {sealed}"))
        }
        ConnectionState::Connecting | ConnectionState::Pending => Finding::warning(
            subject,
            format_args!("the link is being made: {reason}"),
            "look again in some seconds",
        ),
        ConnectionState::Retrying | ConnectionState::Failed => {
            let unknown = "look at `weave status connections` there: each end knows its own side only";
            let remedy = remedies::of_link(reason).unwrap_or(unknown);
            Finding::failed(subject, format_args!("no link: {reason}"), remedy)
        }
    }
}
