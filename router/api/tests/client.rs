//! The client against a router played by a thread.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::{Duration, Instant};

use weave_api::request::{Reply, Request};
use weave_api::server::{Conversation, Incoming, hello_frame, response_frames};
use weave_api::status::{MacEntry, MacSource, Status};
use weave_api::{Client, ClientError, Code, Problem, socket};

const SHORT: Duration = Duration::from_millis(200);
const LONG: Duration = Duration::from_secs(10);

/// Plays a router that says what `answer` says, for one client.
fn router(
    run_dir: &Path,
    answer: impl Fn(Request) -> Result<Reply, Problem> + Send + 'static,
) -> std::thread::JoinHandle<()> {
    let listener = UnixListener::bind(socket::prepare(run_dir).unwrap()).unwrap();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut conversation = Conversation::default();
        stream.write_all(&hello_frame()).unwrap();
        let mut chunk = [0; 7];
        while let Ok(length @ 1..) = stream.read(&mut chunk) {
            conversation.push(&chunk[..length]);
            while let Some(incoming) = conversation.next_incoming() {
                match incoming {
                    Incoming::Request { id, request } => {
                        for frame in response_frames(id, answer(request)) {
                            stream.write_all(&frame).unwrap();
                        }
                    }
                    Incoming::Refused(frame) | Incoming::Close(frame) => stream.write_all(&frame).unwrap(),
                }
            }
        }
    })
}

/// Plays a router that runs `script` on the first client's stream.
fn raw_router(
    run_dir: &Path,
    script: impl FnOnce(UnixStream) + Send + 'static,
) -> std::thread::JoinHandle<()> {
    let listener = UnixListener::bind(socket::prepare(run_dir).unwrap()).unwrap();
    std::thread::spawn(move || script(listener.accept().unwrap().0))
}

fn status(macs: u16) -> Status {
    let text = r#"{"version":"0.1.0","protocol":[1,1],"name":"02:00:00:00:00:01","nickname":"host1",
        "uid":"00000000000000aa","pid":1,"uptime_s":1,"port":6783,"encrypted":true,"discovery":true,
        "mtu":1376,"conn_limit":200}"#;
    let mut status: Status = serde_json::from_str(text).unwrap();
    status.macs = (0..macs)
        .map(|n| MacEntry {
            mac: format!("02:00:00:00:{:02x}:{:02x}", n >> 8, n & 255).parse().unwrap(),
            peer: status.name,
            nickname: status.nickname.clone(),
            source: MacSource::Learned,
            idle_s: 0,
        })
        .collect();
    status
}

#[test]
fn a_status_of_many_pages_arrives_whole() {
    let run = tempfile::tempdir().unwrap();
    let thread = router(run.path(), |_| Ok(Reply::Status(Box::new(status(10_000)))));
    let mut client = Client::connect(run.path(), LONG).unwrap();
    assert_eq!(client.status().unwrap(), status(10_000));
    drop(client);
    thread.join().unwrap();
}

#[test]
fn requests_follow_each_other_and_a_refusal_is_a_typed_error() {
    let run = tempfile::tempdir().unwrap();
    let thread = router(run.path(), |request| match request {
        Request::Forget { .. } => {
            Err(Problem::new(Code::BadRequest, "cannot forget host9", "it is no target", ""))
        }
        Request::Status
        | Request::Connect { .. }
        | Request::Stop
        | Request::AttachmentsChanged
        | Request::Reload
        | Request::Leave
        | Request::Names
        | Request::AttachedElsewhere { .. }
        | Request::Ping { .. }
        | Request::LogLevel { .. }
        | Request::ForgetIdentity { .. }
        | Request::Subscribe => Ok(Reply::Done),
    });
    let mut client = Client::connect(run.path(), LONG).unwrap();
    client.connect_peers(vec!["host2".parse().unwrap()], true).unwrap();
    match client.forget(vec!["host9".parse().unwrap()]) {
        Err(ClientError::Refused(problem)) => assert_eq!(problem.code, Code::BadRequest),
        other => panic!("{other:?}"),
    }
    client.attachments_changed().unwrap();
    client.stop().unwrap();
    drop(client);
    thread.join().unwrap();
}

#[test]
fn no_router_is_told_from_a_dead_one() {
    let run = tempfile::tempdir().unwrap();
    assert!(matches!(Client::connect(run.path(), LONG), Err(ClientError::NotRunning(_))));
    drop(UnixListener::bind(socket::prepare(run.path()).unwrap()).unwrap());
    match Client::connect(run.path(), LONG) {
        Err(ClientError::NotRunning(why)) => assert!(why.contains("nobody listens"), "{why}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_router_that_says_nothing_is_given_up_in_time() {
    let run = tempfile::tempdir().unwrap();
    let (done, wait) = std::sync::mpsc::channel::<()>();
    let thread = raw_router(run.path(), move |_stream| {
        let _ = wait.recv();
    });
    let begin = Instant::now();
    assert!(matches!(Client::connect(run.path(), SHORT), Err(ClientError::TimedOut(_))));
    assert!(begin.elapsed() < LONG);
    drop(done);
    thread.join().unwrap();
}

#[test]
fn a_router_that_drips_bytes_cannot_stretch_the_time_limit() {
    let run = tempfile::tempdir().unwrap();
    let thread = raw_router(run.path(), |mut stream| {
        stream.write_all(&1000u32.to_be_bytes()).unwrap();
        while stream.write_all(b" ").is_ok() {
            std::thread::sleep(Duration::from_millis(10));
        }
    });
    assert!(matches!(Client::connect(run.path(), SHORT), Err(ClientError::TimedOut(_))));
    thread.join().unwrap();
}

#[test]
fn garbage_and_a_closed_stream_are_errors() {
    for (bytes, nonsense) in
        [(&b"HTTP/1.1 200 OK"[..], true), (&b"\0\0\0\x02{"[..], false), (&b""[..], false)]
    {
        let run = tempfile::tempdir().unwrap();
        let thread = raw_router(run.path(), move |mut stream| stream.write_all(bytes).unwrap());
        match Client::connect(run.path(), LONG) {
            Err(ClientError::Nonsense(_)) => assert!(nonsense),
            Err(ClientError::Closed) => assert!(!nonsense),
            other => panic!("{other:?}"),
        }
        thread.join().unwrap();
    }
}
