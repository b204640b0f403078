//! The image of all containers: busybox, and netcat and shell of Debian with their libraries. The
//! shell of busybox takes its own netcat, whatever there is, and that has neither `-k` nor `-u`.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What is made from programs of this machine.
const BUSYBOX: &str = "busybox";
/// Programs and what they are called in the image.
const PROGRAMS: [(&str, &str); 2] = [("nc.openbsd", "nc"), ("dash", "sh")];
/// The same of the image that asks for names, beside the others.
const NAME_PROGRAMS: [(&str, &str); 5] =
    [PROGRAMS[0], PROGRAMS[1], ("dig", "dig"), ("getent", "getent"), ("curl", "curl")];
/// A program of that image that asks as those do that are linked with musl.
const RESOLVE: &str = include_str!("resolve.c");
/// The compiler for it.
const MUSL: &str = "musl-gcc";

/// Makes the image, as an archive in `directory`.
#[track_caller]
pub(super) fn make(directory: &Path) -> PathBuf {
    let root = directory.join("image");
    fill(&root, &PROGRAMS);
    archive(&root)
}

/// Makes the image whose containers ask for names: with `dig`, `getent` and `curl` of glibc, and
/// `resolve` of musl.
#[track_caller]
pub(super) fn make_dnsutils(directory: &Path) -> PathBuf {
    let root = directory.join("dnsutils");
    fill(&root, &NAME_PROGRAMS);
    let source = directory.join("resolve.c");
    fs::write(&source, RESOLVE).unwrap();
    let program = root.join("bin/resolve");
    output(
        Command::new(find(MUSL)).args(["-static", "-O1", "-Wall", "-Werror", "-o"]).arg(program).arg(source),
    );
    archive(&root)
}

/// Puts programs into what is to be the root of an image.
#[track_caller]
fn fill(root: &Path, programs: &[(&str, &str)]) {
    for directory in ["bin", "tmp", "etc"] {
        fs::create_dir_all(root.join(directory)).unwrap();
    }
    let busybox = find(BUSYBOX);
    fs::copy(&busybox, root.join("bin").join(BUSYBOX)).unwrap();
    let applets = output(Command::new(&busybox).arg("--list"));
    let is_other = |name: &str| name == BUSYBOX || programs.iter().any(|(_, other)| *other == name);
    for applet in applets.lines().filter(|applet| !is_other(applet)) {
        symlink(BUSYBOX, root.join("bin").join(applet)).unwrap();
    }
    for (program, name) in programs {
        let program = find(program);
        fs::copy(&program, root.join("bin").join(name)).unwrap();
        for library in libraries(&program) {
            let copy = root.join(library.trim_start_matches('/'));
            fs::create_dir_all(copy.parent().unwrap()).unwrap();
            fs::copy(&library, copy).unwrap();
        }
    }
}

#[track_caller]
fn archive(root: &Path) -> PathBuf {
    let archive = root.with_extension("tar");
    output(Command::new("tar").arg("-C").arg(root).arg("-cf").arg(&archive).arg("."));
    archive
}

/// Makes a directory with what every host has beside its own programs: `ping`.
#[track_caller]
pub(super) fn make_tools(directory: &Path) -> PathBuf {
    let tools = directory.join("tools");
    fs::create_dir(&tools).unwrap();
    symlink(find(BUSYBOX), tools.join("ping")).unwrap();
    tools
}

/// What a program of this machine is linked to, the loader included.
fn libraries(program: &Path) -> BTreeSet<String> {
    let text = output(Command::new("ldd").arg(program));
    text.split_whitespace().filter(|word| word.starts_with('/')).map(str::to_owned).collect()
}

#[track_caller]
pub(super) fn find(program: &str) -> PathBuf {
    let places = ["/bin", "/usr/bin", "/usr/local/bin"].map(|place| Path::new(place).join(program));
    let found = places.into_iter().find(|path| path.is_file());
    found.unwrap_or_else(|| panic!("{program} is missing: `scripts/install-deps` installs it"))
}

#[track_caller]
fn output(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}
