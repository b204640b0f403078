//! Named namespaces, side by side with iproute2. Needs root.

use std::process::Command;

use weave_host::{Error, Namespace, named};

fn unique(label: &str) -> String {
    format!("weave-test-{}-{label}", std::process::id())
}

fn ip_netns() -> String {
    String::from_utf8(Command::new("ip").arg("netns").output().unwrap().stdout).unwrap()
}

#[test]
fn names_are_shared_with_iproute2_both_ways() {
    let name = unique("ours");
    let made = named::create(&name).unwrap();
    assert!(ip_netns().contains(&name));
    let status = Command::new("ip").args(["-n", &name, "link", "set", "lo", "up"]).status().unwrap();
    assert!(status.success());
    let found = Namespace::open(&format!("netns:{name}").parse().unwrap()).unwrap();
    assert_eq!(found.id(), made.id());
    let again = named::create(&name).unwrap_err();
    assert_eq!(again.os_error(), Some(libc::EEXIST), "{again}");
    named::remove(&name).unwrap();
    assert!(!ip_netns().contains(&name));
    named::remove(&name).unwrap();

    let name = unique("theirs");
    assert!(Command::new("ip").args(["netns", "add", &name]).status().unwrap().success());
    let found = Namespace::open(&format!("netns:{name}").parse().unwrap()).unwrap();
    assert!(found.refuse_own().is_ok());
    named::remove(&name).unwrap();
    assert!(!ip_netns().contains(&name));
}

#[test]
fn bad_names_make_and_remove_nothing() {
    for name in ["", ".", "..", "a/b", "../x"] {
        assert!(matches!(named::create(name), Err(Error::Invalid { .. })), "{name}");
        assert!(matches!(named::remove(name), Err(Error::Invalid { .. })), "{name}");
    }
}

#[test]
fn a_name_that_is_no_namespace_is_said_to_be_none() {
    let name = unique("file");
    let path = std::path::Path::new(weave_host::namespace::NAMED_DIR).join(&name);
    named::create(&unique("makes-the-directory")).unwrap();
    named::remove(&unique("makes-the-directory")).unwrap();
    std::fs::write(&path, "").unwrap();
    let error = Namespace::open(&format!("netns:{name}").parse().unwrap()).unwrap_err();
    assert!(matches!(error, Error::NoNamespace { .. }), "{error}");
    named::remove(&name).unwrap();
    assert!(!path.exists());
}
