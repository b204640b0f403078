//! Clients of the control socket that misbehave: the router and its other clients are unharmed.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use weave_api::Client;
use weave_tests::world::wait_until;
use weave_tests::{Options, World};

/// Most clients at once.
const CLIENTS: usize = weave_api::server::CLIENTS_MAX;
/// Time a client has for one request, with time for a busy machine.
const CLOSED_WITHIN: Duration = Duration::from_secs(5 + 5);
/// A router answers within 200 ms; ten clients of this test and others share two cores.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);

/// One host with a router.
struct Router {
    hosts: World,
    pid: u32,
}

impl Router {
    fn start() -> Self {
        let hosts = World::new(Options::encrypted().bare(1));
        hosts.launch(0, &[]);
        let pid = hosts.status(0).pid;
        Self { hosts, pid }
    }

    /// A raw connection with a time limit on each read.
    fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(weave_api::socket::path(&self.hosts.host(0).run_dir())).unwrap();
        stream.set_read_timeout(Some(CLOSED_WITHIN)).unwrap();
        stream.set_write_timeout(Some(CLOSED_WITHIN)).unwrap();
        stream
    }

    /// It still runs and answers others, and quickly.
    #[track_caller]
    fn assert_unharmed(&self, what: &str) {
        let asked = Instant::now();
        let status = self.hosts.status(0);
        assert!(asked.elapsed() < ANSWER_WITHIN, "{what}: an answer took {:?}", asked.elapsed());
        assert_eq!(status.pid, self.pid, "{what}: another router");
    }
}

/// A frame: its length and its content.
fn frame(content: &[u8]) -> Vec<u8> {
    let mut frame = u32::try_from(content.len()).unwrap().to_be_bytes().to_vec();
    frame.extend(content);
    frame
}

fn hello() -> Vec<u8> {
    weave_api::frame::encode(&weave_api::request::Hello::ours(), weave_api::REQUEST_MAX).unwrap()
}

/// Reads until the router closes; gives what it wrote, or `None` if it did not close in time.
fn read_to_close(stream: &mut UnixStream) -> Option<Vec<u8>> {
    let (mut all, mut chunk) = (Vec::new(), [0; 4096]);
    loop {
        match stream.read(&mut chunk) {
            Ok(0) => return Some(all),
            Ok(len) => all.extend(&chunk[..len]),
            // What it had no reason to read is answered by a reset.
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return Some(all),
            Err(_) => return None,
        }
    }
}

#[test]
fn a_client_too_many_is_turned_away_at_once_and_a_place_that_comes_free_is_given_again() {
    let router = Router::start();
    let run_dir = router.hosts.host(0).run_dir();
    // A client that has just been served leaves its place a little later.
    let mut clients = Vec::new();
    wait_until(
        CLOSED_WITHIN,
        || format!("{CLIENTS} clients do not get in together"),
        || {
            while clients.len() < CLIENTS {
                match Client::connect(&run_dir, ANSWER_WITHIN) {
                    Ok(client) => clients.push(client),
                    Err(_) => return false,
                }
            }
            true
        },
    );
    let asked = Instant::now();
    let mut extra = router.connect();
    let answer = read_to_close(&mut extra);
    assert_eq!(answer.as_deref(), Some(&[][..]), "client number {} is not turned away", CLIENTS + 1);
    assert!(asked.elapsed() < ANSWER_WITHIN, "turned away after {:?}", asked.elapsed());
    for (number, client) in clients.iter_mut().enumerate() {
        let status = client.status().unwrap_or_else(|error| panic!("client {number}: {error}"));
        assert_eq!(status.pid, router.pid);
    }
    clients.pop();
    wait_until(
        CLOSED_WITHIN,
        || "the place of a client that left is not given again".into(),
        || Client::connect(&run_dir, ANSWER_WITHIN).and_then(|mut client| client.status()).is_ok(),
    );
    drop(clients);
    router.assert_unharmed("after 33 clients");
}

#[test]
fn garbage_ends_its_own_conversation_and_nothing_else() {
    let router = Router::start();
    let deep = [vec![b'['; 60_000], vec![b']'; 60_000]].concat();
    let mut noise = vec![0; 4096];
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for byte in &mut noise {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        *byte = state as u8;
    }
    let garbage: Vec<(&str, Vec<u8>)> = vec![
        ("noise", noise),
        ("a length of 4 GiB", vec![0xff; 4]),
        ("an empty frame", frame(b"")),
        ("no JSON", frame(b"GET / HTTP/1.1")),
        ("JSON of another shape", frame(b"[1,2,3]")),
        ("deep nesting before the hello", frame(&deep)),
        ("another version", frame(br#"{"control_protocol":9,"software":"3.0.0"}"#)),
        ("no UTF-8", frame(b"\"\xff\xfe\"")),
        ("garbage behind a good hello", [hello(), frame(b"{")].concat()),
        ("deep nesting behind a good hello", [hello(), frame(&deep)].concat()),
        ("a length of 4 GiB behind a good hello", [hello(), vec![0xff; 8]].concat()),
    ];
    for (what, bytes) in garbage {
        let mut stream = router.connect();
        // The router may close before it has read everything.
        let _ = stream.write_all(&bytes);
        let asked = Instant::now();
        let answer =
            read_to_close(&mut stream).unwrap_or_else(|| panic!("{what}: the router does not close"));
        assert!(asked.elapsed() < ANSWER_WITHIN, "{what}: closed after {:?}", asked.elapsed());
        let text = String::from_utf8_lossy(&answer);
        assert!(text.contains("error"), "{what}: closed without a word: {text}");
        router.assert_unharmed(what);
    }
}

#[test]
fn requests_that_make_no_sense_are_refused_and_the_conversation_goes_on() {
    let router = Router::start();
    let before = router.hosts.status(0).targets;
    let mut stream = router.connect();
    stream.write_all(&hello()).unwrap();
    let mut decoder = weave_api::frame::Decoder::new(weave_api::REPLY_MAX);
    let mut read = |stream: &mut UnixStream| {
        let mut chunk = [0; 16 << 10];
        loop {
            if let Some(value) = decoder.next_value::<serde_json::Value>().unwrap() {
                return value;
            }
            match stream.read(&mut chunk).unwrap() {
                0 => panic!("the router closed"),
                len => decoder.push(&chunk[..len]),
            }
        }
    };
    read(&mut stream);
    let requests = [
        r#"{"id":1,"command":"explode"}"#,
        r#"{"id":2,"command":"connect"}"#,
        r#"{"id":3,"command":"connect","arguments":{"peers":["a b"]}}"#,
        r#"{"id":4,"command":"connect","arguments":{"peers":["10.0.0.1","10.0.0.256:x"]}}"#,
        r#"{"id":5,"command":"forget","arguments":{"peers":"10.0.0.1"}}"#,
    ];
    for (id, request) in (1..).zip(requests) {
        stream.write_all(&frame(request.as_bytes())).unwrap();
        let answer = read(&mut stream);
        assert_eq!(answer["id"], id, "{answer}");
        assert!(answer.to_string().contains("error"), "{request} is answered by {answer}");
    }
    // Several at once are answered in order.
    let status = frame(br#"{"id":6,"command":"status"}"#);
    stream.write_all(&[&status[..], &status[..], &status[..]].concat()).unwrap();
    for _ in 0..3 {
        let answer = read(&mut stream);
        assert_eq!(answer["id"], 6, "{answer}");
        assert!(answer.to_string().contains(&format!("\"pid\":{}", router.pid)), "{answer}");
    }
    assert_eq!(router.hosts.status(0).targets, before, "a refused request changed the targets");
}

#[test]
fn half_a_request_holds_a_place_for_seconds_only_even_if_it_goes_on_byte_by_byte() {
    let router = Router::start();
    let silent = {
        let mut stream = router.connect();
        stream.write_all(&hello()[..7]).unwrap();
        stream
    };
    let mut trickling = router.connect();
    trickling.write_all(&hello()).unwrap();
    trickling.set_nonblocking(true).unwrap();
    let request = frame(&[b' '; 60_000]);
    let begun = Instant::now();
    let mut bytes = request.iter();
    let mut chunk = [0; 4096];
    wait_until(
        CLOSED_WITHIN,
        || "a request that comes byte by byte is waited for for ever".into(),
        || {
            let _ = trickling.write_all(&[*bytes.next().unwrap()]);
            router.assert_unharmed("beside a slow client");
            matches!(trickling.read(&mut chunk), Ok(0))
                || matches!(trickling.read(&mut chunk),
                    Err(error) if error.kind() == ErrorKind::ConnectionReset)
        },
    );
    assert!(begun.elapsed() > Duration::from_secs(3), "closed after {:?}", begun.elapsed());
    let mut silent = silent;
    assert!(read_to_close(&mut silent).is_some(), "half a request is waited for for ever");
    router.assert_unharmed("after slow clients");
}

#[test]
fn a_client_that_reads_no_answers_is_dropped_and_costs_no_memory() {
    let router = Router::start();
    let resident = || weave_perf::process::Usage::of(router.pid).unwrap().resident_bytes;
    router.assert_unharmed("before");
    let before = resident();
    let request = frame(br#"{"id":1,"command":"status"}"#);
    let mut streams: Vec<_> = (0..8).map(|_| router.connect()).collect();
    for stream in &mut streams {
        stream.write_all(&hello()).unwrap();
        stream.set_nonblocking(true).unwrap();
    }
    let begun = Instant::now();
    wait_until(
        2 * CLOSED_WITHIN,
        || "clients that do not read are kept for ever".into(),
        || {
            // A request may be written in part only: what follows makes no sense then, but nobody
            // reads the answer anyway.
            streams.retain_mut(|stream| match stream.write(&request) {
                Ok(_) => true,
                Err(error) => !matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset),
            });
            router.assert_unharmed("beside clients that do not read");
            streams.is_empty()
        },
    );
    assert!(begun.elapsed() > Duration::from_secs(3), "dropped after {:?}", begun.elapsed());
    let grown = resident().saturating_sub(before);
    assert!(grown < 8 << 20, "{grown} bytes grown");
    router.assert_unharmed("after clients that did not read");
}
