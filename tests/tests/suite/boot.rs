//! A host that is started anew: what is made there by name at each start is attached again. The
//! namespaces with all that is in them go, as they do with the host; what tells one start from another
//! is changed where it is remembered. Under a real systemd `cli/packaging/check` does it.

use std::fs;
use std::time::Instant;

use nix::sys::signal::Signal;
use weave_host::{Namespace, Netlink, PidFd, named};
use weave_tests::world::{COMMAND_WITHIN, INTERFACE, LINK_WITHIN};
use weave_tests::{Options, World, wait_until};

/// A name of the whole machine, gone with this.
struct Named(String);

impl Named {
    fn new(label: &str) -> Self {
        Self(format!("weave-boot-{}-{label}", std::process::id()))
    }

    fn make(&self) -> Namespace {
        named::create(&self.0).unwrap()
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        let _ = named::remove(&self.0);
    }
}

/// MAC and addresses of the container in a namespace; `None`: it is not attached.
fn attached(namespace: &Namespace) -> Option<(String, Vec<String>)> {
    let mut netlink = Netlink::in_namespace(namespace).unwrap();
    let link = netlink.link(INTERFACE).unwrap()?;
    let addresses = netlink.addresses().unwrap().into_iter();
    let addresses = addresses.filter(|address| address.index == link.index && !address.link_local);
    Some((link.mac?.to_string(), addresses.map(|address| address.cidr.to_string()).collect()))
}

/// Ends router and keeper as a host does that loses its power.
fn end_all(world: &World) {
    let pid = fs::read_to_string(world.host(0).run_dir().join("keeper.pid")).unwrap();
    let keeper = PidFd::open(pid.trim().parse().unwrap()).unwrap().expect("a keeper");
    world.kill(0);
    keeper.signal(Signal::SIGKILL).unwrap();
    assert!(keeper.wait_end(Instant::now() + COMMAND_WITHIN).unwrap());
}

#[test]
fn a_named_namespace_is_attached_again_after_a_start_of_the_host_and_only_then() {
    let world = World::new(Options::encrypted().count(1).not_attached().no_wait());
    let (blue, gone) = (Named::new("blue"), Named::new("gone"));
    let records = world.host(0).state_dir().join("attachments");
    let remembered = || fs::read_dir(&records).map_or(0, Iterator::count);
    let attach = |cidr: &str, name: &Named| {
        drop(name.make());
        world.weave(0, &["attach", cidr, &format!("netns:{}", name.0)]).ok();
    };
    attach("10.32.1.1/24", &blue);
    attach("10.32.1.2/24", &gone);
    world.weave(0, &["dns-add", &format!("netns:{}", blue.0), "-h", "blue.weave.local"]).ok();
    let before = attached(&Namespace::open(&format!("netns:{}", blue.0).parse().unwrap()).unwrap());
    assert!(before.is_some());

    // The host goes, the namespaces in it before the keeper: that has seen them go once it forgot one
    // without a name. The next start makes one of the two again.
    let unnamed = Namespace::create("unnamed").unwrap();
    world.weave(0, &["attach", "10.32.1.3/24", &unnamed.path().display().to_string()]).ok();
    [&blue, &gone].iter().for_each(|name| named::remove(&name.0).unwrap());
    drop(unnamed);
    wait_until(LINK_WITHIN, || format!("{} are remembered", remembered()), || remembered() == 2);
    end_all(&world);
    for file in fs::read_dir(&records).unwrap() {
        let path = file.unwrap().path();
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(boot.trim()), "{text}");
        fs::write(&path, text.replace(boot.trim(), "another start")).unwrap();
    }
    let namespace = blue.make();
    world.launch(0, &[]);
    let is_back = || attached(&namespace) == before;
    wait_until(LINK_WITHIN, || format!("{:?}, and not {before:?}", attached(&namespace)), is_back);
    wait_until(LINK_WITHIN, || format!("{} are remembered", remembered()), || remembered() == 1);
    let named = || world.weave(0, &["status", "dns"]).stdout;
    wait_until(LINK_WITHIN, || format!("its name: {}", named()), || named().contains("blue"));

    // The same without a start of the host: another namespace has the name now.
    end_all(&world);
    drop(namespace);
    named::remove(&blue.0).unwrap();
    let namespace = blue.make();
    world.launch(0, &[]);
    wait_until(LINK_WITHIN, || format!("{} are remembered", remembered()), || remembered() == 0);
    assert_eq!(attached(&namespace), None);
}
