//! System calls that a daemon never makes, refused by the kernel (seccomp(2)): who takes the
//! router over runs no other program, reaches no other process or namespace and loads nothing
//! into the kernel with it. Files that root may open without a capability stay within reach, also
//! by a new ring, whose operations no filter sees (the rings of the shards are limited by
//! themselves). The keeper runs programs and enters namespaces; the rest is refused to it, too.
//!
//! A list of what is refused, not of what is allowed: a library that begins to use another call
//! must not end a daemon.

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, apply_filter,
};
use std::collections::BTreeMap;

/// Whose calls are filtered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Process {
    /// The router.
    Router,
    /// The keeper and what it runs: the programs of the firewall, the DNS.
    Keeper,
}

/// Calls refused to every daemon, whatever their arguments.
const REFUSED: &[libc::c_long] = &[
    // Other processes.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    // File systems and devices.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_mknodat,
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    libc::SYS_quotactl,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    // The kernel itself.
    libc::SYS_kexec_load,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_syslog,
    libc::SYS_acct,
    libc::SYS_reboot,
    libc::SYS_personality,
    // The machine's clock and name.
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_adjtimex,
    libc::SYS_clock_adjtime,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
];
/// Those that only this architecture has.
#[cfg(target_arch = "x86_64")]
const REFUSED_HERE: &[libc::c_long] =
    &[libc::SYS_mknod, libc::SYS_kexec_file_load, libc::SYS_iopl, libc::SYS_ioperm, libc::SYS_modify_ldt];
#[cfg(not(target_arch = "x86_64"))]
const REFUSED_HERE: &[libc::c_long] = &[];
/// What the keeper does and the router never: other programs, processes, namespaces; modules, which
/// `iptables` loads.
const ROUTER_REFUSED: &[libc::c_long] = &[
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_pidfd_send_signal,
    libc::SYS_rt_sigqueueinfo,
    libc::SYS_rt_tgsigqueueinfo,
    libc::SYS_tkill,
    libc::SYS_setns,
    libc::SYS_unshare,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
];
/// Those that only this architecture has.
#[cfg(target_arch = "x86_64")]
const ROUTER_REFUSED_HERE: &[libc::c_long] = &[libc::SYS_fork, libc::SYS_vfork];
#[cfg(not(target_arch = "x86_64"))]
const ROUTER_REFUSED_HERE: &[libc::c_long] = &[];
/// What the router does and the keeper never: no filter sees what a ring does.
const KEEPER_REFUSED: &[libc::c_long] =
    &[libc::SYS_io_uring_setup, libc::SYS_io_uring_enter, libc::SYS_io_uring_register];

/// Commands of fcntl(2) that have the kernel send a signal to another process, and which signal.
const OWNER_COMMANDS: &[libc::c_int] = &[libc::F_SETOWN, F_SETOWN_EX, F_SETSIG];
/// Of linux/fcntl.h (asm-generic); `libc` does not have them.
const F_SETSIG: libc::c_int = 10;
const F_SETOWN_EX: libc::c_int = 15;
/// The same by ioctl(2), for sockets: `FIOSETOWN`, `SIOCSPGRP` (asm-generic/sockios.h).
const OWNER_IOCTLS: &[libc::c_int] = &[0x8901, 0x8902];

/// Families of sockets that are made: the control socket, the underlay, and netlink to read
/// which addresses there are.
const FAMILIES: &[libc::c_int] = &[libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];
/// The same for the keeper, which asks whether an address is taken.
const KEEPER_FAMILIES: &[libc::c_int] =
    &[libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK, libc::AF_PACKET];

/// Why there is no filter.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SeccompError {
    /// The library knows no such processor.
    #[error("this processor is not known to the filter")]
    Processor,
    /// The filter cannot be made or the kernel refuses it.
    #[error(transparent)]
    Filter(#[from] seccompiler::Error),
    /// A part of it cannot be made.
    #[error(transparent)]
    Part(#[from] seccompiler::BackendError),
}

/// Filters the calls of this thread, and of all that it starts, for good. Needs
/// `no_new_privs`.
pub(crate) fn restrict(process: Process) -> Result<(), SeccompError> {
    for filter in filters(process)? {
        apply_filter(&filter)?;
    }
    Ok(())
}

/// Refuses calls by the numbers of the x32 ABI, under which the others would not be known.
#[cfg(target_arch = "x86_64")]
fn x32() -> BpfProgram {
    const LOAD_NUMBER: u16 = 0x20;
    const JUMP_IF_AT_LEAST: u16 = 0x35;
    const RETURN: u16 = 0x06;
    const X32: u32 = 0x4000_0000;
    let step = |code, jt, jf, k| seccompiler::sock_filter { code, jt, jf, k };
    vec![
        step(LOAD_NUMBER, 0, 0, 0),
        step(JUMP_IF_AT_LEAST, 0, 1, X32),
        step(RETURN, 0, 0, libc::SECCOMP_RET_ERRNO | libc::EPERM.unsigned_abs()),
        step(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW),
    ]
}

fn filters(process: Process) -> Result<Vec<BpfProgram>, SeccompError> {
    let (more, families) = match process {
        Process::Router => ([ROUTER_REFUSED, ROUTER_REFUSED_HERE].concat(), FAMILIES),
        Process::Keeper => (KEEPER_REFUSED.to_vec(), KEEPER_FAMILIES),
    };
    let refused = REFUSED.iter().chain(REFUSED_HERE).chain(&more);
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = refused.map(|call| (*call, Vec::new())).collect();
    let arg = |number, op, value: u64| SeccompCondition::new(number, SeccompCmpArgLen::Dword, op, value);
    let family = |family: &libc::c_int| arg(0, SeccompCmpOp::Ne, family.unsigned_abs().into());
    let none_of = families.iter().map(family).collect::<Result<_, _>>()?;
    rules.insert(libc::SYS_socket, vec![SeccompRule::new(none_of)?]);
    // Signals by way of a descriptor, and limits that end a process: root's user may do that to all of its
    // processes without a capability.
    for (call, commands) in [(libc::SYS_fcntl, OWNER_COMMANDS), (libc::SYS_ioctl, OWNER_IOCTLS)] {
        let is = |command: &libc::c_int| {
            SeccompRule::new(vec![arg(1, SeccompCmpOp::Eq, command.unsigned_abs().into())?])
        };
        rules.insert(call, commands.iter().map(is).collect::<Result<_, _>>()?);
    }
    let own = std::process::id().into();
    let of_another = vec![arg(0, SeccompCmpOp::Ne, 0)?, arg(0, SeccompCmpOp::Ne, own)?];
    rules.insert(libc::SYS_prlimit64, vec![SeccompRule::new(of_another)?]);
    let mut filters = Vec::new();
    if process == Process::Router {
        // Threads may be started, processes not.
        let thread = u64::from(libc::CLONE_THREAD.unsigned_abs());
        let forks = arg(0, SeccompCmpOp::MaskedEq(thread), 0)?;
        rules.insert(libc::SYS_clone, vec![SeccompRule::new(vec![forks])?]);
        // Signals to this process only.
        for call in [libc::SYS_kill, libc::SYS_tgkill] {
            let elsewhere = arg(0, SeccompCmpOp::Ne, own)?;
            rules.insert(call, vec![SeccompRule::new(vec![elsewhere])?]);
        }
        // Its arguments lie in memory, where no filter looks; libraries take the former call then.
        filters.push(compile(BTreeMap::from([(libc::SYS_clone3, Vec::new())]), libc::ENOSYS)?);
    }
    filters.push(compile(rules, libc::EPERM)?);
    #[cfg(target_arch = "x86_64")]
    filters.push(x32());
    Ok(filters)
}

fn compile(rules: BTreeMap<i64, Vec<SeccompRule>>, errno: libc::c_int) -> Result<BpfProgram, SeccompError> {
    let target = TargetArch::try_from(std::env::consts::ARCH).map_err(|_| SeccompError::Processor)?;
    let refuse = SeccompAction::Errno(errno.unsigned_abs());
    Ok(SeccompFilter::new(rules, SeccompAction::Allow, refuse, target)?.try_into()?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use nix::sched::{CloneFlags, unshare};
    use std::net::UdpSocket;
    use std::os::fd::AsRawFd;
    use std::process::Command;

    /// Ways to have the kernel end another process: a signal by way of a descriptor, a limit.
    fn assert_refuses_ways_to_end_others() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let (descriptor, parent) = (socket.as_raw_fd(), nix::unistd::Pid::parent().as_raw());
        let errno = || std::io::Error::last_os_error().raw_os_error();
        let owner: [libc::c_int; 2] = [1, parent];
        // SAFETY: those of fcntl take a number, but for F_SETOWN_EX, which reads two of them (struct
        // f_owner_ex); the descriptor is open.
        let by_fcntl = unsafe {
            [
                (libc::fcntl(descriptor, libc::F_SETOWN, parent), errno()),
                (libc::fcntl(descriptor, F_SETSIG, libc::SIGKILL), errno()),
                (libc::fcntl(descriptor, F_SETOWN_EX, owner.as_ptr()), errno()),
            ]
        };
        assert_eq!(by_fcntl, [(-1, Some(libc::EPERM)); 3]);
        for request in [0x8901, 0x8902] {
            // SAFETY: both read one number; the descriptor is open.
            let result = unsafe { libc::ioctl(descriptor, request, &raw const parent) };
            assert_eq!((result, errno()), (-1, Some(libc::EPERM)));
        }
        let limit = |pid| {
            // SAFETY: without a new limit and a place for the old one nothing is read or written.
            let result =
                unsafe { libc::prlimit(pid, libc::RLIMIT_CPU, std::ptr::null(), std::ptr::null_mut()) };
            (result, errno())
        };
        assert_eq!(limit(parent), (-1, Some(libc::EPERM)));
        assert_eq!((limit(0).0, limit(std::process::id().cast_signed()).0), (0, 0));
        // What else descriptors are asked for goes on.
        socket.set_nonblocking(true).unwrap();
        socket.try_clone().unwrap();
    }

    #[test]
    fn a_keeper_ends_no_process_by_a_descriptor_or_a_limit() {
        std::thread::spawn(|| {
            rustix::thread::set_no_new_privs(true).unwrap();
            restrict(Process::Keeper).unwrap();
            assert_refuses_ways_to_end_others();
            // And runs programs.
            assert!(Command::new("/bin/true").status().unwrap().success());
        })
        .join()
        .unwrap();
    }

    #[test]
    fn what_a_router_never_does_is_refused_and_the_rest_goes_on() {
        std::thread::spawn(|| {
            rustix::thread::set_no_new_privs(true).unwrap();
            restrict(Process::Router).unwrap();
            let refused = |error: Option<i32>| assert_eq!(error, Some(libc::EPERM));
            refused(Command::new("/bin/true").spawn().unwrap_err().raw_os_error());
            refused(unshare(CloneFlags::CLONE_NEWNET).err().map(|error| error as i32));
            refused(
                rustix::fs::mknodat(
                    rustix::fs::CWD,
                    "/tmp/never",
                    rustix::fs::FileType::CharacterDevice,
                    rustix::fs::Mode::empty(),
                    1,
                )
                .err()
                .map(|error| error.raw_os_error()),
            );
            let packets =
                rustix::net::socket(rustix::net::AddressFamily::PACKET, rustix::net::SocketType::RAW, None);
            refused(packets.err().map(|error| error.raw_os_error()));
            let parent = nix::unistd::Pid::parent();
            refused(nix::sys::signal::kill(parent, None).err().map(|error| error as i32));
            nix::sys::signal::kill(nix::unistd::Pid::this(), None).unwrap();
            assert_refuses_ways_to_end_others();
            UdpSocket::bind("127.0.0.1:0").unwrap();
            nix::ifaddrs::getifaddrs().unwrap();
            #[cfg(target_arch = "x86_64")]
            {
                // SAFETY: getpid takes no argument and touches no memory, whatever ABI it is of.
                let result = unsafe { libc::syscall(libc::SYS_getpid | 0x4000_0000) };
                assert_eq!((result, std::io::Error::last_os_error().raw_os_error()), (-1, Some(libc::EPERM)));
            }
            // Threads are started as ever, and inherit it.
            let inherited =
                std::thread::spawn(|| Command::new("/bin/true").spawn().unwrap_err().raw_os_error());
            refused(inherited.join().unwrap());
        })
        .join()
        .unwrap();
    }
}
