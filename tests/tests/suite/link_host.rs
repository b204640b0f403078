//! `--host ADDRESS`: a router that is at one address of its host only.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use weave_tests::world::LINK_WITHIN;
use weave_tests::{Options, World, wait_until};

/// The second address of host 0.
const SECOND: &str = "10.99.0.66";
/// Time for an answer, or for none.
const ANSWER_WITHIN: Duration = Duration::from_millis(500);

/// Which of TCP and UDP of host 0 the kernel refuses to host 1, as where nobody listens.
fn refused(world: &World, at: IpAddr) -> [bool; 2] {
    let target = SocketAddr::new(at, world.status(0).port);
    let is_refusal = |error: &std::io::Error| error.kind() == ErrorKind::ConnectionRefused;
    world.on_host(1, || {
        let tcp = TcpStream::connect_timeout(&target, LINK_WITHIN);
        let any: IpAddr = if at.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
        let socket = UdpSocket::bind((any, 0)).unwrap();
        socket.set_read_timeout(Some(ANSWER_WITHIN)).unwrap();
        socket.connect(target).unwrap();
        socket.send(b"nothing that a router answers").unwrap();
        let udp = socket.recv(&mut [0; 64]);
        [tcp.as_ref().is_err_and(is_refusal), udp.as_ref().is_err_and(is_refusal)]
    })
}

#[test]
fn a_router_with_a_host_address_is_at_that_address_alone() {
    let world = World::new(Options::encrypted().bare(2));
    let second: IpAddr = SECOND.parse().unwrap();
    let others: [IpAddr; 2] = [world.host(0).v4().into(), world.host(0).v6().into()];
    world.lab().add_address(0, second).unwrap();
    world.launch(0, &["--host", SECOND]);
    assert_eq!(refused(&world, second), [false; 2]);
    for other in others {
        assert_eq!(refused(&world, other), [true; 2], "{other}");
    }
    // Others do not reach it elsewhere, and are told why.
    world.launch(1, &[&others[0].to_string()]);
    let refused_there = || {
        let links = world.status(1).connections;
        links.iter().any(|link| link.reason.as_deref().is_some_and(|reason| reason.contains("refused")))
    };
    wait_until(LINK_WITHIN, || world.connections(&[1]), refused_there);
    assert!(world.link(0).is_none() && world.link(1).is_none());
    // It dials from there, too.
    world.weave(0, &["connect", &world.underlay(1).to_string()]).ok();
    world.wait_linked(0, 1, LINK_WITHIN);
    let seen = world.link(1).unwrap().address.address(0).unwrap().ip();
    assert_eq!(seen.to_canonical(), second);
    // Without it the same router is everywhere.
    world.stop(0);
    world.launch(0, &[]);
    for address in others.into_iter().chain([second]) {
        assert_eq!(refused(&world, address), [false; 2], "{address}");
    }
}
