//! The keeper against the kernel and an engine that says what it is told to. Needs root.

use std::net::IpAddr;
use std::path::Path;
use std::process::Command;
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use crate::common::engine::{FakeContainer, FakeEngine, Sandbox};
use crate::common::{cidrs, container, in_host};
use weave_host::attach::{AttachOptions, PROBE_WAIT, attached, detach_all};
use weave_host::bridge::BRIDGE;
use weave_host::engine::place;
use weave_host::exposed::{Exposed, ExposedAddresses};
use weave_host::keeper::{Devices, Elsewhere, KeeperConfig, News, NewsSender, news, run};
use weave_host::names::ContainerNames;
use weave_host::policy::HostPolicy;
use weave_host::records::{Known, Records, read_all};
use weave_host::{Namespace, Netlink};
use weave_wire::MacAddr;

/// Time for what is kept to be as it should be.
const SOON: Duration = Duration::from_secs(2);

/// A keeper that runs in the network namespace of the calling thread while `test` does.
fn with_keeper<T>(state: &Path, engine: &FakeEngine, test: impl FnOnce(&NewsSender) -> T) -> T {
    with_keeper_that_knows(Elsewhere::default(), state, engine, test)
}

/// The same, of a keeper that the router has told where addresses are on other hosts.
fn with_keeper_that_knows<T>(
    elsewhere: Elsewhere,
    state: &Path,
    engine: &FakeEngine,
    test: impl FnOnce(&NewsSender) -> T,
) -> T {
    let policy = policy();
    let config = KeeperConfig {
        state_dir: state.into(),
        engine_host: engine.host(),
        policy,
        for_router: false,
        elsewhere,
    };
    let (sender, news) = news();
    std::thread::scope(|scope| {
        let keeper =
            scope.spawn(move || run(config, Devices::default(), news, || {}, |_| {}, |_| {}).unwrap());
        let end = End(&sender);
        let done = test(&sender);
        drop(end);
        keeper.join().unwrap();
        done
    })
}

fn policy() -> HostPolicy {
    HostPolicy { port: 6783, engine_bridge: "docker0".into(), guard: false }
}

/// Ends the keeper, also where a test fails.
struct End<'a>(&'a NewsSender);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.tell(News::Stop);
    }
}

/// Has containers looked at, and waits until that is done.
#[track_caller]
fn look(news: &NewsSender, engine: &FakeEngine) {
    let before = engine.lists();
    news.tell(News::Engine);
    // Each news has a second look: when that begins, the first is done.
    engine.wait_lists(before + 2);
}

#[track_caller]
fn wait_until(what: &str, is_so: impl FnMut() -> bool) {
    wait_within(SOON, what, is_so);
}

#[track_caller]
fn wait_within(limit: Duration, what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + limit;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn attach(state: &Path, host: &mut Netlink, id: &str, namespace: &Namespace, cidr: &str) {
    let options = AttachOptions::default();
    Records::open(state).unwrap().attach(host, id, namespace, &cidrs(&[cidr]), &options).unwrap();
}

fn remembered(state: &Path) -> Vec<String> {
    read_all(state).unwrap().0.into_iter().map(|record| record.container).collect()
}

#[test]
fn a_container_attached_while_the_engine_tells_its_list_is_not_forgotten() {
    let state = tempfile::tempdir().unwrap();
    let id = "a".repeat(64);
    in_host(|host| {
        let (engine, sandbox) = (FakeEngine::start(), Sandbox::new());
        // The list has no container; `weave run` makes one before the keeper has the lock.
        let (told, asked) = sync_channel(0);
        let (attached, go_on) = sync_channel(0);
        engine.before_list(move || {
            told.send(()).unwrap();
            go_on.recv().unwrap();
        });
        with_keeper(state.path(), &engine, |news| {
            asked.recv().unwrap();
            engine.put(&id, sandbox.runs());
            attach(state.path(), host, &id, &sandbox.namespace, "10.2.1.1/24");
            attached.send(()).unwrap();
            look(news, &engine);
        });
        assert_eq!(remembered(state.path()), [id]);
        assert!(sandbox.is_attached(host));
    });
}

/// Has a container end that the engine of the keeper does not know, and that was attached by an engine at
/// this place; whether it is remembered.
fn outlasts_its_end(place: impl FnOnce(&FakeEngine) -> Option<String> + Send) -> bool {
    let state = tempfile::tempdir().unwrap();
    let id = "b".repeat(64);
    in_host(|host| {
        let (engine, sandbox) = (FakeEngine::start(), Sandbox::new());
        let known = place(&engine).map(|engine| Known { called: ContainerNames::default(), engine });
        let (cidrs, options) = (cidrs(&["10.2.1.1/24"]), AttachOptions::default());
        let mut records = Records::open(state.path()).unwrap();
        records.attach_known(host, &id, &sandbox.namespace, &cidrs, &options, known).unwrap();
        drop(records);
        with_keeper(state.path(), &engine, |news| {
            look(news, &engine);
            assert_eq!(remembered(state.path()), std::slice::from_ref(&id));
            assert!(sandbox.is_attached(host));
            // With its namespace the kernel takes its interface.
            drop(sandbox);
            let gone = || host.links().unwrap().iter().all(|link| link.kind != "veth");
            wait_until("the interface is still there", gone);
            look(news, &engine);
        });
    });
    remembered(state.path()) == [id]
}

#[test]
fn a_container_of_another_engine_is_remembered_when_it_has_ended() {
    assert!(outlasts_its_end(|_| Some("unix:///run/elsewhere.sock".into())));
}

#[test]
fn a_container_that_another_engine_has_removed_is_forgotten() {
    let state = tempfile::tempdir().unwrap();
    let [kept, removed] = ["4", "5"].map(|digit| digit.repeat(64));
    in_host(|host| {
        let (engine, other) = (FakeEngine::start(), FakeEngine::start());
        for (id, cidr) in [(&kept, "10.2.1.1/24"), (&removed, "10.2.1.2/24")] {
            let sandbox = Sandbox::new();
            let known = Known { called: ContainerNames::default(), engine: place(&other.host()) };
            let (cidrs, options) = (cidrs(&[cidr]), AttachOptions::default());
            let mut records = Records::open(state.path()).unwrap();
            records.attach_known(host, id, &sandbox.namespace, &cidrs, &options, Some(known)).unwrap();
            if *id == kept {
                other.put(id, FakeContainer { state: "exited", pid: 0, ..sandbox.runs() });
            }
        }
        wait_within(5 * SOON, "interfaces are still there", || {
            host.links().unwrap().iter().all(|link| link.kind != "veth")
        });
        with_keeper(state.path(), &engine, |_| {
            wait_within(5 * SOON, "it is remembered", || {
                remembered(state.path()) == std::slice::from_ref(&kept)
            });
        });
    });
    assert_eq!(remembered(state.path()), [kept]);
}

#[test]
fn a_labelled_container_whose_record_is_damaged_is_taken_up_again() {
    let state = tempfile::tempdir().unwrap();
    let id = "9".repeat(64);
    in_host(|host| {
        let (engine, sandbox) = (FakeEngine::start(), Sandbox::new());
        let labels = [("weave.cidr".to_owned(), "10.2.1.1/24".to_owned())].into();
        engine.put(&id, FakeContainer { labels, ..sandbox.runs() });
        with_keeper(state.path(), &engine, |news| {
            wait_within(5 * SOON, "it is not attached", || sandbox.is_attached(host));
            look(news, &engine);
            std::fs::write(state.path().join(format!("attachments/{id}.json")), "{").unwrap();
            look(news, &engine);
            wait_within(5 * SOON, "it is not taken up", || {
                remembered(state.path()) == std::slice::from_ref(&id)
            });
        });
    });
}

#[test]
fn rules_come_with_the_first_attachment() {
    let state = tempfile::tempdir().unwrap();
    in_host(|host| {
        let (engine, container) = (FakeEngine::start(), container("first"));
        let config = KeeperConfig {
            state_dir: state.path().into(),
            engine_host: engine.host(),
            policy: policy(),
            for_router: false,
            elsewhere: Elsewhere::default(),
        };
        let rules = || {
            let shown = Command::new("iptables-save").output().unwrap();
            String::from_utf8(shown.stdout).unwrap().contains("WEAVE")
        };
        let (sender, news) = news();
        let (looked, has_looked) = sync_channel(1);
        std::thread::scope(|scope| {
            let beat = |_: &_| {
                let _ = looked.try_send(());
            };
            let keeper =
                scope.spawn(move || run(config, Devices::default(), news, || {}, |_| {}, beat).unwrap());
            let end = End(&sender);
            has_looked.recv_timeout(10 * SOON).unwrap();
            assert!(!rules(), "there is nothing they are for");
            attach(state.path(), host, "netns:first", &container, "10.2.1.1/24");
            sender.tell(News::Links);
            // By some programs, each of which takes its time on a busy machine.
            wait_within(10 * SOON, "there are no rules", rules);
            drop(end);
            keeper.join().unwrap();
        });
    });
}

#[test]
fn a_container_that_its_own_engine_does_not_know_is_kept_while_it_runs_and_forgotten_when_it_has_ended() {
    assert!(!outlasts_its_end(|engine| Some(place(&engine.host()))));
    // Of one that was attached by an earlier version nobody knows of which engine it is.
    assert!(!outlasts_its_end(|_| None));
}

#[test]
fn a_container_that_the_engine_has_is_its_own_wherever_it_was_asked_for_it() {
    let state = tempfile::tempdir().unwrap();
    let id = "6".repeat(64);
    in_host(|host| {
        let (engine, sandbox) = (FakeEngine::start(), Sandbox::new());
        let known = Known { called: ContainerNames::default(), engine: "tcp://127.0.0.1:2375".into() };
        let mut records = Records::open(state.path()).unwrap();
        let (cidrs, options) = (cidrs(&["10.2.1.1/24"]), AttachOptions::default());
        records.attach_known(host, &id, &sandbox.namespace, &cidrs, &options, Some(known)).unwrap();
        drop(records);
        engine.put(&id, sandbox.runs());
        with_keeper(state.path(), &engine, |news| look(news, &engine));
        assert_eq!(read_all(state.path()).unwrap().0[0].engine, Some(place(&engine.host())));
    });
}

#[test]
fn a_container_that_the_engine_has_removed_is_forgotten_at_once() {
    let state = tempfile::tempdir().unwrap();
    let id = "c".repeat(64);
    in_host(|host| {
        let (engine, sandbox) = (FakeEngine::start(), Sandbox::new());
        engine.put(&id, sandbox.runs());
        attach(state.path(), host, &id, &sandbox.namespace, "10.2.1.1/24");
        with_keeper(state.path(), &engine, |news| {
            look(news, &engine);
            assert_eq!(remembered(state.path()), std::slice::from_ref(&id));
            // A list may lack for a moment what there is.
            engine.put(&id, FakeContainer { is_listed: false, ..sandbox.runs() });
            look(news, &engine);
            assert_eq!(remembered(state.path()), std::slice::from_ref(&id));
            engine.remove(&id);
            look(news, &engine);
            // Its namespace lingers.
            assert_eq!(remembered(state.path()), Vec::<String>::new());
            assert!(!sandbox.is_attached(host));
        });
    });
}

#[test]
fn a_start_that_the_list_tells_late_is_seen_while_there_is_other_news() {
    let state = tempfile::tempdir().unwrap();
    let id = "d".repeat(64);
    in_host(|host| {
        let (engine, sandbox) = (FakeEngine::start(), Sandbox::new());
        attach(state.path(), host, &id, &sandbox.namespace, "10.2.1.1/24");
        assert!(detach_all(host, &sandbox.namespace).unwrap());
        engine.put(&id, FakeContainer { state: "exited", pid: 0, ..sandbox.runs() });
        with_keeper(state.path(), &engine, |news| {
            engine.wait_lists(1);
            news.tell(News::Engine);
            engine.wait_lists(2);
            engine.put(&id, sandbox.runs());
            wait_until("it is not attached", || {
                news.tell(News::Links);
                sandbox.is_attached(host)
            });
        });
    });
}

#[test]
fn interfaces_and_the_lock_wait_for_no_engine() {
    let state = tempfile::tempdir().unwrap();
    let id = "e".repeat(64);
    in_host(|host| {
        let (engine, sandbox) = (FakeEngine::start(), Sandbox::new());
        attach(state.path(), host, &id, &sandbox.namespace, "10.2.1.1/24");
        engine.put(&id, sandbox.runs());
        with_keeper(state.path(), &engine, |news| {
            engine.wait_lists(1);
            // The list is told; what comes after it is not.
            let (told, asked) = sync_channel(0);
            let (hanging, go_on) = sync_channel(0);
            engine.put(&id, FakeContainer { state: "exited", pid: 0, ..sandbox.runs() });
            engine.before_list(move || {
                told.send(()).unwrap();
                go_on.recv().unwrap();
            });
            news.tell(News::Engine);
            asked.recv().unwrap();
            engine.hang(true);
            hanging.send(()).unwrap();
            let bridge = host.link(BRIDGE).unwrap().unwrap();
            let port = host.links().unwrap().into_iter().find(|link| link.kind == "veth").unwrap();
            for _ in 0..3 {
                host.set_down(&port).unwrap();
                news.tell(News::Links);
                wait_until("a port is down", || host.expect_link(&port.name).unwrap().up);
            }
            assert_eq!(port.controller, Some(bridge.index));
            let begin = Instant::now();
            drop(Records::open(state.path()).unwrap());
            assert!(begin.elapsed() < SOON, "the lock was held for {:?}", begin.elapsed());
            engine.hang(false);
        });
    });
}

#[test]
fn a_keeper_ends_while_the_engine_hangs_and_another_goes_on() {
    let state = tempfile::tempdir().unwrap();
    let id = "f".repeat(64);
    in_host(|host| {
        let (engine, sandbox) = (FakeEngine::start(), Sandbox::new());
        attach(state.path(), host, &id, &sandbox.namespace, "10.2.1.1/24");
        assert!(detach_all(host, &sandbox.namespace).unwrap());
        engine.put(&id, sandbox.runs());
        engine.hang(true);
        let begin = with_keeper(state.path(), &engine, |_| {
            engine.wait_lists(1);
            Instant::now()
        });
        assert!(begin.elapsed() < SOON, "it ended after {:?}", begin.elapsed());
        engine.hang(false);
        with_keeper(state.path(), &engine, |_| {
            wait_until("it is not attached", || sandbox.is_attached(host));
        });
    });
}

#[test]
fn a_container_that_runs_anew_is_attached_while_its_old_namespace_lingers() {
    let state = tempfile::tempdir().unwrap();
    let id = "9".repeat(64);
    in_host(|host| {
        let (engine, mut old, new) = (FakeEngine::start(), Sandbox::new(), Sandbox::new());
        attach(state.path(), host, &id, &old.namespace, "10.2.1.1/24");
        let mac = read_all(state.path()).unwrap().0[0].mac;
        engine.put(&id, old.runs());
        with_keeper(state.path(), &engine, |news| {
            look(news, &engine);
            assert!(old.is_attached(host));
            // Its end and its start are over before the engine is asked.
            old.end();
            engine.put(&id, new.runs());
            news.tell(News::Engine);
            wait_until("it is not attached", || new.is_attached(host));
            assert!(!old.is_attached(host));
            let records = read_all(state.path()).unwrap().0;
            assert_eq!((records.len(), records[0].mac, records[0].namespace), (1, mac, new.namespace.id()));
            // And so after one more look.
            look(news, &engine);
            assert!(new.is_attached(host));
        });
    });
}

#[test]
fn a_container_that_the_engine_is_to_restart_has_ended_meanwhile() {
    let state = tempfile::tempdir().unwrap();
    let id = "8".repeat(64);
    in_host(|host| {
        for word in ["restarting", "dead", "exited"] {
            let (engine, sandbox) = (FakeEngine::start(), Sandbox::new());
            attach(state.path(), host, &id, &sandbox.namespace, "10.2.1.1/24");
            engine.put(&id, FakeContainer { state: word, pid: 0, ..sandbox.runs() });
            with_keeper(state.path(), &engine, |_| {
                wait_until(word, || !sandbox.is_attached(host));
            });
            assert_eq!(remembered(state.path()), std::slice::from_ref(&id));
        }
        let (engine, sandbox) = (FakeEngine::start(), Sandbox::new());
        attach(state.path(), host, &id, &sandbox.namespace, "10.2.1.1/24");
        engine.put(&id, FakeContainer { state: "paused", ..sandbox.runs() });
        with_keeper(state.path(), &engine, |news| look(news, &engine));
        assert!(sandbox.is_attached(host));
    });
}

/// As when the engine is started again. How long an attachment takes is a matter of what else the machine
/// does, so those that each ask the network by themselves are the measure.
#[test]
#[expect(clippy::print_stdout, reason = "figures for people")]
fn alone_a_hundred_containers_that_come_up_together_do_not_ask_the_network_one_by_one() {
    const COUNT: usize = 100;
    const MEASURED: usize = 20;
    const ROUNDS: usize = 3;
    let by_themselves = |host: &mut Netlink| {
        let state = tempfile::tempdir().unwrap();
        let asking = AttachOptions { probe: Some(PROBE_WAIT), ..AttachOptions::default() };
        let all: Vec<Namespace> = (0..MEASURED).map(|_| container("measured")).collect();
        let begin = Instant::now();
        for (number, one) in all.iter().enumerate() {
            let (id, own) = (format!("{number:064x}"), cidrs(&[&format!("10.2.2.{}/24", number + 1)]));
            Records::open(state.path()).unwrap().attach(host, &id, one, &own, &asking).unwrap();
        }
        begin.elapsed()
    };
    let together = |host: &mut Netlink| {
        let state = tempfile::tempdir().unwrap();
        let (engine, taken) = (FakeEngine::start(), container("taken"));
        // Nobody but the network knows of this one.
        weave_host::attach::attach(host, &taken, &cidrs(&["10.2.1.1/24"]), &AttachOptions::default())
            .unwrap();
        let sandboxes: Vec<Sandbox> = (0..=COUNT).map(|_| Sandbox::new()).collect();
        for (number, sandbox) in sandboxes.iter().enumerate() {
            let labels = [("weave.cidr".to_owned(), format!("10.2.1.{}/24", number + 1))].into();
            engine.put(&format!("{number:064x}"), FakeContainer { labels, ..sandbox.runs() });
        }
        let begin = Instant::now();
        let took = with_keeper(state.path(), &engine, |_| {
            let is_record = |name: std::ffi::OsString| name.to_string_lossy().ends_with(".json");
            let files =
                || std::fs::read_dir(state.path().join("attachments")).into_iter().flatten().flatten();
            let count = || files().filter(|file| is_record(file.file_name())).count();
            // The last one is being attached then.
            wait_within(30 * SOON, "they are not attached", || count() >= COUNT);
            begin.elapsed()
        });
        assert!(!sandboxes[0].is_attached(host), "its address is taken");
        took
    };
    for round in 1..=ROUNDS {
        let (alone, all) = in_host(|host| (by_themselves(host), together(host)));
        let limit = alone * u32::try_from(COUNT / MEASURED).unwrap();
        let said = format!("{COUNT} containers took {all:.1?}, one by one they take {limit:.1?}");
        println!("{said}");
        if all < limit {
            return;
        }
        assert!(round < ROUNDS, "{said}");
    }
}

#[test]
fn an_address_that_a_container_of_another_host_has_is_not_taken_until_it_is_free() {
    let state = tempfile::tempdir().unwrap();
    let id = "7".repeat(64);
    let address: IpAddr = "10.2.1.1".parse().unwrap();
    in_host(|host| {
        let (engine, sandbox, elsewhere) = (FakeEngine::start(), Sandbox::new(), Elsewhere::default());
        elsewhere.replace([(address, MacAddr([2, 0, 0, 0, 0, 9]))].into());
        let labels = [("weave.cidr".to_owned(), "10.2.1.1/24".to_owned())].into();
        engine.put(&id, FakeContainer { labels, ..sandbox.runs() });
        with_keeper_that_knows(elsewhere.clone(), state.path(), &engine, |news| {
            look(news, &engine);
            assert!(!sandbox.is_attached(host));
            elsewhere.change([(address, None)]);
            // What failed is tried again after 2 s.
            wait_within(5 * SOON, "it is not attached", || sandbox.is_attached(host));
        });
    });
}

#[test]
fn an_exposed_host_reaches_who_has_an_address_and_not_who_had_it() {
    for ids in [["1", "2"], ["2", "1"]] {
        let state = tempfile::tempdir().unwrap();
        let [ended, runs] = ids.map(|digit| digit.repeat(64));
        in_host(|host| {
            let (engine, before, after) = (FakeEngine::start(), container("before"), Sandbox::new());
            let exposed = Exposed {
                cidr: "10.2.1.101/24".parse().unwrap(),
                masquerade: false,
                names: vec![],
                number: None,
            };
            ExposedAddresses::open(state.path())
                .unwrap()
                .expose(host, &[exposed], &policy(), None, None)
                .unwrap();
            attach(state.path(), host, &ended, &before, "10.2.1.44/24");
            assert!(detach_all(host, &before).unwrap());
            attach(state.path(), host, &runs, &after.namespace, "10.2.1.44/24");
            engine.put(&runs, after.runs());
            engine.put(&ended, FakeContainer { state: "exited", pid: 0, ..after.runs() });
            let mac = attached(host, &after.namespace).unwrap().unwrap().mac;
            with_keeper(state.path(), &engine, |news| {
                let neighbour = || {
                    let shown = Command::new("ip").args(["neigh", "show", "10.2.1.44"]).output().unwrap();
                    String::from_utf8(shown.stdout).unwrap()
                };
                wait_until("there is no neighbour", || neighbour().contains("PERMANENT"));
                look(news, &engine);
                assert!(neighbour().contains(&mac.to_string()), "{}", neighbour());
            });
        });
    }
}
