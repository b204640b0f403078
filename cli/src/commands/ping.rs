//! `weave ping`: round trips to a peer through the mesh.

use std::fmt::Write as _;
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;
use weave_api::request::{Hop, Pinged};
use weave_api::status::Peer;
use weave_api::{Client, ClientError, Code, OneLine, Problem, client::TIME_LIMIT};
use weave_wire::{Nickname, PeerName};

use super::status::Format;
use crate::environment::Environment;
use crate::failure::{Failure, Result};
use crate::output;

/// How long a connection to the router is left idle: it cuts one that asks nothing for
/// [`REQUEST_TIME_LIMIT`](weave_api::server::REQUEST_TIME_LIMIT).
const IDLE_MAX: Duration = Duration::from_secs(3);

/// What `ping` takes.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Name or nickname, as `weave status peers` shows them
    peer: String,
    /// Bytes of the packet: what a container of that MTU would send
    #[arg(short, long, value_name = "BYTES", default_value_t = 64, value_parser = clap::value_parser!(u16).range(16..))]
    size: u16,
    /// Round trips to make
    #[arg(short, long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    count: u32,
    /// Milliseconds from one to the next
    #[arg(short, long, value_name = "MS", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(10..))]
    interval: u32,
    /// How to print it
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    output: Format,
}

/// What came of it, as `-o json` prints it.
#[derive(Debug, Serialize)]
struct Results {
    peer: PeerName,
    nickname: Nickname,
    size: u16,
    sent: u32,
    received: u32,
    /// The way of the last one.
    path: Vec<Hop>,
    encrypted: bool,
    path_mtu: u16,
    /// Those that came back, nanoseconds.
    round_trips_ns: Vec<u64>,
}

/// Makes the round trips; fails if none was made. One that the router refuses for now, as while a
/// link is made anew, is lost.
pub fn run(arguments: &Arguments, environment: &Environment) -> Result<()> {
    let run_dir = environment.run_dir()?;
    let what = format!("cannot ping {}", arguments.peer);
    let failed = |error| Failure::of_client(&what, &run_dir, &error);
    let mut client = Client::connect(&run_dir, TIME_LIMIT).map_err(failed)?;
    let status = client.status().map_err(failed)?;
    let peer =
        find(&status.peers, &arguments.peer).map_err(|(why, remedy)| Failure::new(&what, why, remedy))?;
    let text = arguments.output == Format::Text;
    let mut results = Results::none(peer, arguments.size);
    let mut refused = None;
    let interval = Duration::from_millis(arguments.interval.into());
    for number in 1..=arguments.count {
        let begun = Instant::now();
        let pinged = match client.ping(peer.name, arguments.size) {
            Ok(pinged) => Ok(pinged),
            Err(ClientError::Refused(problem)) if passes(problem.code) => Err(problem),
            Err(error) => return Err(failed(error)),
        };
        if text {
            if let Ok(pinged) = &pinged
                && pinged.path != results.path
            {
                output::print(way(peer, pinged))?;
            }
            if !output::print_on(line(peer, arguments.size, number, &pinged))? {
                return Ok(());
            }
        }
        match pinged {
            Ok(pinged) => results.add(pinged),
            Err(problem) => {
                results.sent += 1;
                refused = Some(problem);
            }
        }
        if number < arguments.count {
            thread::sleep(interval.saturating_sub(begun.elapsed()));
            if interval > IDLE_MAX {
                client = Client::connect(&run_dir, TIME_LIMIT).map_err(failed)?;
            }
        }
    }
    if text {
        output::print(results.summary())?;
    } else {
        output::print_json(&results)?;
    }
    if results.received == 0 {
        if let Some(problem) = refused {
            return Err(failed(problem.into()));
        }
        let remedy = "look at `weave status connections` there and here";
        return Err(Failure::new(&what, "no answer came", remedy));
    }
    Ok(())
}

/// Whether what was refused with `code` may be granted next time.
const fn passes(code: Code) -> bool {
    matches!(code, Code::Failed | Code::Busy)
}

/// The peer that is called `wanted`; else why there is none, and what to do.
fn find<'a>(peers: &'a [Peer], wanted: &str) -> Result<&'a Peer, (String, &'static str)> {
    let (ourselves, others) = match peers {
        [ourselves, others @ ..] => (ourselves, others),
        [] => return Err(("the router knows no peers".into(), "")),
    };
    let is_it = |peer: &&Peer| peer.name.to_string() == wanted || peer.nickname.as_str() == wanted;
    let mut found = others.iter().filter(is_it);
    match (found.next(), found.next()) {
        (Some(peer), None) => Ok(peer),
        (Some(_), Some(_)) => {
            Err(("more than one peer is called so".into(), "give its name, as `weave status peers` shows it"))
        }
        (None, _) if is_it(&ourselves) => Err(("that is this host".into(), "name another")),
        (None, _) => Err(("no such peer is known".into(), "see `weave status peers`")),
    }
}

impl Results {
    fn none(peer: &Peer, size: u16) -> Self {
        Self {
            peer: peer.name,
            nickname: peer.nickname.clone(),
            size,
            sent: 0,
            received: 0,
            path: Vec::new(),
            encrypted: false,
            path_mtu: 0,
            round_trips_ns: Vec::new(),
        }
    }

    fn add(&mut self, pinged: Pinged) {
        self.sent += 1;
        self.received += u32::from(pinged.round_trip_ns.is_some());
        self.round_trips_ns.extend(pinged.round_trip_ns);
        self.encrypted = pinged.path.iter().all(|hop| hop.encrypted);
        self.path = pinged.path;
        self.path_mtu = pinged.path_mtu;
    }

    fn summary(&self) -> String {
        let lost = 100 * u64::from(self.sent - self.received) / u64::from(self.sent.max(1));
        let mut text = format!("{} sent, {} received, {lost}% lost", self.sent, self.received);
        let all = &self.round_trips_ns;
        if let (Some(least), Some(most)) = (all.iter().min(), all.iter().max()) {
            let average = all.iter().sum::<u64>() / all.len() as u64;
            let _ = write!(
                text,
                "; round trip min/avg/max {}/{}/{} ms",
                milliseconds(*least),
                milliseconds(average),
                milliseconds(*most)
            );
        }
        text.push('\n');
        text
    }
}

/// The way to `peer`, one line.
fn way(peer: &Peer, pinged: &Pinged) -> String {
    let relays: Vec<_> = pinged.path.iter().map(|hop| hop.nickname.as_str()).collect();
    let weakest = pinged.path.iter().find(|hop| !hop.encrypted);
    let sealed = weakest.map_or_else(
        || "encrypted".to_owned(),
        |hop| {
            let all = pinged.path.iter().all(|hop| !hop.encrypted);
            if all { "unencrypted".into() } else { format!("unencrypted on the link to {}", hop.nickname) }
        },
    );
    let links = if relays.len() == 1 { "1 link".to_owned() } else { format!("{} links", relays.len()) };
    format!(
        "{}({}): {links} ({}), {sealed}, path MTU {}\n",
        peer.name,
        peer.nickname,
        relays.join(" > "),
        pinged.path_mtu
    )
}

fn line(peer: &Peer, size: u16, number: u32, pinged: &Result<Pinged, Problem>) -> String {
    let result = match pinged {
        Ok(Pinged { round_trip_ns: Some(ns), .. }) => format!("{} ms", milliseconds(*ns)),
        Ok(Pinged { round_trip_ns: None, .. }) => "no answer".to_owned(),
        Err(problem) => format!("not sent: {}", OneLine(&problem.why)),
    };
    format!("{size} bytes to {}: {number}: {result}\n", peer.nickname)
}

fn milliseconds(nanoseconds: u64) -> String {
    format!("{}.{:03}", nanoseconds / 1_000_000, nanoseconds / 1000 % 1000)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use weave_wire::Uid;

    fn peer(number: u8, nickname: &str) -> Peer {
        Peer {
            name: PeerName::new([2, 0, 0, 0, 0, number]).unwrap(),
            nickname: Nickname::from_host_name(nickname),
            uid: Uid(1),
            connections: Vec::new(),
        }
    }

    #[test]
    fn peers_are_found_by_name_and_by_nickname_unless_it_is_shared() {
        let peers = [peer(1, "here"), peer(2, "there"), peer(3, "twin"), peer(4, "twin")];
        assert_eq!(find(&peers, "there").unwrap().name, peers[1].name);
        assert_eq!(find(&peers, "02:00:00:00:00:04").unwrap().name, peers[3].name);
        for (wanted, why) in [("twin", "more than one"), ("here", "this host"), ("nowhere", "no such")] {
            assert!(find(&peers, wanted).unwrap_err().0.contains(why), "{wanted}");
        }
    }

    #[test]
    fn the_way_names_its_weakest_link() {
        let hop = |number, nickname: &str, encrypted| Hop {
            peer: peer(number, nickname).name,
            nickname: Nickname::from_host_name(nickname),
            encrypted,
        };
        let told = |path| way(&peer(3, "c"), &Pinged { round_trip_ns: None, path, path_mtu: 1376 });
        assert_eq!(
            told(vec![hop(2, "b", true), hop(3, "c", true)]),
            "02:00:00:00:00:03(c): 2 links (b > c), encrypted, path MTU 1376\n"
        );
        assert!(told(vec![hop(2, "b", true), hop(3, "c", false)]).contains("unencrypted on the link to c"));
        assert!(told(vec![hop(3, "c", false)]).contains("1 link (c), unencrypted, "));
    }

    #[test]
    fn what_was_lost_is_counted() {
        let mut results = Results::none(&peer(2, "b"), 64);
        for round_trip_ns in [Some(1_500_000), None, Some(500_000), None] {
            results.add(Pinged { round_trip_ns, path: Vec::new(), path_mtu: 1376 });
        }
        assert_eq!(
            results.summary(),
            "4 sent, 2 received, 50% lost; round trip min/avg/max 0.500/1.000/1.500 ms\n"
        );
    }
}
