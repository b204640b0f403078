//! Two hosts dial each other at the same moment.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use weave_api::status::ConnectionState;
use weave_tests::world::LINK_WITHIN;
use weave_tests::{Options, World, wait_until};

/// Heartbeats come every 2 s: a link that is about to be thrown away is by then.
const SETTLED: Duration = Duration::from_millis(300);

/// Whether dials cross is left to chance: so often it is tried.
const MOST_ROUNDS: usize = 40;

/// Established links as the router of `index` shows them, with the run they lead to.
fn links(hosts: &World, index: usize) -> usize {
    let connections = hosts.status(index).connections;
    connections
        .iter()
        .filter(|link| matches!(link.state, ConnectionState::Established | ConnectionState::Pending))
        .count()
}

/// How often the peer of host `index` was reached and then was not, until `settled`.
fn losses(hosts: &World, index: usize, settled: &AtomicBool) -> usize {
    let mut client =
        weave_api::Client::connect(&hosts.host(index).run_dir(), Duration::from_secs(5)).unwrap();
    let (mut reached, mut losses) = (false, 0);
    while !settled.load(Ordering::Relaxed) {
        let connections = client.status().unwrap().connections;
        let reaches = connections.iter().any(|link| link.state == ConnectionState::Established);
        losses += usize::from(reached && !reaches);
        reached = reaches;
    }
    losses
}

#[test]
fn alone_two_hosts_that_dial_each_other_at_once_end_with_one_link() {
    cross(8);
}

#[test]
fn long_two_hosts_that_dial_each_other_at_once_end_with_one_link() {
    cross(40);
}

fn cross(rounds: usize) {
    let hosts = World::new(Options::encrypted().bare(2));
    for index in [0, 1] {
        hosts.launch(index, &["--no-discovery"]);
    }
    let (mut round, mut crossed) = (0, 0);
    while round < rounds || (crossed == 0 && round < MOST_ROUNDS) {
        round += 1;
        let made = [0, 1].map(|index| hosts.status(index).counters["links_made"]);
        let lost = [0, 1].map(|index| hosts.status(index).counters["links_lost"]);
        let (barrier, settled) = (Barrier::new(4), AtomicBool::new(false));
        std::thread::scope(|scope| {
            let watches = [0, 1].map(|index| {
                let (hosts, barrier, settled) = (&hosts, &barrier, &settled);
                scope.spawn(move || {
                    barrier.wait();
                    losses(hosts, index, settled)
                })
            });
            let dials = [0, 1].map(|index| {
                let (hosts, barrier) = (&hosts, &barrier);
                scope.spawn(move || {
                    let mut client =
                        weave_api::Client::connect(&hosts.host(index).run_dir(), Duration::from_secs(5))
                            .unwrap();
                    let target = hosts.underlay(1 - index).into();
                    barrier.wait();
                    client.connect_peers(vec![target], true).unwrap();
                })
            });
            dials.into_iter().for_each(|dial| dial.join().unwrap());
            hosts.wait_linked(0, 1, LINK_WITHIN);
            // Nothing tells that no second link will come.
            std::thread::sleep(SETTLED);
            settled.store(true, Ordering::Relaxed);
            for (index, watch) in watches.into_iter().enumerate() {
                assert_eq!(watch.join().unwrap(), 0, "round {round}: host {index} lost its peer again");
            }
        });
        for index in [0, 1] {
            assert_eq!(links(&hosts, index), 1, "round {round}: {}", hosts.connections(&[0, 1]));
            let counters = hosts.status(index).counters;
            assert_eq!(counters["links_lost"], lost[index], "round {round}: a link was lost at host {index}");
            crossed += u64::from(counters["links_made"] > made[index] + 1);
        }
        // Both ends must hold the same one: who dialled is told by both.
        let directions = [(0, 1), (1, 0)].map(|(a, b)| hosts.connection(a, b).unwrap().direction);
        assert_ne!(directions[0], directions[1], "round {round}: {}", hosts.connections(&[0, 1]));
        for index in [0, 1] {
            let target = &hosts.status(index).targets[0];
            assert_eq!(target.state, weave_api::status::TargetState::Connected, "round {round}: {target:?}");
        }
        // From the start again, without a target to dial.
        for index in [0, 1] {
            hosts.weave(index, &["forget", &hosts.underlay(1 - index).to_string()]).ok();
        }
        hosts.stop(round % 2);
        hosts.launch(round % 2, &["--no-discovery"]);
        wait_until(
            LINK_WITHIN,
            || format!("the link outlives one of its ends; {}", hosts.connections(&[0, 1])),
            || [0, 1].iter().all(|index| links(&hosts, *index) == 0),
        );
        for index in [0, 1] {
            // The far end may count the end of the link; the round did not.
            assert!(hosts.status(index).counters["links_lost"] <= lost[index] + 1);
        }
    }
    assert!(crossed > 0, "no two dials crossed in {round} rounds: nothing was tested");
}
