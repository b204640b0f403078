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

/// Makes the image, as an archive in `directory`.
#[track_caller]
pub(super) fn make(directory: &Path) -> PathBuf {
    let root = directory.join("image");
    for directory in ["bin", "tmp", "etc"] {
        fs::create_dir_all(root.join(directory)).unwrap();
    }
    let busybox = find(BUSYBOX);
    fs::copy(&busybox, root.join("bin").join(BUSYBOX)).unwrap();
    let applets = output(Command::new(&busybox).arg("--list"));
    let is_other = |name: &str| name == BUSYBOX || PROGRAMS.iter().any(|(_, other)| *other == name);
    for applet in applets.lines().filter(|applet| !is_other(applet)) {
        symlink(BUSYBOX, root.join("bin").join(applet)).unwrap();
    }
    for (program, name) in PROGRAMS {
        let program = find(program);
        fs::copy(&program, root.join("bin").join(name)).unwrap();
        for library in libraries(&program) {
            let copy = root.join(library.trim_start_matches('/'));
            fs::create_dir_all(copy.parent().unwrap()).unwrap();
            fs::copy(&library, copy).unwrap();
        }
    }
    let archive = directory.join("image.tar");
    output(Command::new("tar").arg("-C").arg(&root).arg("-cf").arg(&archive).arg("."));
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
