//! The way out that drops nothing. A process of its own, since it ends every lab of the process.
//! Needs root.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::Path;

use weave_host::PidFd;
use weave_perf::lab::{Lab, LabOptions, cleanup};

#[test]
fn cleanup_ends_every_lab_of_the_process() {
    let options = LabOptions { named: true, ..LabOptions::default() };
    let labs = [Lab::new(&options).unwrap(), Lab::pair().unwrap()];
    let mut processes = Vec::new();
    for lab in &labs {
        let mut command = lab.host(0).command("sleep");
        let process = lab.host(0).spawn(command.arg("60")).unwrap();
        processes.push(PidFd::open(process.pid()).unwrap().unwrap());
        // As when the thread that holds it never runs again.
        std::mem::forget(process);
    }
    let name = labs[0].directory().file_name().unwrap().to_str().unwrap().to_owned();
    let names = || {
        let named = std::fs::read_dir(Path::new(weave_host::namespace::NAMED_DIR)).unwrap();
        named.filter(|entry| entry.as_ref().unwrap().file_name().to_str().unwrap().starts_with(&name)).count()
    };
    assert_eq!(names(), 2);
    cleanup();
    cleanup();
    assert!(processes.iter().all(|process| !process.is_alive()));
    assert!(labs.iter().all(|lab| !lab.directory().exists()));
    assert_eq!(names(), 0);
}
