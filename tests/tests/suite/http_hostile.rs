//! HTTP clients that mean no good.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::{Duration, Instant};

use weave_tests::http::{self, ask};
use weave_tests::{Options, World, wait_until};

/// Connections a router keeps.
const CONNECTIONS_MAX: usize = 128;
/// Of them, from one address.
const SOURCE_MAX: usize = 32;
/// Of them, streams of events.
const STREAMS_MAX: usize = 16;
/// A router closes a client that sends nothing within 5 s.
const CLOSED_WITHIN: Duration = Duration::from_secs(8);

fn alone() -> World {
    let world = World::new(Options::clear().bare(1));
    world.launch(0, &[]);
    world
}

/// True once the other end has closed; a byte is an answer.
fn is_closed(stream: &mut TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    match stream.read(&mut [0; 4096]) {
        Ok(read) => read == 0,
        Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
    }
}

#[test]
fn a_name_that_others_may_own_is_not_answered_to() {
    let world = World::new(Options::clear().bare(1).env("WEAVE_STATUS_HOSTS", "weave1.example.com"));
    world.launch(0, &["--nickname", "host7"]);
    let code = |host: &str| {
        world.on_host(0, || {
            ask(&format!("GET /report HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")).code
        })
    };
    for ours in ["127.0.0.1:6782", "[::1]", "localhost:6782", "host7", "WEAVE1.example.com:6782"] {
        assert_eq!(code(ours), 200, "{ours}");
    }
    for other in ["evil.example", "host7.evil.example:6782", "localhost.evil.example", ""] {
        assert_eq!(code(other), 421, "{other}");
    }
    world.on_host(0, || {
        let without = ask("GET /report HTTP/1.1\r\nConnection: close\r\n\r\n");
        assert_eq!(without.code, 400, "{without:?}");
        let two =
            ask("GET /report HTTP/1.1\r\nHost: localhost\r\nHost: a.example\r\nConnection: close\r\n\r\n");
        assert_eq!(two.code, 400, "{two:?}");
        let proxied =
            ask("GET http://evil.example/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        assert_eq!(proxied.code, 421, "{proxied:?}");
    });
}

#[test]
fn nothing_but_get_and_head_is_taken() {
    let world = alone();
    world.on_host(0, || {
        for method in ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH", "BREW"] {
            let answer = ask(&format!("{method} / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"));
            assert_eq!(answer.code, 405, "{method}");
            assert_eq!(answer.headers["allow"], "GET, HEAD", "{method}");
        }
        for path in ["/", "/report", "/events"] {
            let head = ask(&format!("HEAD {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"));
            assert_eq!((head.code, head.body.as_str()), (200, ""), "{path}");
        }
    });
}

#[test]
fn huge_headers_are_refused() {
    let world = alone();
    world.on_host(0, || {
        let code = |line: &str| {
            let mut stream = http::connect();
            // It may answer and close before all is sent.
            let _ = stream.write_all(line.as_bytes());
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer);
            String::from_utf8_lossy(&answer).split(' ').nth(1).map(str::to_owned)
        };
        let start = "GET / HTTP/1.1\r\nHost: localhost\r\n";
        let long = format!("{start}X: {}\r\n\r\n", "x".repeat(64 << 10));
        let many = format!("{start}{}\r\n", "X: x\r\n".repeat(100));
        let path = format!("GET /{} HTTP/1.1\r\nHost: localhost\r\n\r\n", "x".repeat(64 << 10));
        for request in [long, many, path, "\0\0\0\r\n\r\n".into(), "GET / SPDY/9\r\n\r\n".into()] {
            let code = code(&request);
            let refused = code.as_ref().is_none_or(|code| code.starts_with('4'));
            assert!(refused, "{code:?}: {:.40}", request);
        }
    });
    assert_eq!(world.get(0, "/healthz").code, 200);
}

#[test]
fn many_connections_and_slow_senders_do_not_keep_others_out_for_long() {
    crowd(300);
}

#[test]
fn long_a_thousand_connections_do_not_keep_others_out_for_long() {
    crowd(1000);
}

/// So many connections that say nothing: most are closed at once, the others after a while, and
/// the router goes on.
fn crowd(connections: usize) {
    let world = alone();
    world.on_host(0, || {
        let begun = Instant::now();
        let source = |number: usize| Ipv4Addr::new(127, 0, 1, u8::try_from(number / SOURCE_MAX).unwrap());
        let mut all: Vec<TcpStream> =
            (0..connections).map(|number| http::connect_from(source(number))).collect();
        // Some send a header that never ends.
        for stream in all.iter_mut().take(CONNECTIONS_MAX / 2) {
            let _ = stream.write_all(b"GET / HTTP/1.1\r\nX-Slow: ");
        }
        wait_until(
            CLOSED_WITHIN,
            || "most are closed".into(),
            || {
                all.retain_mut(|stream| !is_closed(stream));
                all.len() <= CONNECTIONS_MAX
            },
        );
        wait_until(
            CLOSED_WITHIN,
            || "all are closed".into(),
            || {
                for stream in &mut all {
                    let _ = stream.write_all(b"x");
                }
                all.retain_mut(|stream| !is_closed(stream));
                all.is_empty()
            },
        );
        assert!(begun.elapsed() > Duration::from_secs(4), "a client has some time");
    });
    let metrics = world.get(0, "/metrics").body;
    let closed = |reason: &str| {
        let line = format!("weave_http_connections_closed_total{{reason=\"{reason}\"}} ");
        metrics.lines().find_map(|text| text.strip_prefix(&line)?.parse::<usize>().ok())
    };
    let (full, timeout) = (closed("full").unwrap(), closed("timeout").unwrap());
    assert_eq!(full + timeout + closed("source").unwrap(), connections);
    // Where connecting took long, some had the places of others.
    assert!(full > 0 && timeout >= CONNECTIONS_MAX, "{full}, {timeout}");
}

#[test]
fn one_address_does_not_take_the_places_of_others() {
    let world = alone();
    world.on_host(0, || {
        let other = Ipv4Addr::new(127, 0, 1, 1);
        let mut all: Vec<TcpStream> = (0..CONNECTIONS_MAX).map(|_| http::connect_from(other)).collect();
        let closed = || {
            all.retain_mut(|stream| !is_closed(stream));
            all.len() <= SOURCE_MAX
        };
        wait_until(CLOSED_WITHIN, || "those that are too many are closed".into(), closed);
        let metrics = ask("GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").body;
        let refused = CONNECTIONS_MAX - SOURCE_MAX;
        let line = format!("weave_http_connections_closed_total{{reason=\"source\"}} {refused}");
        assert!(metrics.lines().any(|text| text == line), "{metrics}");
        drop(all);
    });
}

#[test]
fn more_than_so_many_listeners_are_refused_and_a_place_comes_back() {
    let world = alone();
    world.on_host(0, || {
        let listen = || {
            let mut stream = http::connect();
            write!(stream, "GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
            let mut head = [0; 12];
            stream.read_exact(&mut head).unwrap();
            (String::from_utf8_lossy(&head[9..]).into_owned(), stream)
        };
        let listeners: Vec<_> = (0..STREAMS_MAX).map(|_| listen()).collect();
        assert!(listeners.iter().all(|(code, _)| code == "200"));
        assert_eq!(listen().0, "503");
        drop(listeners);
        wait_until(CLOSED_WITHIN, || "a place for another".into(), || listen().0 == "200");
    });
}

/// A Prometheus may scrape once a minute.
#[test]
fn long_who_asks_once_a_minute_keeps_its_connection_and_is_not_called_slow() {
    let world = alone();
    let closed = |reason: &str| {
        let line = format!("weave_http_connections_closed_total{{reason=\"{reason}\"}} ");
        let metrics = world.get(0, "/metrics").body;
        metrics.lines().find_map(|text| text.strip_prefix(&line)?.parse::<u64>().ok()).unwrap()
    };
    let mut stream = world.on_host(0, http::connect);
    let mut ask = || {
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        let mut answer = [0; 4096];
        let len = stream.read(&mut answer).unwrap();
        assert!(String::from_utf8_lossy(&answer[..len]).starts_with("HTTP/1.1 200"));
    };
    ask();
    std::thread::sleep(Duration::from_secs(60));
    ask();
    assert_eq!((closed("timeout"), closed("idle")), (0, 0));
    let begun = Instant::now();
    wait_until(Duration::from_secs(140), || "it is closed".into(), || is_closed(&mut stream));
    assert!(begun.elapsed() > Duration::from_secs(100));
    assert_eq!((closed("timeout"), closed("idle")), (0, 1));
}

/// Asks for much and reads nothing.
#[test]
fn long_a_client_that_does_not_read_is_closed() {
    let world = alone();
    world.on_host(0, || {
        let mut stream = http::connect();
        stream.set_nonblocking(true).unwrap();
        let request = b"GET /app.js HTTP/1.1\r\nHost: localhost\r\n\r\n";
        let begun = Instant::now();
        wait_until(
            Duration::from_secs(45),
            || "it is closed".into(),
            || match stream.write(&request.repeat(100)) {
                Ok(_) => false,
                Err(error) => error.kind() != std::io::ErrorKind::WouldBlock,
            },
        );
        assert!(begun.elapsed() > Duration::from_secs(5), "a client has some time");
    });
    assert_eq!(world.get(0, "/healthz").code, 200);
}
