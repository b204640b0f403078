#![allow(clippy::unwrap_used)]
use std::os::unix::net::UnixListener;

use hickory_server::proto::op::{Message, MessageType, OpCode, Query};
use hickory_server::proto::serialize::binary::BinEncodable;
use weave_api::names::Says;
use weave_wire::HostName;

use super::*;
use crate::SidecarConfig;

const CLIENT: &str = "10.2.1.9:4000";

fn host(text: &str) -> HostName {
    text.parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// One that knows names of 10.2.1.0/24.
pub(crate) fn server() -> Server {
    let directory = tempfile::tempdir().unwrap();
    let config = SidecarConfig {
        run_dir: directory.path().to_owned(),
        domain: HostName::weave_local(),
        ttl_s: 1,
        cache: true,
        engine_bridge: "docker0".into(),
        listen: None,
        port: 0,
        resolv_conf: "/nonexistent".into(),
        own_sockets: Vec::new(),
        commands: UnixListener::bind(directory.path().join("commands")).unwrap(),
    };
    let server = Server::new(&config);
    server.access.borrow_mut().attached =
        ["10.2.1.0/24", "fd00:2::/64"].map(|net| net.parse().unwrap()).into();
    let own =
        [("web.weave.local", "10.2.1.1"), ("web.weave.local", "fd00:2::1"), ("a.b.weave.local", "10.2.1.2")];
    server.zone.borrow_mut().set_own(own.map(|(name, address)| (host(name), ip(address))));
    server
}

fn question(name: &str, kind: RecordType) -> Message {
    let mut message = Message::new(7, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message
}

fn sent(server: &Server, message: &[u8], protocol: Protocol) -> Option<Vec<u8>> {
    match server.answer(message, CLIENT.parse().unwrap(), protocol) {
        Outcome::Send(answer) => Some(answer),
        Outcome::Drop => None,
        Outcome::Forward(_) => panic!("forwarded"),
    }
}

fn ask(server: &Server, message: &Message) -> Message {
    let answer = sent(server, &message.to_bytes().unwrap(), Protocol::Udp).unwrap();
    let answer = Message::from_vec(&answer).unwrap();
    assert_eq!(answer.metadata.id, 7);
    answer
}

fn code(server: &Server, message: &Message) -> ResponseCode {
    ask(server, message).metadata.response_code
}

#[test]
fn names_are_answered_in_any_case_with_the_case_asked() {
    let server = server();
    for name in ["web.weave.local.", "WEB.Weave.LOCAL."] {
        let answer = ask(&server, &question(name, RecordType::A));
        assert!(answer.metadata.authoritative && answer.metadata.recursion_available);
        let [record] = answer.answers.as_slice() else { panic!("{answer:?}") };
        assert_eq!(record.name.to_ascii(), name);
        assert_eq!(record.ttl, 1);
        assert_eq!(record.data, RData::A(A("10.2.1.1".parse().unwrap())));
        let answer = ask(&server, &question(name, RecordType::AAAA));
        assert_eq!(answer.answers[0].data, RData::AAAA(AAAA("fd00:2::1".parse().unwrap())));
    }
    assert_eq!(ask(&server, &question("web.weave.local.", RecordType::ANY)).answers.len(), 2);
}

#[test]
fn what_is_not_there_is_said_with_how_long_that_holds() {
    let server = server();
    for (name, kind, expected) in [
        ("nobody.weave.local.", RecordType::A, ResponseCode::NXDomain),
        ("web.weave.local.", RecordType::MX, ResponseCode::NoError),
        ("b.weave.local.", RecordType::A, ResponseCode::NoError),
        ("weave.local.", RecordType::A, ResponseCode::NoError),
        ("3.1.2.10.in-addr.arpa.", RecordType::PTR, ResponseCode::NXDomain),
        ("1.1.2.10.in-addr.arpa.", RecordType::A, ResponseCode::NoError),
    ] {
        let answer = ask(&server, &question(name, kind));
        assert_eq!(answer.metadata.response_code, expected, "{name}");
        assert!(answer.answers.is_empty(), "{name}");
        assert_eq!(answer.authorities.len(), 1, "{name}");
        assert_eq!(answer.authorities[0].record_type(), RecordType::SOA);
    }
    assert_eq!(ask(&server, &question("weave.local.", RecordType::SOA)).answers.len(), 1);
    assert_eq!(ask(&server, &question("weave.local.", RecordType::NS)).answers.len(), 1);
}

#[test]
fn addresses_are_looked_up_backwards() {
    let server = server();
    let fd = "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.2.0.0.0.0.0.d.f.ip6.arpa.";
    for name in ["1.1.2.10.in-addr.arpa.", "1.1.2.10.IN-ADDR.ARPA.", fd] {
        let answer = ask(&server, &question(name, RecordType::PTR));
        let RData::PTR(PTR(name)) = &answer.answers[0].data else { panic!("{answer:?}") };
        assert_eq!(name.to_ascii(), "web.weave.local.");
    }
}

#[test]
fn what_no_container_can_be_called_is_not_asked_for_elsewhere() {
    let server = server();
    let name = Name::from_labels(["a!b", "weave", "local"].map(str::as_bytes)).unwrap();
    let mut message = Message::new(7, MessageType::Query, OpCode::Query);
    message.add_query(Query::query(name, RecordType::A));
    assert_eq!(code(&server, &message), ResponseCode::NXDomain);
}

#[test]
fn only_names_outside_the_domain_and_its_networks_are_forwarded() {
    let server = server();
    for name in ["example.com.", "8.8.8.8.in-addr.arpa.", "10.in-addr.arpa.", "local.", "web."] {
        let bytes = question(name, RecordType::A).to_bytes().unwrap();
        let outcome = server.answer(&bytes, CLIENT.parse().unwrap(), Protocol::Udp);
        assert!(matches!(outcome, Outcome::Forward(_)), "{name}");
    }
    // What containers have is never asked for elsewhere, nor is a part of it or what is inside.
    for (name, expected) in [
        ("9.1.2.10.in-addr.arpa.", ResponseCode::NXDomain),
        ("1.2.10.in-addr.arpa.", ResponseCode::NoError),
        ("b._dns-sd._udp.0.1.2.10.in-addr.arpa.", ResponseCode::NXDomain),
        ("5.1.1.2.10.in-addr.arpa.", ResponseCode::NXDomain),
    ] {
        assert_eq!(code(&server, &question(name, RecordType::PTR)), expected, "{name}");
    }
    let mut no_recursion = question("example.com.", RecordType::A);
    no_recursion.metadata.recursion_desired = false;
    assert_eq!(code(&server, &no_recursion), ResponseCode::Refused);
}

#[test]
fn all_addresses_come_shuffled_if_they_fit() {
    let server = server();
    let says = (1..=64).map(|n| Says {
        origin: "02:00:00:00:00:01".parse().unwrap(),
        address: [10, 2, 1, n].into(),
        container: Default::default(),
    });
    server.zone.borrow_mut().set_others([(host("many.weave.local"), says.collect())]);
    let mut plain = question("many.weave.local.", RecordType::A);
    let answer = ask(&server, &plain);
    assert!(answer.metadata.truncation && answer.answers.len() < 64);
    let long = sent(&server, &plain.to_bytes().unwrap(), Protocol::Tcp).unwrap();
    assert_eq!(Message::from_vec(&long).unwrap().answers.len(), 64);
    let mut edns = Edns::new();
    edns.set_max_payload(4096);
    plain.edns = Some(edns);
    let firsts = (0..100).map(|_| {
        let answer = ask(&server, &plain);
        assert!(!answer.metadata.truncation);
        assert_eq!(answer.answers.len(), 64);
        assert_eq!(answer.edns.as_ref().unwrap().max_payload(), DATAGRAM_MAX);
        answer.answers[0].data.clone().to_string()
    });
    assert!(firsts.collect::<std::collections::BTreeSet<_>>().len() > 20);
}

#[test]
fn what_does_not_fit_is_cut_but_still_says_what_we_can_take() {
    let server = server();
    let says = (1..=64).map(|n| Says {
        origin: "02:00:00:00:00:01".parse().unwrap(),
        address: [10, 2, 1, n].into(),
        container: Default::default(),
    });
    server.zone.borrow_mut().set_others([(host("many.weave.local"), says.collect())]);
    for payload in [600, 512, 1000] {
        let mut message = question("many.weave.local.", RecordType::A);
        let mut edns = Edns::new();
        edns.set_max_payload(payload);
        message.edns = Some(edns);
        let answer = ask(&server, &message);
        assert!(answer.metadata.truncation, "{payload}");
        assert_eq!(answer.edns.as_ref().map(Edns::max_payload), Some(DATAGRAM_MAX), "{payload}");
        assert_eq!(answer.queries.len(), 1);
        assert!(answer.answers.is_empty() && answer.authorities.is_empty());
    }
    assert_eq!(server.counters.truncated.get(), 3);
}

#[test]
fn who_is_no_container_is_refused() {
    let server = server();
    let bytes = question("web.weave.local.", RecordType::A).to_bytes().unwrap();
    let Outcome::Send(answer) = server.answer(&bytes, "192.0.2.7:53".parse().unwrap(), Protocol::Udp) else {
        panic!()
    };
    assert_eq!(Message::from_vec(&answer).unwrap().metadata.response_code, ResponseCode::Refused);
    assert_eq!(answer.len(), HEADER, "no longer than what was asked");
}

#[test]
fn hostile_messages_get_their_code_or_none() {
    let server = server();
    let bytes = |message: &Message| message.to_bytes().unwrap();
    let udp = |bytes: &[u8]| {
        sent(&server, bytes, Protocol::Udp).map(|answer| ResponseCode::from_low(answer[3] & 15))
    };
    let good = bytes(&question("web.weave.local.", RecordType::A));
    assert_eq!(udp(&good), Some(ResponseCode::NoError));
    for len in 0..HEADER {
        assert_eq!(udp(&good[..len]), None);
    }
    for len in HEADER..good.len() {
        assert_eq!(udp(&good[..len]), Some(ResponseCode::FormErr), "{len} bytes");
    }
    // An answer.
    let mut answer = good.clone();
    answer[2] |= 0x80;
    assert_eq!(udp(&answer), None);
    // Counts that promise much.
    for at in [4, 6, 8, 10] {
        let mut promising = good.clone();
        promising[at] = 0xff;
        assert_eq!(udp(&promising), Some(ResponseCode::FormErr));
    }
    // A name that points to itself.
    let mut looped = good[..HEADER].to_vec();
    looped.extend([0xc0, 12, 0, 1, 0, 1]);
    assert_eq!(udp(&looped), Some(ResponseCode::FormErr));
    // Other operations, transfers, another class, anything.
    let mut update = good.clone();
    update[2] = 5 << 3;
    assert_eq!(udp(&update), Some(ResponseCode::NotImp));
    for kind in [RecordType::AXFR, RecordType::IXFR] {
        assert_eq!(code(&server, &question("weave.local.", kind)), ResponseCode::Refused);
    }
    let mut chaos = good.clone();
    let last = chaos.len() - 1;
    chaos[last] = 3;
    assert_eq!(udp(&chaos), Some(ResponseCode::Refused));
    assert_eq!(code(&server, &question("example.com.", RecordType::ANY)), ResponseCode::NotImp);
    // EDNS of a version that nobody knows.
    let mut newer = question("web.weave.local.", RecordType::A);
    let mut edns = Edns::new();
    edns.set_version(9);
    newer.edns = Some(edns);
    // Two names of one number.
    assert_eq!(u16::from(code(&server, &newer)), u16::from(ResponseCode::BADVERS));
}

#[test]
fn no_message_ends_the_server() {
    let server = server();
    let good = question("web.weave.local.", RecordType::A).to_bytes().unwrap();
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_be_bytes()
    };
    let mut answered = 0;
    for round in 0..50_000 {
        // Half of them nearly a question.
        let mut message = if round % 2 == 0 { good.clone() } else { Vec::new() };
        while message.len() < usize::from(random()[0]) {
            message.extend(random());
        }
        let [at, to, value, ..] = random();
        let places = message.len().max(1);
        for at in [at, to] {
            if let Some(byte) = message.get_mut(usize::from(at) % places) {
                *byte = value;
            }
        }
        let is_question = message.len() >= HEADER && message[2] & 0x80 == 0;
        match server.answer(&message, CLIENT.parse().unwrap(), Protocol::Udp) {
            Outcome::Send(answer) => {
                assert!(is_question, "an answer to what is none: {message:x?}");
                assert_eq!(answer[..2], message[..2]);
                assert_eq!(answer[2] & 0x80, 0x80);
                answered += 1;
            }
            // Whatever else, it is not left without a word.
            Outcome::Drop => assert!(!is_question, "no answer: {message:x?}"),
            Outcome::Forward(_) => assert!(is_question, "{message:x?}"),
        }
    }
    assert!(answered > 25_000, "{answered}");
}

#[test]
fn names_of_networks_are_read_backwards() {
    let read = |text: &str| Reverse::of(&LowerName::new(&Name::from_ascii(text).unwrap()));
    for (text, net, is_inside) in [
        ("1.2.2.10.in-addr.arpa.", "10.2.2.1/32", false),
        ("2.10.in-addr.arpa.", "10.2.0.0/16", false),
        ("d.f.ip6.arpa.", "fd00::/8", false),
        ("5.1.2.2.10.in-addr.arpa.", "10.2.2.1/32", true),
        ("01.2.10.in-addr.arpa.", "10.2.0.0/16", true),
        ("a1.2.10.in-addr.arpa.", "10.2.0.0/16", true),
        ("fd.d.f.ip6.arpa.", "fd00::/8", true),
    ] {
        let expected = Reverse { net: net.parse().unwrap(), is_inside };
        assert_eq!(read(text), Some(expected), "{text}");
    }
    for bad in ["256.in-addr.arpa.", "01.in-addr.arpa.", "in-addr.arpa.", "fd.ip6.arpa.", "x.in-addr.arpa."] {
        assert_eq!(read(bad), None, "{bad}");
    }
}

#[test]
fn parts_of_addresses_are_there_and_their_zone_says_what_is_not() {
    let server = server();
    server.access.borrow_mut().attached =
        ["10.2.0.0/16", "10.2.1.0/24", "10.3.4.0/23", "fd00:2::/64"].map(|net| net.parse().unwrap()).into();
    let fd = "0.0.0.0.0.0.0.0.2.0.0.0.0.0.d.f.ip6.arpa.";
    let (deep, below) = (format!("0.0.{fd}"), format!("{}{fd}", "0.".repeat(16)));
    let (none, there) = (ResponseCode::NXDomain, ResponseCode::NoError);
    for (name, expected, zone) in [
        ("2.10.in-addr.arpa.", there, "2.10.in-addr.arpa."),
        ("1.2.10.in-addr.arpa.", there, "2.10.in-addr.arpa."),
        ("1.1.2.10.in-addr.arpa.", there, "2.10.in-addr.arpa."),
        ("3.1.2.10.in-addr.arpa.", none, "2.10.in-addr.arpa."),
        ("x.1.2.10.in-addr.arpa.", none, "2.10.in-addr.arpa."),
        ("9.5.3.10.in-addr.arpa.", none, "5.3.10.in-addr.arpa."),
        (fd, there, fd),
        (&deep, there, fd),
        (&below, none, fd),
    ] {
        // Names of addresses are asked for another type.
        let answer = ask(&server, &question(name, RecordType::TXT));
        assert_eq!(answer.metadata.response_code, expected, "{name}");
        assert!(answer.answers.is_empty(), "{name}");
        let [soa] = answer.authorities.as_slice() else { panic!("{name}: {answer:?}") };
        assert_eq!(soa.record_type(), RecordType::SOA);
        assert_eq!(soa.name.to_ascii(), zone, "{name}");
    }
    for kind in [RecordType::SOA, RecordType::NS] {
        assert_eq!(ask(&server, &question("2.10.in-addr.arpa.", kind)).answers.len(), 1, "{kind}");
        assert_eq!(ask(&server, &question("1.2.10.in-addr.arpa.", kind)).answers.len(), 0, "{kind}");
    }
    // Of others' networks only addresses with names are known.
    server.zone.borrow_mut().set_own([(host("db.weave.local"), ip("192.0.2.1"))]);
    let answer = ask(&server, &question("1.2.0.192.in-addr.arpa.", RecordType::A));
    assert_eq!(answer.authorities[0].name.to_ascii(), "1.2.0.192.in-addr.arpa.");
}
