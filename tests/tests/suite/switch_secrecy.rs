//! Nothing that containers send is readable between the hosts of an encrypted network.

use std::net::UdpSocket;
use std::time::Duration;

use weave_perf::lab::UNDERLAY;
use weave_tests::packets::{Capture, Frame};
use weave_tests::world::{Family, PASSWORD, addresses, v4, v6};
use weave_tests::{Options, World, traffic, wait_until};

const WITHIN: Duration = Duration::from_secs(20);
/// What every datagram holds.
const MARK: &[u8] = b"the quick brown fox, unsealed";
const NICKNAMES: [&str; 2] = ["nickname-of-the-first", "nickname-of-the-second"];

/// What must not be seen, by name.
type Secrets = Vec<(String, Vec<u8>)>;

/// A life of two routers, from before the first launch to after the last stop, as the underlay
/// sees it: launch, traffic, re-keys, a stop, a kill, launches again, traffic after each.
fn a_life_on_the_wire(options: Options, rekeys: u64) -> (Vec<Frame>, Secrets) {
    let mut options = options.env("WEAVE_TEST_REKEY_MS", "200").not_launched();
    options.attach = false;
    for (host, nickname) in NICKNAMES.into_iter().enumerate() {
        options = options.args_of(host, &format!("--nickname {nickname}"));
    }
    let world = World::pair(options);
    let capture = world.on_host(0, || Capture::start(UNDERLAY));
    let first = world.underlay(0).to_string();
    world.launch(0, &[]);
    world.launch(1, &[&first]);
    for end in [0, 1] {
        world.attach(end);
    }
    world.wait_established();
    for end in [0, 1] {
        let known = world.link(end).unwrap().nickname.unwrap();
        assert_eq!(known.to_string(), NICKNAMES[1 - end], "nicknames travel");
    }
    talk(&world);
    wait_until(
        WITHIN,
        || format!("{rekeys} re-keys while traffic flows: {:?}", world.status(0).counters),
        || {
            talk(&world);
            world.status(0).counters["rekeys"] >= rekeys
        },
    );
    world.stop(1);
    world.launch(1, &[]);
    world.wait_established();
    talk(&world);
    world.kill(0);
    world.launch(0, &[]);
    world.wait_established();
    talk(&world);
    let secrets = secrets(&world);
    for end in [1, 0] {
        world.stop(end);
    }
    (capture.finish(), secrets)
}

/// Marked datagrams, streams and echoes both ways, which all arrive.
fn talk(world: &World) {
    for from in [0, 1] {
        for address in addresses(1 - from) {
            world.wait_ping(from, address, WITHIN);
            let receiver = world.inside(1 - from, || UdpSocket::bind((address, 0)).unwrap());
            receiver.set_read_timeout(Some(WITHIN)).unwrap();
            let sender = world.inside(from, || {
                UdpSocket::bind((addresses(from)[usize::from(address.is_ipv6())], 0)).unwrap()
            });
            for copies in [1, 10, 40] {
                let sent = MARK.repeat(copies);
                sender.send_to(&sent, receiver.local_addr().unwrap()).unwrap();
                let mut heard = [0; 2000];
                let length = receiver.recv(&mut heard).expect("a marked datagram");
                assert_eq!(heard[..length], sent);
            }
            traffic::tcp(world, from, address, 50_000);
        }
    }
}

fn secrets(world: &World) -> Secrets {
    // The head of each stream of `traffic::tcp`.
    let mut secrets = vec![
        ("payload of a datagram".to_owned(), MARK.to_vec()),
        ("payload of a stream".to_owned(), traffic::pattern(16, 1)),
        ("payload of a stream back".to_owned(), traffic::pattern(16, 2)),
        ("password".to_owned(), PASSWORD.into()),
    ];
    for end in [0, 1] {
        secrets.push((format!("MAC {end}"), world.mac(end).0.to_vec()));
        // Four bytes alone would be found in sealed ones now and then.
        let pair = [v4(end).octets(), v4(1 - end).octets()].concat();
        secrets.push((format!("IPv4 header from {end}"), pair));
        secrets.push((format!("IPv6 address {end}"), v6(end).octets().to_vec()));
        secrets.push((format!("nickname {end}"), NICKNAMES[end].into()));
    }
    secrets
}

/// Names of the secrets that stand in a frame.
fn seen(frames: &[Frame], secrets: &Secrets) -> Vec<String> {
    let is_in = |needle: &[u8]| {
        frames.iter().any(|frame| frame.bytes.windows(needle.len()).any(|window| window == needle))
    };
    secrets.iter().filter(|(_, needle)| is_in(needle)).map(|(name, _)| name.clone()).collect()
}

fn nothing_is_readable(options: Options) {
    let (frames, secrets) = a_life_on_the_wire(options, 3);
    let bytes: usize = frames.iter().map(|frame| frame.bytes.len()).sum();
    assert!(frames.len() > 500 && bytes > 1 << 20, "{} frames, {bytes} bytes: is this all?", frames.len());
    assert_eq!(seen(&frames, &secrets), Vec::<String>::new(), "in {} frames", frames.len());
}

#[test]
fn nothing_is_readable_over_ipv4_from_launch_to_stop() {
    nothing_is_readable(Options::encrypted());
}

#[test]
fn nothing_is_readable_over_ipv6_from_launch_to_stop() {
    nothing_is_readable(Options::encrypted().family(Family::V6).args("--offload no-gso,no-tso"));
}

#[test]
fn the_same_search_finds_everything_but_the_control_link_in_a_clear_network() {
    let (frames, secrets) = a_life_on_the_wire(Options::clear(), 0);
    let seen = seen(&frames, &secrets);
    for (name, _) in &secrets {
        // Clear networks seal the TCP link all the same; there is no password.
        let sealed = name.starts_with("nickname") || name == "password";
        assert_eq!(seen.contains(name), !sealed, "{name}; seen: {seen:?}");
    }
}
