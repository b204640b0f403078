//! The router looked at over HTTP.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use weave_api::Report;
use weave_api::status::ConnectionState;
use weave_tests::crowd::Crowd;
use weave_tests::http::{self, STATUS_ADDR};
use weave_tests::world::is_release;
use weave_tests::{Options, World, wait_until};

/// Code and remedy of the degraded state when the address is not to be had.
const NO_STATUS_PAGE: &str = "no_status_page";

#[track_caller]
fn report(text: &str) -> Report {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn report_and_page_show_the_links_of_a_pair() {
    let world = World::pair(Options::encrypted());
    let answer = world.get(0, "/report");
    assert_eq!((answer.code, answer.headers["content-type"].as_str()), (200, "application/json"));
    let report = report(&answer.body);
    assert_eq!(report.version, 1);
    let link = report.status.connections.iter().find(|link| link.state == ConnectionState::Established);
    assert_eq!(link.expect("a link").encrypted, Some(true));
    assert!(report.status.macs.iter().any(|entry| entry.mac == world.mac(0)), "the stations");

    for (path, content_type) in [
        ("/", "text/html; charset=utf-8"),
        ("/app.js", "text/javascript; charset=utf-8"),
        ("/app.css", "text/css; charset=utf-8"),
        ("/healthz", "text/plain; charset=utf-8"),
        ("/readyz", "text/plain; charset=utf-8"),
    ] {
        let answer = world.get(0, path);
        assert_eq!((answer.code, answer.headers["content-type"].as_str()), (200, content_type), "{path}");
        assert!(!answer.body.is_empty(), "{path}");
    }
    assert_eq!(world.get(0, "/nothing").code, 404);
}

#[test]
fn every_answer_says_what_a_browser_may_do_with_it() {
    let world = World::new(Options::clear().bare(1));
    world.launch(0, &[]);
    for path in ["/", "/app.js", "/report", "/healthz", "/nothing"] {
        let headers = world.get(0, path).headers;
        let policy = &headers["content-security-policy"];
        for part in ["default-src 'none'", "script-src 'self'", "frame-ancestors 'none'", "base-uri 'none'"] {
            assert!(policy.contains(part), "{path}: {policy}");
        }
        assert_eq!(headers["x-content-type-options"], "nosniff", "{path}");
        assert_eq!(headers["referrer-policy"], "no-referrer", "{path}");
        let cached = if path.starts_with("/app") || path == "/" { "no-cache" } else { "no-store" };
        assert_eq!(headers["cache-control"], cached, "{path}");
    }
}

#[test]
fn events_come_once_a_second_without_the_stations() {
    let world = World::pair(Options::encrypted());
    world.on_host(0, || {
        let mut stream = http::connect();
        write!(stream, "GET /events HTTP/1.1\r\nHost: {STATUS_ADDR}\r\n\r\n").unwrap();
        let mut events = Vec::new();
        let mut named = false;
        for line in BufReader::new(stream).lines() {
            let line = line.unwrap();
            named |= line == "event: report";
            if let Some(data) = line.strip_prefix("data: ") {
                events.push(report(data));
            }
            if events.len() == 3 {
                break;
            }
        }
        assert!(named, "an event is named");
        // By the router's clock: this reader may be held up.
        let apart = Duration::from_millis(events[2].taken_ms - events[0].taken_ms);
        assert!(apart > Duration::from_millis(1500) && apart < Duration::from_secs(4), "{apart:?}");
        assert!(events.iter().all(|report| report.status.macs.is_empty()));
        assert!(!events[2].status.connections.is_empty());
    });
}

#[test]
fn a_router_without_its_status_address_forwards_and_says_so() {
    let world = World::pair(Options::encrypted().not_launched());
    let taken = world.on_host(0, || TcpListener::bind(STATUS_ADDR).unwrap());
    world.launch(0, &[]);
    world.launch_to(1, &[0]);
    world.wait_established();
    let degraded = world.status(0).degraded;
    let state = degraded.iter().find(|state| state.name == NO_STATUS_PAGE).expect("a degraded state");
    assert!(state.reason.contains(STATUS_ADDR) && state.reason.contains("WEAVE_STATUS_ADDR"), "{state:?}");
    assert!(!world.status(1).degraded.iter().any(|state| state.name == NO_STATUS_PAGE));
    drop(taken);
}

#[test]
fn the_address_follows_the_variable_and_nothing_switches_it_off() {
    let off = Options::clear().bare(2).env_of(0, "WEAVE_STATUS_ADDR", "");
    let world = World::new(off.env_of(1, "WEAVE_STATUS_ADDR", "[::1]:7000"));
    world.launch(0, &[]);
    world.launch(1, &[]);
    let refused = |index, address: &'static str| {
        world.on_host(index, || std::net::TcpStream::connect(address).is_err())
    };
    assert!(refused(0, STATUS_ADDR));
    assert!(refused(1, STATUS_ADDR) && !refused(1, "[::1]:7000"));
    assert!(!world.status(0).degraded.iter().any(|state| state.name == NO_STATUS_PAGE));
}

#[test]
fn an_address_that_is_none_is_refused_by_launch() {
    let world = World::new(Options::clear().bare(1).env("WEAVE_STATUS_ADDR", "127.0.0.1"));
    let ran = world.try_launch(0, &[]);
    assert_eq!(ran.code, Some(2), "{}", ran.stderr);
    assert!(ran.stderr.contains("WEAVE_STATUS_ADDR"), "{}", ran.stderr);
}

/// It takes connections, as one that is busy does, and says nothing.
#[test]
fn a_scrape_waits_for_no_dns_that_hangs() {
    /// A look at the DNS is given up after 200 ms, and there is one every 5 s.
    const QUICK: Duration = Duration::from_millis(100);
    const SEEN_WITHIN: Duration = Duration::from_secs(20);
    let world = World::new(Options::clear().bare(1));
    world.weave(0, &["launch"]).ok();
    let metrics = || world.get(0, "/metrics").body;
    let has = |line: &str| metrics().lines().any(|one| one.starts_with(line));
    wait_until(SEEN_WITHIN, metrics, || has("weave_dns_up 1") && has("weave_dns_names "));
    for daemon in ["keeper", "dns"] {
        let line = format!("weave_daemon_resident_memory_bytes{{daemon=\"{daemon}\"}} ");
        wait_until(SEEN_WITHIN, metrics, || has(&line));
    }
    let dns = weave_api::sidecar::status(&world.host(0).run_dir(), SEEN_WITHIN).unwrap();
    let pid = nix::unistd::Pid::from_raw(dns.pid.cast_signed());
    nix::sys::signal::kill(pid, Signal::SIGSTOP).unwrap();
    let quick = || {
        let mut times: Vec<_> = (0..SCRAPES)
            .map(|_| {
                let begun = Instant::now();
                metrics();
                begun.elapsed()
            })
            .collect();
        times.sort();
        assert!(times[SCRAPES / 2] < QUICK, "{times:?}");
    };
    quick();
    wait_until(SEEN_WITHIN, metrics, || has("weave_dns_up 0") && !has("weave_dns_names "));
    quick();
    nix::sys::signal::kill(pid, Signal::SIGCONT).unwrap();
    wait_until(SEEN_WITHIN, metrics, || has("weave_dns_up 1"));
}

/// A scrape of a router with so many peers takes no longer.
const PEERS: usize = 300;
const SCRAPE_WITHIN: Duration = Duration::from_millis(5);
/// The same of a test build.
const CHECKED_SCRAPE_WITHIN: Duration = Duration::from_millis(12);
/// Scrapes of which the one in the middle counts.
const SCRAPES: usize = 21;

/// The real thing: every link is there, its peer told of itself, and all crosses a connection.
#[test]
fn paced_a_scrape_with_three_hundred_peers_is_quick() {
    let world = World::new(Options::encrypted().bare(2).args("--conn-limit 400"));
    world.launch(0, &[]);
    let crowd = Crowd::join(&world, 1, 0, PEERS);
    let (mut times, body): (Vec<_>, _) = world.on_host(0, || {
        let scrape = || {
            let begun = Instant::now();
            let answer = http::ask("GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
            assert_eq!(answer.code, 200);
            (begun.elapsed(), answer.body)
        };
        let body = scrape().1;
        ((0..SCRAPES).map(|_| scrape().0).collect(), body)
    });
    drop(crowd);
    times.sort();
    println!(
        "{} bytes, {} lines: {:?} at best, {:?} in the middle, {:?} at worst",
        body.len(),
        body.lines().count(),
        times[0],
        times[SCRAPES / 2],
        times[SCRAPES - 1]
    );
    let has = |line: &str| assert!(body.contains(&format!("\n{line}\n")), "{line}: {body:.4000}");
    has(&format!("weave_connections{{state=\"established\",type=\"udp\",encryption=\"yes\"}} {PEERS}"));
    has(&format!("weave_peers {}", PEERS + 1));
    let within = if is_release() { SCRAPE_WITHIN } else { CHECKED_SCRAPE_WITHIN };
    assert!(times[SCRAPES / 2] < within, "{times:?}");
}
