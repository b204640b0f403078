//! Calls that neither std nor nix wrap. The only unsafe code beside `packet`.

use std::io;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout};

/// A descriptor for the process `pid`, which stays its own when the number is used again.
pub(crate) fn pidfd_open(pid: u32) -> io::Result<OwnedFd> {
    let pid = libc::pid_t::try_from(pid).map_err(|_| io::Error::from_raw_os_error(libc::ESRCH))?;
    // SAFETY: pidfd_open(2) takes two integers and touches no memory of ours.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let fd = i32::try_from(fd).map_err(|_| io::Error::from_raw_os_error(libc::EBADF))?;
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just given us this descriptor; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Keeps every descriptor but the three standard ones from the programs that this process starts from now on:
/// those of whoever started it, that is, since ours are made so. A daemon would hold them as long as it runs,
/// such as the lock of `flock FILE weave launch`, or a pipe whose reader waits for its end.
///
/// # Errors
/// The kernel's.
pub fn keep_descriptors() -> io::Result<()> {
    // SAFETY: close_range(2) takes three integers and touches no memory of ours; with this flag it closes
    // nothing.
    let result = unsafe { libc::close_range(3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC.cast_signed()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Whether something keeps the clock of this host right, as the kernel knows (adjtimex(2)).
///
/// # Errors
/// The kernel's.
pub fn is_clock_kept() -> io::Result<bool> {
    // SAFETY: all zero is a valid `timex`: integers, and modes that change nothing.
    let mut state: libc::timex = unsafe { mem::zeroed() };
    // SAFETY: the pointer is to a `timex` of ours that lives through the call.
    let result = unsafe { libc::adjtimex(&raw mut state) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(state.status & libc::STA_UNSYNC == 0) }
}

/// Sends `signal` to the process behind `pidfd`.
pub(crate) fn pidfd_signal(pidfd: BorrowedFd<'_>, signal: libc::c_int) -> io::Result<()> {
    // SAFETY: the null siginfo pointer is allowed (the kernel fills in its own),
    // the other arguments are integers.
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The cookie of the network namespace that a socket was made in.
pub(crate) fn netns_cookie(socket: BorrowedFd<'_>) -> io::Result<u64> {
    let mut cookie = 0_u64;
    let mut length = mem::size_of_val(&cookie) as libc::socklen_t;
    // SAFETY: both pointers are to values that live through the call, and `length` is the size of the
    // first, which any 8 bytes are a valid value of.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(cookie) }
}

/// The hardware address of an Ethernet interface of this thread's namespace (netdevice(7)).
pub(crate) fn hardware_address(interface: &str) -> io::Result<[u8; 6]> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    // SAFETY: ifreq consists of integers, arrays and pointers, for which zero is a value.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    if interface.len() >= request.ifr_name.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (to, from) in request.ifr_name.iter_mut().zip(interface.bytes()) {
        *to = from as libc::c_char;
    }
    // SAFETY: `request` lives through the call, which fills it in.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFHWADDR, &raw mut request) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call has filled in the address.
    let address = unsafe { request.ifr_ifru.ifru_hwaddr };
    let mut bytes = [0; 6];
    for (to, from) in bytes.iter_mut().zip(address.sa_data) {
        *to = from as u8;
    }
    Ok(bytes)
}

/// How many entries each legacy table of the firewall has, of the tables in use. Asking for
/// one that is not in use would load it.
#[cfg(feature = "engine")]
pub(crate) fn legacy_entries() -> Vec<(String, u32)> {
    let mut counts = Vec::new();
    for (names, family, level, option) in [
        ("/proc/net/ip_tables_names", libc::AF_INET, libc::IPPROTO_IP, IPT_SO_GET_INFO),
        ("/proc/net/ip6_tables_names", libc::AF_INET6, libc::IPPROTO_IPV6, IPT_SO_GET_INFO),
    ] {
        let names = std::fs::read_to_string(names).unwrap_or_default();
        for table in names.lines() {
            if let Ok(entries) = legacy_table_entries(table, family, level, option) {
                counts.push((format!("{family} {table}"), entries));
            }
        }
    }
    counts
}

/// `IPT_SO_GET_INFO` and `IP6T_SO_GET_INFO` (linux/netfilter_ipv4/ip_tables.h).
#[cfg(feature = "engine")]
const IPT_SO_GET_INFO: libc::c_int = 64;

/// `struct ipt_getinfo`, the same as `struct ip6t_getinfo`.
#[cfg(feature = "engine")]
#[repr(C)]
struct TableInfo {
    name: [u8; 32],
    valid_hooks: u32,
    hook_entry: [u32; 5],
    underflow: [u32; 5],
    num_entries: u32,
    size: u32,
}

#[cfg(feature = "engine")]
fn legacy_table_entries(
    table: &str,
    family: libc::c_int,
    level: libc::c_int,
    option: libc::c_int,
) -> io::Result<u32> {
    let mut info = TableInfo {
        name: [0; 32],
        valid_hooks: 0,
        hook_entry: [0; 5],
        underflow: [0; 5],
        num_entries: 0,
        size: 0,
    };
    // The last byte stays zero: the kernel reads a string.
    for (place, byte) in info.name.iter_mut().take(31).zip(table.bytes()) {
        *place = byte;
    }
    // SAFETY: socket(2) takes integers and touches no memory of ours.
    let fd = unsafe { libc::socket(family, libc::SOCK_RAW | libc::SOCK_CLOEXEC, libc::IPPROTO_RAW) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just given us this descriptor; nobody else owns it.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    let mut len = mem::size_of::<TableInfo>() as libc::socklen_t;
    // SAFETY: `info` is plain integers, lives across the call and is `len` bytes long, of which
    // the kernel reads the name and writes at most all.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            level,
            option,
            (&raw mut info).cast::<libc::c_void>(),
            &raw mut len,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(info.num_entries) }
}

/// Waits until `fd` can be read or `deadline` has passed; says whether it can be read.
pub(crate) fn wait_readable(fd: BorrowedFd<'_>, deadline: Instant) -> io::Result<bool> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        // Rounded up, so that the last millisecond is waited and not spun through.
        let timeout = PollTimeout::try_from(left + Duration::from_micros(999)).unwrap_or(PollTimeout::MAX);
        let mut fds = [PollFd::new(fd, PollFlags::POLLIN)];
        match nix::poll::poll(&mut fds, timeout) {
            Ok(0) if Instant::now() >= deadline => return Ok(false),
            Ok(0) | Err(nix::errno::Errno::EINTR) => {}
            Ok(_) => return Ok(true),
            Err(error) => return Err(error.into()),
        }
    }
}

/// `NS_GET_NSTYPE` of ioctl_nsfs(2): the `CLONE_NEW*` flag of a namespace descriptor.
pub(crate) fn namespace_type(fd: BorrowedFd<'_>) -> io::Result<libc::c_int> {
    const NS_GET_NSTYPE: libc::Ioctl = 0xb703;
    // SAFETY: this request takes no argument; it only reads what `fd` stands for.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), NS_GET_NSTYPE) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Socket for raw frames of one interface (packet(7)), bound to it; `ethertype`
/// 0 receives nothing, for senders.
pub(crate) fn packet_socket(ifindex: u32, ethertype: u16) -> io::Result<OwnedFd> {
    // SAFETY: socket(2) takes integers only.
    let fd = unsafe {
        libc::socket(
            libc::AF_PACKET,
            libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK,
            0, // No protocol yet: nothing is received before the bind below.
        )
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just given us this descriptor; nobody else owns it.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: sockaddr_ll consists of integers and byte arrays, for which zero is a value.
    let mut address: libc::sockaddr_ll = unsafe { mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = ethertype.to_be();
    address.sll_ifindex = i32::try_from(ifindex).map_err(|_| io::Error::from_raw_os_error(libc::ENODEV))?;
    // SAFETY: the pointer and the length describe `address`, which lives through the call.
    let result = unsafe {
        libc::bind(
            socket.as_raw_fd(),
            (&raw const address).cast(),
            mem::size_of::<libc::sockaddr_ll>() as libc::socklen_t,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(socket) }
}

nix::ioctl_read! {
    /// `TUNGETVNETHDRSZ`: length of the virtio-net header before each frame.
    tun_get_vnet_hdr_len, b'T', 215, libc::c_int
}
nix::ioctl_read_bad! {
    /// `TUNGETIFF`: which device a queue belongs to; `EBADFD` for none. The kernel's number is for an
    /// `unsigned int`, what it writes is an `ifreq`.
    tun_get_iff, nix::request_code_read!(b'T', 210, mem::size_of::<libc::c_uint>()), libc::ifreq
}
nix::ioctl_readwrite_bad! {
    /// `TUNSETIFF`: makes a queue one of a device, which is made if need be. The kernel's number is
    /// for an `int`, what it reads and writes is an `ifreq`.
    tun_set_iff, nix::request_code_write!(b'T', 202, mem::size_of::<libc::c_int>()), libc::ifreq
}
nix::ioctl_write_ptr! {
    /// `TUNSETVNETHDRSZ`.
    tun_set_vnet_hdr_len, b'T', 216, libc::c_int
}
nix::ioctl_write_int! {
    /// `TUNSETPERSIST`: whether the device stays when its last queue is closed.
    tun_set_persist, b'T', 203
}
nix::ioctl_write_int! {
    /// `TUNSETOFFLOAD`: what the reader of the device can take; the mask is device-wide.
    tun_set_offload, b'T', 208
}
