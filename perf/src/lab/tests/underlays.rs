//! Cuts, segments, translators, path MTUs, changed addresses.

use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use super::super::*;
use super::LIMIT;

/// How long something is waited for that is not to come.
const SILENCE: Duration = Duration::from_millis(200);

fn lab(hosts: usize, places: Vec<Place>) -> Lab {
    Lab::new(&LabOptions { hosts, places, ..LabOptions::default() }).unwrap()
}

fn socket(host: &Host, address: impl Into<IpAddr>) -> UdpSocket {
    let address = SocketAddr::new(address.into(), 0);
    host.run(|| UdpSocket::bind(address)).unwrap().unwrap()
}

/// Sends `length` bytes and gives where they seem to come from, if they come.
fn pass(from: &UdpSocket, to: &UdpSocket, length: usize, within: Duration) -> Option<SocketAddr> {
    let target = to.local_addr().unwrap();
    // A refusal of the last datagram may be told now.
    if from.send_to(&vec![7; length], target).is_err() {
        return None;
    }
    to.set_read_timeout(Some(within)).unwrap();
    let mut heard = [0; 2000];
    match to.recv_from(&mut heard) {
        Ok((got, source)) if got == length => Some(source),
        Ok((got, _)) => panic!("{got} bytes instead of {length}"),
        Err(_) => None,
    }
}

fn passes(from: &UdpSocket, to: &UdpSocket) -> bool {
    pass(from, to, 10, LIMIT).is_some()
}

fn is_lost(from: &UdpSocket, to: &UdpSocket) -> bool {
    pass(from, to, 10, SILENCE).is_none()
}

/// Connects to a listener of `to` by an address that leads there.
fn dials(from: &Host, to: &Host, address: IpAddr, within: Duration) -> Option<TcpStream> {
    let any = if address.is_ipv4() { IpAddr::from([0; 4]) } else { IpAddr::from([0_u16; 8]) };
    let listener = to.run(|| TcpListener::bind((any, 0))).unwrap().unwrap();
    let target = SocketAddr::new(address, listener.local_addr().unwrap().port());
    from.run(|| TcpStream::connect_timeout(&target, within)).unwrap().ok()
}

#[test]
fn a_cut_takes_what_it_names_one_way_or_both_from_flows_that_run_and_heals() {
    for hosts in [2, 3] {
        let lab = lab(hosts, vec![]);
        let (one, other) = (lab.host(0), lab.host(1));
        let pairs: [(IpAddr, IpAddr); 2] =
            [(one.v4().into(), other.v4().into()), (one.v6().into(), other.v6().into())];
        for (here, there) in pairs {
            let (a, b) = (socket(one, here), socket(other, there));
            assert!(passes(&a, &b) && passes(&b, &a));
            lab.cut_way(0, 1, Traffic::Udp).unwrap();
            assert!(is_lost(&a, &b), "{hosts} hosts, {here}");
            assert!(passes(&b, &a), "the other way is open");
            assert!(dials(one, other, there, LIMIT).is_some(), "and TCP");
            lab.cut_way(1, 0, Traffic::Udp).unwrap();
            assert!(is_lost(&b, &a));
            lab.heal(1, 0).unwrap();
            assert!(passes(&a, &b) && passes(&b, &a));
            lab.cut(0, 1, Traffic::Tcp).unwrap();
            assert!(dials(one, other, there, SILENCE).is_none());
            assert!(passes(&a, &b) && passes(&b, &a));
            lab.cut(0, 1, Traffic::All).unwrap();
            assert!(is_lost(&a, &b) && is_lost(&b, &a));
            lab.heal(0, 1).unwrap();
            assert!(passes(&a, &b) && passes(&b, &a));
            assert!(dials(other, one, here, LIMIT).is_some());
        }
    }
}

#[test]
fn a_cut_to_a_port_leaves_others_open() {
    let lab = lab(2, vec![]);
    let (one, other) = (lab.host(0), lab.host(1));
    let (here, there) = (socket(one, one.v4()), socket(other, other.v4()));
    let elsewhere = socket(other, other.v4());
    let target = there.local_addr().unwrap();
    let listener = other.run(|| TcpListener::bind(target)).unwrap().unwrap();
    let dial = |within| one.run(|| TcpStream::connect_timeout(&target, within)).unwrap();
    lab.cut(0, 1, Traffic::To(target.port())).unwrap();
    assert!(is_lost(&here, &there) && dial(SILENCE).is_err());
    assert!(passes(&here, &elsewhere) && passes(&there, &here));
    assert!(dials(one, other, other.v4().into(), LIMIT).is_some());
    lab.heal(0, 1).unwrap();
    assert!(passes(&here, &there) && dial(LIMIT).is_ok());
    drop(listener);
}

#[test]
fn a_cut_leaves_other_hosts_and_other_labs_alone() {
    let (mine, theirs) = (lab(3, vec![]), lab(3, vec![]));
    mine.cut(0, 1, Traffic::All).unwrap();
    let sockets = |lab: &Lab| [0, 1, 2].map(|host| socket(lab.host(host), lab.host(host).v4()));
    let [a, b, c] = sockets(&mine);
    assert!(is_lost(&a, &b) && passes(&a, &c) && passes(&c, &b));
    let [a, b, _] = sockets(&theirs);
    assert!(passes(&a, &b));
}

#[test]
fn behind_a_firewall_a_host_is_reached_by_flows_of_its_own_only() {
    let lab = lab(2, vec![]);
    let (one, other) = (lab.host(0), lab.host(1));
    lab.cut_way(0, 1, Traffic::NotBegun).unwrap();
    let (a, b) = (socket(one, one.v4()), socket(other, other.v4()));
    assert!(is_lost(&a, &b));
    assert!(dials(one, other, other.v4().into(), SILENCE).is_none());
    assert!(passes(&b, &a) && passes(&a, &b));
    assert!(dials(other, one, one.v4().into(), LIMIT).is_some());
}

#[test]
fn hosts_of_segments_with_no_way_between_them_both_reach_a_host_on_a_third_or_on_both() {
    // Host 0 is on a segment of its own, host 3 on those of both others.
    let lab = lab(4, vec![Place::on(&[0]), Place::on(&[1]), Place::on(&[2]), Place::on(&[1, 2])]);
    lab.set_way(1, 2, Way::Closed).unwrap();
    let [_, b, c, both] = lab.hosts() else { panic!("not four") };
    for v6 in [false, true] {
        let bind = |host: &Host| if v6 { socket(host, host.v6()) } else { socket(host, host.v4()) };
        let [a, b, c] = [0, 1, 2].map(|host| bind(lab.host(host)));
        for outer in [&b, &c] {
            assert!(passes(&a, outer) && passes(outer, &a));
        }
        assert!(is_lost(&b, &c) && is_lost(&c, &b), "IPv6: {v6}");
    }
    let (b, c) = (socket(b, b.v4()), socket(c, c.v4()));
    for (segment, outer) in [(1, &b), (2, &c)] {
        let there = socket(both, v4(segment, 4));
        assert!(passes(outer, &there) && passes(&there, outer), "segment {segment}");
    }
    assert_eq!(both.seen_as().unwrap().len(), 4);
    lab.set_way(1, 2, Way::Open).unwrap();
    assert!(passes(&b, &c) && passes(&c, &b));
}

#[test]
fn a_small_mtu_on_the_way_is_told_unless_filtered_and_changes_while_flows_run() {
    let lab = lab(2, vec![Place::on(&[0]), Place::on(&[1])]);
    let (one, other) = (lab.host(0), lab.host(1));
    let bind = |host: &Host| {
        let bound = socket(host, host.v4());
        nix::sys::socket::setsockopt(&bound, nix::sys::socket::sockopt::Ipv4RecvErr, &true).unwrap();
        // Never cut into fragments, and sent whatever was told before.
        set_discovery(&bound, libc::IP_PMTUDISC_PROBE);
        bound
    };
    let (a, b) = (bind(one), bind(other));
    assert!(pass(&a, &b, 1400, LIMIT).is_some());
    lab.set_way(0, 1, Way::Mtu(1300)).unwrap();
    for (from, to) in [(&a, &b), (&b, &a)] {
        assert!(pass(from, to, 1272, LIMIT).is_some());
        assert!(pass(from, to, 1273, SILENCE).is_none());
        assert!(was_told_too_big(from), "nobody says that it was too big");
    }
    lab.set_too_big(false).unwrap();
    lab.set_way(0, 1, Way::Mtu(1200)).unwrap();
    assert!(pass(&a, &b, 1272, SILENCE).is_none());
    assert!(!was_told_too_big(&a), "it is filtered");
    assert!(pass(&a, &b, 1172, LIMIT).is_some());
    lab.set_way(0, 1, Way::Open).unwrap();
    assert!(pass(&a, &b, 1400, LIMIT).is_some());
    // IPv6.
    let (a, b) = (socket(one, one.v6()), socket(other, other.v6()));
    lab.set_way(0, 1, Way::Mtu(1300)).unwrap();
    assert!(pass(&a, &b, 1400, SILENCE).is_none());
    assert!(pass(&a, &b, 1252, LIMIT).is_some());
}

/// How a socket treats the MTU of its path (`ip(7)`, `IP_MTU_DISCOVER`).
fn set_discovery(socket: &UdpSocket, how: libc::c_int) {
    // SAFETY: the kernel reads one int from a live variable; the descriptor is open.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_MTU_DISCOVER,
            std::ptr::from_ref(&how).cast(),
            size_of_val(&how) as libc::socklen_t,
        )
    };
    assert_eq!(result, 0);
}

/// Takes one message from the socket's queue of errors (`IP_RECVERR`), if there is one soon.
fn was_told_too_big(socket: &UdpSocket) -> bool {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use nix::sys::socket::{MsgFlags, recv};
    use std::os::fd::AsFd;
    let limit = PollTimeout::try_from(SILENCE).unwrap();
    poll(&mut [PollFd::new(socket.as_fd(), PollFlags::empty())], limit).unwrap();
    let told = recv(socket.as_raw_fd(), &mut [0; 2000], MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT);
    // The error itself is still to be taken.
    assert!(socket.take_error().unwrap().is_none_or(|error| error.raw_os_error() == Some(libc::EMSGSIZE)));
    told.is_ok()
}

#[test]
fn a_translator_hides_its_host_and_forgets_its_flows() {
    let lab = lab(3, vec![Place::behind(0, Nat::Changing), Place::default(), Place::behind(1, Nat::Steady)]);
    let [changing, outer, steady] = lab.hosts() else { panic!("not three") };
    let listeners = [(); 2].map(|()| socket(outer, outer.v4()));
    let own = socket(changing, changing.v4());
    let first = pass(&own, &listeners[0], 10, LIMIT).unwrap();
    assert_eq!(changing.seen_as().unwrap()[0], first.ip());
    assert_eq!(first.ip(), IpAddr::from(v4(0, 1)));
    let answers = |from: &UdpSocket, target: SocketAddr, within| {
        from.send_to(b"answer", target).unwrap();
        own.set_read_timeout(Some(within)).unwrap();
        own.recv_from(&mut [0; 10]).is_ok()
    };
    assert!(answers(&listeners[0], first, LIMIT));
    assert!(!answers(&listeners[1], first, SILENCE), "only who was spoken to may answer");
    let second = pass(&own, &listeners[1], 10, LIMIT).unwrap();
    assert_ne!(first.port(), second.port(), "each flow has a port of its own");
    // The kernel forgets a flow some time after its limit.
    let deadline = Instant::now() + LIMIT;
    loop {
        std::thread::sleep(NAT_FORGETS + SILENCE);
        if pass(&own, &listeners[0], 10, LIMIT).unwrap().port() != first.port() {
            break;
        }
        assert!(Instant::now() < deadline, "the port never changes");
    }
    assert!(!answers(&listeners[1], second, SILENCE), "the other flow is forgotten as well");
    assert!(dials(changing, outer, outer.v4().into(), LIMIT).is_some());
    assert!(dials(outer, changing, v4(0, 1).into(), SILENCE).is_none());
    let own = socket(steady, steady.v4());
    for listener in &listeners {
        let seen = pass(&own, listener, 10, LIMIT).unwrap();
        assert_eq!(seen, SocketAddr::new(v4(1, 3).into(), own.local_addr().unwrap().port()));
    }
    let (own, there) = (socket(steady, steady.v6()), socket(outer, outer.v6()));
    assert_eq!(pass(&own, &there, 10, LIMIT).unwrap().ip(), IpAddr::from(v6(1, 3)));
}

#[test]
fn a_cut_is_of_a_translated_host_too() {
    let lab = lab(2, vec![Place::behind(0, Nat::Steady)]);
    let (a, b) = (socket(lab.host(0), lab.host(0).v4()), socket(lab.host(1), lab.host(1).v4()));
    assert!(passes(&a, &b));
    lab.cut_way(0, 1, Traffic::Udp).unwrap();
    assert!(is_lost(&a, &b));
}

#[test]
fn a_host_takes_another_address_or_moves_to_another_segment_and_cuts_follow_it() {
    let lab = lab(3, vec![Place::on(&[0]), Place::on(&[1]), Place::on(&[0])]);
    let [moving, far, near] = lab.hosts() else { panic!("not three") };
    let (far, near) = (socket(far, far.v4()), socket(near, near.v4()));
    let changed = v4(0, 101);
    lab.cut_way(0, 1, Traffic::Udp).unwrap();
    lab.change_address(0, moving.v4().into(), changed.into()).unwrap();
    let own = socket(moving, changed);
    assert!(passes(&own, &near) && passes(&near, &own) && passes(&far, &own));
    assert!(is_lost(&own, &far), "the cut follows");
    lab.heal(0, 1).unwrap();
    assert!(passes(&own, &far));
    lab.add_address(0, v4(0, 102).into()).unwrap();
    assert!(passes(&far, &socket(moving, v4(0, 102))));
    lab.move_to(0, 1).unwrap();
    assert_eq!((moving.v4(), moving.v6()), (v4(1, 1), v6(1, 1)));
    let seen = moving.seen_as().unwrap();
    assert_eq!(seen.len(), 2, "the old addresses are gone: {seen:?}");
    for address in seen {
        let own = socket(moving, address);
        let (far, near) = match address {
            IpAddr::V4(_) => (socket(lab.host(1), v4(1, 2)), socket(lab.host(2), v4(0, 3))),
            IpAddr::V6(_) => (socket(lab.host(1), v6(1, 2)), socket(lab.host(2), v6(0, 3))),
        };
        assert!(passes(&own, &far) && passes(&own, &near) && passes(&near, &own), "{address}");
    }
}

#[test]
fn places_that_no_host_can_have_are_refused() {
    for place in [
        Place::on(&[]),
        Place::on(&[1, 1]),
        Place::on(&[SEGMENTS_MAX]),
        Place { nat: Some(Nat::Steady), ..Place::on(&[0, 1]) },
    ] {
        let options = LabOptions { places: vec![place], ..LabOptions::default() };
        assert!(matches!(Lab::new(&options), Err(Error::Place { .. })));
    }
    let lab = lab(2, vec![]);
    assert!(matches!(lab.set_way(0, 1, Way::Closed), Err(Error::Absent { .. })));
    assert!(matches!(lab.set_too_big(false), Err(Error::Absent { .. })));
    assert!(matches!(lab.move_to(0, 1), Err(Error::Absent { .. })));
}
