//! As many names as a mesh may have: what they cost, and how long one takes to be found.

use std::time::{Duration, Instant};

use weave_tests::dns::{self, Asker};
use weave_tests::member::{Member, host};
use weave_tests::random::Random;
use weave_tests::{Options, World, numbered, wait_until};
use weave_wire::PeerName;
use weave_wire::link::gossip::{NameEntry, NamesPart, PartId};

const MIB: u64 = 1 << 20;
/// How many names there are, one after the other.
const STEPS: [u32; 3] = [1_000, 10_000, 100_000];
/// Names of one peer: nearly as many as it may have.
const PER_PEER: u32 = 4_000;
/// Names of one part.
const PER_PART: u32 = 125;
/// Names asked for at each step.
const ASKED: u32 = 5_000;
/// Time for all names to be told.
const TOLD_WITHIN: Duration = Duration::from_secs(60);
/// What a router, or a DNS, may grow by with the most names: half as much again as was measured.
const ROOM: u64 = 96 * MIB;

/// The peer that has a name.
fn owner(number: u32) -> PeerName {
    let [_, _, c, d] = (number / PER_PEER).to_be_bytes();
    PeerName::new([2, 0xdd, 0, 0, c, d]).unwrap()
}

fn name(number: u32) -> String {
    format!("name-{number}.weave.local")
}

/// Tells a router of these names, which are those of a whole number of parts.
fn tell(member: &Member, numbers: std::ops::Range<u32>) {
    for first in numbers.step_by(PER_PART as usize) {
        let entries = (first..first + PER_PART).map(|number| {
            let [_, b, c, d] = number.to_be_bytes();
            NameEntry {
                name: name(number).parse().unwrap(),
                address: [10, b, c, d].into(),
                container: [1; 6],
            }
        });
        let part = PartId::names(u16::try_from(first % PER_PEER / PER_PART).unwrap());
        let content = NamesPart { entries: entries.collect() }.encode();
        assert!(member.tell(&member.sign(owner(first), part, 1, content)));
    }
}

/// What it is like with so many names.
#[derive(Debug)]
struct Cost {
    names: u32,
    router: u64,
    dns: u64,
    median: Duration,
    p99: Duration,
}

impl Cost {
    fn now(world: &World, names: u32) -> Self {
        let mut random = Random::new(u64::from(names));
        let mut times: Vec<Duration> = world.inside(0, || {
            let asker = Asker::of(0);
            let asked = (0..ASKED).map(|_| name(u32::try_from(random.below(u64::from(names))).unwrap()));
            let time = |name: String| {
                let begin = Instant::now();
                assert!(asker.finds(&name), "{name}");
                begin.elapsed()
            };
            asked.map(time).collect()
        });
        times.sort();
        let (median, p99) = (times[times.len() / 2], times[times.len() * 99 / 100]);
        let dns = numbered::resident(
            weave_api::sidecar::status(&world.host(0).run_dir(), TOLD_WITHIN).unwrap().pid,
        );
        Self { names, router: numbered::memory(world, 0), dns, median, p99 }
    }
}

#[test]
fn long_a_hundred_thousand_names_cost_bounded_memory_and_are_found_as_fast_as_a_thousand() {
    let world = World::new(Options::encrypted().launches(&[(0, &[])]).no_wait());
    dns::launch(&world, 0);
    let member = Member::join(&world, 1, 0, PeerName::new([2, 0xee, 0, 0, 0, 1]).unwrap());
    let last = STEPS[STEPS.len() - 1];
    let owners: Vec<_> = (0..last).step_by(PER_PEER as usize).map(owner).collect();
    assert!(member.announce(1, &owners));
    for owner in owners {
        assert!(member.tell(&member.sign(owner, PartId::HOST, 1, host(&[member.name], Vec::new()))));
    }
    let mut told = 0;
    let mut costs = vec![];
    for names in STEPS {
        tell(&member, told..names);
        told = names;
        let known = || weave_api::sidecar::status(&world.host(0).run_dir(), TOLD_WITHIN).unwrap().names;
        wait_until(TOLD_WITHIN, || format!("{} names are known", known()), || known() == names as usize);
        costs.push(Cost::now(&world, names));
    }
    for Cost { names, router, dns, median, p99 } in &costs {
        let [router, dns] = [router, dns].map(|bytes| bytes / 1024);
        println!("{names} names: router {router} KiB, DNS {dns} KiB, found in {median:?}, p99 {p99:?}");
    }
    let [few, _, many] = &costs[..] else { panic!("{costs:?}") };
    assert!(many.router < few.router + ROOM && many.dns < few.dns + ROOM, "{costs:?}");
    assert!(many.median < few.median * 2, "{costs:?}");
}
