#![allow(clippy::unwrap_used)]
use std::io::{Read, Write};
use std::net::{TcpListener, UdpSocket};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;

use hickory_server::proto::op::{Message, OpCode, ResponseCode};
use hickory_server::proto::rr::rdata::{A, CNAME, NS, SOA, SRV};
use hickory_server::proto::rr::{DNSClass, Name, RData, Record, RecordType};

use super::*;

const WITHIN: Duration = Duration::from_millis(4500);

fn name(text: &str) -> Name {
    Name::from_ascii(text).unwrap()
}

fn record(owner: &str, data: RData) -> Record {
    Record::from_rdata(name(owner), 60, data)
}

fn a(owner: &str, address: &str) -> Record {
    record(owner, RData::A(A(address.parse().unwrap())))
}

fn cname(owner: &str, target: &str) -> Record {
    record(owner, RData::CNAME(CNAME(name(target))))
}

fn soa(owner: &str) -> Record {
    record(owner, RData::SOA(SOA::new(name("ns.test."), name("mail.test."), 1, 2, 3, 4, 30)))
}

/// The answer to a question, without records.
fn empty(question: &Message, code: ResponseCode) -> Message {
    let mut answer = Message::response(question.metadata.id, OpCode::Query);
    answer.metadata.recursion_available = true;
    answer.metadata.response_code = code;
    answer.add_queries(question.queries.clone());
    answer
}

fn with(question: &Message, records: impl IntoIterator<Item = Record>) -> Message {
    let mut answer = empty(question, ResponseCode::NoError);
    answer.add_answers(records);
    answer
}

/// A question as a server sees it: the message, where from, over a connection or not.
type Asked = (Message, SocketAddr, bool);

/// A server that sends what a closure says, as many datagrams as that are.
fn server(
    answers: impl Fn(&Message, bool) -> Vec<Vec<u8>> + Send + Sync + 'static,
) -> (SocketAddr, mpsc::Receiver<Asked>) {
    let (datagrams, connections) = loop {
        let datagrams = UdpSocket::bind("127.0.0.1:0").unwrap();
        if let Ok(connections) = TcpListener::bind(datagrams.local_addr().unwrap()) {
            break (datagrams, connections);
        }
    };
    let address = datagrams.local_addr().unwrap();
    let answers = Arc::new(answers);
    let (asked, receiver) = mpsc::channel();
    let (answers_too, asked_too) = (Arc::clone(&answers), asked.clone());
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok((len, from)) = datagrams.recv_from(&mut buffer) {
            let question = Message::from_vec(&buffer[..len]).unwrap();
            let _ = asked.send((question.clone(), from, false));
            for answer in answers(&question, false) {
                let _ = datagrams.send_to(&answer, from);
            }
        }
    });
    thread::spawn(move || {
        while let Ok((mut stream, from)) = connections.accept() {
            let mut len = [0; 2];
            stream.read_exact(&mut len).unwrap();
            let mut question = vec![0; usize::from(u16::from_be_bytes(len))];
            stream.read_exact(&mut question).unwrap();
            let question = Message::from_vec(&question).unwrap();
            let _ = asked_too.send((question.clone(), from, true));
            for answer in answers_too(&question, true) {
                stream.write_all(&u16::try_from(answer.len()).unwrap().to_be_bytes()).unwrap();
                stream.write_all(&answer).unwrap();
            }
        }
    });
    (address, receiver)
}

/// One that sends one whole answer.
fn plain(
    answer: impl Fn(&Message) -> Message + Send + Sync + 'static,
) -> (SocketAddr, mpsc::Receiver<Asked>) {
    server(move |question, _| vec![answer(question).to_vec().unwrap()])
}

fn ask_all(servers: &Servers, owner: &str, kind: RecordType) -> io::Result<Reply> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(servers.ask(&Query::query(name(owner), kind), WITHIN))
}

fn ask(addresses: &[SocketAddr], owner: &str, kind: RecordType) -> io::Result<Reply> {
    ask_all(&Servers::new(addresses.iter().copied()), owner, kind)
}

/// The reply of one server that sends this.
fn reply(
    kind: RecordType,
    answer: impl Fn(&Message) -> Message + Send + Sync + 'static,
) -> io::Result<Reply> {
    ask(&[plain(answer).0], "www.test.", kind)
}

#[test]
fn the_first_server_that_knows_is_believed() {
    let (inner, _) = plain(|question| with(question, [a("www.test.", "192.0.2.1")]));
    let (outer, asked) = plain(|question| empty(question, ResponseCode::NXDomain));
    // Often enough that one of two in a race would have been the other.
    for _ in 0..50 {
        assert_eq!(ask(&[inner, outer], "www.test.", RecordType::A).unwrap().records.len(), 1);
    }
    assert!(asked.try_recv().is_err(), "the second one was asked");
    assert_eq!(ask(&[outer, inner], "www.test.", RecordType::A).unwrap().code, ResponseCode::NXDomain);
}

#[test]
fn who_does_not_know_is_passed_over() {
    let (good, _) = plain(|question| with(question, [a("www.test.", "192.0.2.1")]));
    let codes = [ResponseCode::ServFail, ResponseCode::Refused, ResponseCode::NotImp, ResponseCode::FormErr];
    for code in codes {
        let (bad, _) = plain(move |question| empty(question, code));
        assert_eq!(ask(&[bad, good], "www.test.", RecordType::A).unwrap().records.len(), 1, "{code}");
        assert!(ask(&[bad], "www.test.", RecordType::A).is_err(), "{code}");
    }
    let (lame, _) = plain(|question| {
        let mut answer = empty(question, ResponseCode::NoError);
        answer.metadata.recursion_available = false;
        answer.add_authority(record("test.", RData::NS(NS(name("ns.test.")))));
        answer
    });
    assert_eq!(ask(&[lame, good], "www.test.", RecordType::A).unwrap().records.len(), 1);
    let (other, _) = plain(|question| with(question, [a("elsewhere.test.", "192.0.2.9")]));
    assert_eq!(ask(&[other, good], "www.test.", RecordType::A).unwrap().records.len(), 1);
    // Nobody listens there.
    let closed = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let begin = Instant::now();
    assert_eq!(ask(&[closed, good], "www.test.", RecordType::A).unwrap().records.len(), 1);
    assert!(begin.elapsed() < SERVER_WITHIN, "known at once: {:?}", begin.elapsed());
    // All of them say that there is nothing of this type: that is an answer.
    let (nothing, _) = plain(|question| empty(question, ResponseCode::NoError));
    assert_eq!(ask(&[nothing, good], "www.test.", RecordType::A).unwrap(), Reply::default());
}

#[test]
fn a_silent_server_leaves_time_and_keeps_its_place() {
    let answers = Arc::new(AtomicUsize::new(0));
    let lives = Arc::clone(&answers);
    let (first, asked) = server(move |question, _| match lives.load(Ordering::SeqCst) {
        0 => Vec::new(),
        _ => vec![with(question, [a("www.test.", "192.0.2.1")]).to_vec().unwrap()],
    });
    let (second, _) = plain(|question| empty(question, ResponseCode::NXDomain));
    let servers = Servers::new([first, second]);
    let begin = Instant::now();
    assert_eq!(ask_all(&servers, "www.test.", RecordType::A).unwrap().code, ResponseCode::NXDomain);
    assert!(begin.elapsed() >= SERVER_WITHIN && begin.elapsed() < WITHIN);
    // A datagram may be lost: the question was sent twice, with the same number.
    let [(once, ..), (again, ..)] = [asked.try_recv().unwrap(), asked.try_recv().unwrap()];
    assert_eq!(once.metadata.id, again.metadata.id);
    let begin = Instant::now();
    assert_eq!(ask_all(&servers, "www.test.", RecordType::A).unwrap().code, ResponseCode::NXDomain);
    assert!(begin.elapsed() < SERVER_WITHIN, "known to be silent: {:?}", begin.elapsed());
    // Back again, it is believed as before.
    answers.store(1, Ordering::SeqCst);
    assert_eq!(ask_all(&servers, "www.test.", RecordType::A).unwrap().records.len(), 1);
    assert_eq!(servers.0[0].silent.get(), None);
}

#[test]
fn many_silent_servers_leave_time_for_the_last() {
    let silent: Vec<SocketAddr> = (0..7).map(|_| server(|_, _| Vec::new()).0).collect();
    let (good, _) = plain(|question| with(question, [a("www.test.", "192.0.2.1")]));
    let all: Vec<SocketAddr> = silent.into_iter().chain([good]).collect();
    assert_eq!(ask(&all, "www.test.", RecordType::A).unwrap().records.len(), 1);
}

#[test]
fn any_type_behind_a_cname_goes_on() {
    let srv = |owner: &str| record(owner, RData::SRV(SRV::new(1, 2, 443, name("host.test."))));
    let sent =
        vec![cname("www.test.", "b.test."), cname("b.test.", "c.test."), srv("c.test."), srv("c.test.")];
    let records = sent.clone();
    let got = reply(RecordType::SRV, move |question| with(question, records.clone())).unwrap();
    assert_eq!(got.records, sent);
    // In any order.
    let records = [sent[2].clone(), sent[1].clone(), sent[0].clone()];
    let got = reply(RecordType::SRV, move |question| with(question, records.clone())).unwrap();
    assert_eq!(got.records.len(), 3);
    // Asked for the CNAME itself, there is nothing to follow.
    let records = sent.clone();
    let got = reply(RecordType::CNAME, move |question| with(question, records.clone())).unwrap();
    assert_eq!(got.records, [sent[0].clone()]);
}

#[test]
fn a_cname_to_nothing_goes_on_with_the_soa_of_where_it_leads() {
    for code in [ResponseCode::NoError, ResponseCode::NXDomain] {
        let got = reply(RecordType::AAAA, move |question| {
            let mut answer = with(question, [cname("www.test.", "a.cdn.example.")]);
            answer.metadata.response_code = code;
            answer.add_authority(soa("test.")).add_authority(soa("cdn.example."));
            answer
        })
        .unwrap();
        assert_eq!((got.code, got.records.len()), (code, 1));
        let soa = got.soa.unwrap();
        // The shorter one of its TTL and the time in it.
        assert_eq!((soa.name.to_ascii().as_str(), soa.ttl), ("cdn.example.", 30));
    }
}

#[test]
fn what_was_not_asked_for_does_not_go_on() {
    let got = reply(RecordType::A, |question| {
        let mut chaos = a("www.test.", "192.0.2.3");
        chaos.dns_class = DNSClass::CH;
        let mut answer = with(
            question,
            [
                a("WWW.test.", "192.0.2.1"),
                a("bank.example.", "192.0.2.2"),
                chaos,
                cname("bank.example.", "www.test."),
                record("www.test.", RData::NS(NS(name("ns.test.")))),
            ],
        );
        answer.add_authority(soa("test.")).add_additional(a("bank.example.", "192.0.2.4"));
        answer
    })
    .unwrap();
    assert_eq!(got, Reply { records: vec![a("www.test.", "192.0.2.1")], ..Reply::default() });
    // A SOA from elsewhere says nothing.
    let got = reply(RecordType::A, |question| {
        let mut answer = empty(question, ResponseCode::NXDomain);
        answer.add_authority(soa("example."));
        answer
    });
    assert_eq!(got.unwrap().soa, None);
    // A chain without an end has one for us.
    let got = reply(RecordType::A, |question| {
        with(question, [cname("www.test.", "b.test."), cname("b.test.", "www.test.")])
    });
    assert_eq!(got.unwrap().records.len(), 2);
}

#[test]
fn answers_to_other_questions_are_waited_past() {
    let (address, _) = server(|question, _| {
        let forged = with(question, [a("www.test.", "192.0.2.66")]);
        let mut number = forged.clone();
        number.metadata.id ^= 1;
        let mut asked = empty(question, ResponseCode::NoError);
        asked.queries = vec![Query::query(name("other.test."), RecordType::A)];
        asked.add_answer(a("www.test.", "192.0.2.66"));
        let mut kind = forged.clone();
        kind.queries[0].set_query_type(RecordType::AAAA);
        let mut none = forged.clone();
        none.queries.clear();
        let mut both = forged;
        both.queries.push(question.queries[0].clone());
        let right = with(question, [a("www.test.", "192.0.2.1")]);
        let mut sent: Vec<Vec<u8>> =
            [number, asked, kind, none, both].iter().map(|message| message.to_vec().unwrap()).collect();
        // Not even a header, and the question itself.
        sent.extend([vec![0; 11], Vec::new(), question.to_vec().unwrap(), right.to_vec().unwrap()]);
        sent
    });
    let got = ask(&[address], "www.test.", RecordType::A).unwrap();
    assert_eq!(got.records, [a("www.test.", "192.0.2.1")]);
}

#[test]
fn each_question_has_a_port_and_a_number_of_its_own() {
    let (address, asked) = plain(|question| with(question, [a("www.test.", "192.0.2.1")]));
    for _ in 0..64 {
        ask(&[address], "www.test.", RecordType::A).unwrap();
    }
    let asked: Vec<Asked> = asked.try_iter().collect();
    assert_eq!(asked.len(), 64);
    let ports: std::collections::BTreeSet<u16> = asked.iter().map(|(_, from, _)| from.port()).collect();
    let numbers: std::collections::BTreeSet<u16> =
        asked.iter().map(|(message, ..)| message.metadata.id).collect();
    // Of 64 picked at random two or three may be the same.
    assert!(ports.len() > 58 && numbers.len() > 58, "{} ports, {} numbers", ports.len(), numbers.len());
    let ports: Vec<u16> = ports.into_iter().collect();
    assert!(ports[63.min(ports.len() - 1)] - ports[0] > 5000, "in a row: {ports:?}");
    for (message, ..) in &asked {
        assert!(message.metadata.recursion_desired);
        assert_eq!(message.edns.as_ref().unwrap().max_payload(), 1232);
    }
}

#[test]
fn an_answer_that_is_cut_is_asked_for_over_a_connection() {
    let (address, asked) = server(|question, is_connection| {
        let records = (1..=200).map(|n| a("www.test.", &format!("192.0.2.{n}")));
        let mut answer = with(question, records.take(if is_connection { 200 } else { 20 }));
        answer.metadata.truncation = !is_connection;
        let mut bytes = answer.to_vec().unwrap();
        if !is_connection {
            // In the middle of a record, as some do it.
            bytes.truncate(bytes.len() - 3);
        }
        vec![bytes]
    });
    let got = ask(&[address], "www.test.", RecordType::A).unwrap();
    assert_eq!(got.records.len(), 200);
    assert_eq!(asked.try_iter().map(|(.., is_connection)| is_connection).collect::<Vec<_>>(), [false, true]);
}

#[test]
fn servers_that_do_not_know_edns_are_asked_without() {
    let (address, _) = plain(|question| match &question.edns {
        Some(_) => {
            // It could not read the question.
            let mut answer = empty(question, ResponseCode::FormErr);
            answer.queries.clear();
            answer
        }
        None => with(question, [a("www.test.", "192.0.2.1")]),
    });
    assert_eq!(ask(&[address], "www.test.", RecordType::A).unwrap().records.len(), 1);
}

#[test]
fn addresses_of_hosts_are_those_of_the_first_server_that_knows() {
    let (inner, _) = plain(|question| match question.queries[0].name() {
        own if *own == name("host.lan.") && question.queries[0].query_type() == RecordType::A => {
            with(question, [cname("host.lan.", "b.lan."), a("b.lan.", "192.0.2.1")])
        }
        own if *own == name("host.lan.") => empty(question, ResponseCode::NoError),
        _ => empty(question, ResponseCode::NXDomain),
    });
    let (outer, _) = plain(|question| empty(question, ResponseCode::NXDomain));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for _ in 0..20 {
        let servers = Servers::new([inner, outer]);
        let names = ["host.test.", "host.lan."].map(name);
        let found = runtime.block_on(crate::look_up(&servers, &names, WITHIN)).unwrap();
        assert_eq!(found, ["192.0.2.1".parse::<std::net::IpAddr>().unwrap()]);
        let error = runtime.block_on(crate::look_up(&servers, &names[..1], WITHIN)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
