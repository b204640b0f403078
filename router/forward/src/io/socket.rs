//! The UDP sockets of a router: one group on the mesh port, one source port a lane.

use super::address::Family;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind, getsockname, setsockopt, socket, sockopt,
};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};
use weave_wire::outer::LANE_OFFSET;

/// Kernel buffer asked for in each direction of each data socket, bytes. With
/// the usual 208 KiB a burst of super-frames is lost before it is read.
pub const SOCKET_BUFFER: usize = 8 << 20;
/// Kernel buffers of the control sockets, bytes.
const CONTROL_BUFFER: usize = 1 << 20;
/// How long the port may stay taken by a router that was killed.
const PORT_RELEASED: Duration = Duration::from_secs(2);
/// How often it is tried meanwhile.
const PORT_TRIED: Duration = Duration::from_millis(10);

/// A socket could not be made as needed.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Somebody else has the port.
    #[error("UDP port {0} is in use by another program: choose another with --port, or stop that program")]
    InUse(u16),
    /// The address to bind is not one of this host's.
    #[error("{0} is not an address of this host: give --host one that `ip address` shows")]
    NotOurs(IpAddr),
    /// Anything else.
    #[error("{step} of a UDP socket on {address} failed: {errno}")]
    Failed {
        /// What was tried.
        step: &'static str,
        /// On what.
        address: SocketAddr,
        /// The kernel's answer.
        errno: Errno,
    },
}

/// Sockets of the control core: lane 255.
#[derive(Debug)]
pub struct ControlSockets {
    /// On the mesh port, last of the group. One receive may bring several datagrams
    /// of one length, one behind the other (`UDP_GRO`).
    pub receive: UdpSocket,
    /// With a source port of its own.
    pub send: UdpSocket,
}

/// All UDP sockets of a router.
#[derive(Debug)]
pub struct SocketSet {
    /// What all of them can reach.
    pub family: Family,
    /// The mesh port, known now also if 0 was asked for.
    pub port: u16,
    /// One a shard, on the mesh port.
    pub receive: Vec<OwnedFd>,
    /// One a shard; shard 0 sends from the mesh port.
    pub send: Vec<OwnedFd>,
    /// The control core's.
    pub control: ControlSockets,
    /// True if the kernel gave the buffers asked for.
    pub large_buffers: bool,
}

impl SocketSet {
    /// The same sockets once more: a port below 1024, and buffers past the host's
    /// limits, are given to the privileged only.
    ///
    /// # Errors
    /// The kernel's.
    pub fn try_clone(&self) -> io::Result<Self> {
        let all = |sockets: &[OwnedFd]| sockets.iter().map(OwnedFd::try_clone).collect::<io::Result<_>>();
        let control = ControlSockets {
            receive: self.control.receive.try_clone()?,
            send: self.control.send.try_clone()?,
        };
        Ok(Self { receive: all(&self.receive)?, send: all(&self.send)?, control, ..*self })
    }
}

/// Family and address to bind.
fn place(host: Option<IpAddr>, port: u16) -> (Family, SocketAddr) {
    let family = match host {
        Some(IpAddr::V4(_)) => Family::V4,
        Some(IpAddr::V6(_)) => Family::Dual,
        None if try_bind(Family::Dual, SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 0)).is_ok() => {
            Family::Dual
        }
        None => Family::V4,
    };
    let any = match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        Family::Dual => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    (family, SocketAddr::new(host.unwrap_or(any), port))
}

/// Opens the sockets of `shards` shards and the control core on `port` of
/// `host`, or of all addresses.
///
/// # Errors
/// [`SocketError`]; nothing stays open.
pub fn open(host: Option<IpAddr>, port: u16, shards: usize, gro: bool) -> Result<SocketSet, SocketError> {
    let (family, mut address) = place(host, port);
    // A socket of another program would take part of our datagrams: see that the
    // port is free before sharing it among ourselves.
    drop(await_port(family, address)?);

    let mut large_buffers = true;
    let mut grouped = |buffer: usize, gro: bool| -> Result<OwnedFd, SocketError> {
        let fd = new_socket(family, address)?;
        check("SO_REUSEPORT", address, setsockopt(&fd, sockopt::ReusePort, &true))?;
        large_buffers &= set_buffers(&fd, buffer);
        if gro {
            check("UDP_GRO", address, setsockopt(&fd, sockopt::UdpGroSegment, &true))?;
        }
        check("SO_RXQ_OVFL", address, setsockopt(&fd, sockopt::RxqOvfl, &1))?;
        bind_to(&fd, address)?;
        if address.port() == 0 {
            let bound = check("getsockname", address, getsockname::<SockaddrStorage>(fd.as_raw_fd()))?;
            let port = bound
                .as_sockaddr_in6()
                .map(|a| a.port())
                .or_else(|| bound.as_sockaddr_in().map(|a| a.port()));
            address.set_port(port.unwrap_or(0));
        }
        Ok(fd)
    };
    let receive = (0..shards).map(|_| grouped(SOCKET_BUFFER, gro)).collect::<Result<Vec<_>, _>>()?;
    // Joining too: while the kernel joins datagrams it knows the group by the hash
    // of the address pair only. A member that did not join would switch joining off
    // for all pairs whose hash is its own.
    let control_receive = grouped(CONTROL_BUFFER, gro)?;
    if let Some(first) = receive.first() {
        attach_steering(first, shards, address)?;
    }

    let source = SocketAddr::new(address.ip(), 0);
    let own_port = |buffer: usize| -> Result<OwnedFd, SocketError> {
        let fd = new_socket(family, source)?;
        set_buffers(&fd, buffer);
        bind_to(&fd, source)?;
        Ok(fd)
    };
    let mut send = Vec::with_capacity(shards);
    for (shard, receive) in receive.iter().enumerate() {
        send.push(match shard {
            0 => check(
                "dup",
                source,
                receive.try_clone().map_err(|e| Errno::from_raw(e.raw_os_error().unwrap_or(0))),
            )?,
            _ => own_port(SOCKET_BUFFER)?,
        });
    }
    let control = ControlSockets { receive: control_receive.into(), send: own_port(CONTROL_BUFFER)?.into() };
    Ok(SocketSet { family, port: address.port(), receive, send, control, large_buffers })
}

fn check<T>(step: &'static str, address: SocketAddr, result: nix::Result<T>) -> Result<T, SocketError> {
    result.map_err(|errno| SocketError::Failed { step, address, errno })
}

fn new_socket(family: Family, address: SocketAddr) -> Result<OwnedFd, SocketError> {
    let domain = match family {
        Family::V4 => AddressFamily::Inet,
        Family::Dual => AddressFamily::Inet6,
    };
    let fd = check("socket", address, socket(domain, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None))?;
    // The path MTU is probed by ourselves: never fragment, never believe ICMP.
    check(
        "IP_MTU_DISCOVER",
        address,
        set_int(&fd, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_PROBE),
    )?;
    if family == Family::Dual {
        check("IPV6_V6ONLY", address, setsockopt(&fd, sockopt::Ipv6V6Only, &false))?;
        let probe = libc::IPV6_PMTUDISC_PROBE;
        check(
            "IPV6_MTU_DISCOVER",
            address,
            set_int(&fd, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, probe),
        )?;
    }
    Ok(fd)
}

fn bind_to(fd: &OwnedFd, address: SocketAddr) -> Result<(), SocketError> {
    match bind(fd.as_raw_fd(), &SockaddrStorage::from(address)) {
        Ok(()) => Ok(()),
        Err(Errno::EADDRINUSE) => Err(SocketError::InUse(address.port())),
        Err(Errno::EADDRNOTAVAIL) => Err(SocketError::NotOurs(address.ip())),
        Err(errno) => Err(SocketError::Failed { step: "bind", address, errno }),
    }
}

fn try_bind(family: Family, address: SocketAddr) -> Result<OwnedFd, SocketError> {
    let fd = new_socket(family, address)?;
    bind_to(&fd, address)?;
    Ok(fd)
}

/// Waits for a port that a router which was killed still holds: the kernel takes
/// its rings down, and the sockets in them, after the process has gone.
fn await_port(family: Family, address: SocketAddr) -> Result<OwnedFd, SocketError> {
    let deadline = Instant::now() + PORT_RELEASED;
    loop {
        match try_bind(family, address) {
            Err(SocketError::InUse(_)) if Instant::now() < deadline => std::thread::sleep(PORT_TRIED),
            result => return result,
        }
    }
}

/// Asks for large buffers, past the host's limits where allowed; false if the
/// kernel gave less.
fn set_buffers(fd: &OwnedFd, size: usize) -> bool {
    for (force, plain) in [
        (setsockopt(fd, sockopt::RcvBufForce, &size), true),
        (setsockopt(fd, sockopt::SndBufForce, &size), false),
    ] {
        if force.is_err() {
            let _ = if plain {
                setsockopt(fd, sockopt::RcvBuf, &size)
            } else {
                setsockopt(fd, sockopt::SndBuf, &size)
            };
        }
    }
    // The kernel reports twice what may be used.
    nix::sys::socket::getsockopt(fd, sockopt::RcvBuf).is_ok_and(|given| given >= size)
}

fn set_int(fd: &OwnedFd, level: i32, name: i32, value: i32) -> nix::Result<()> {
    // SAFETY: the option's value is an int, whose address and size are given;
    // the kernel copies it before it returns.
    let result = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            size_of::<i32>() as libc::socklen_t,
        )
    };
    Errno::result(result).map(drop)
}

/// The steering program (classic BPF, `SO_ATTACH_REUSEPORT_CBPF`): the socket of
/// the shard `lane mod shards`; behind them the control core's for lane 255. A
/// datagram too short to have a lane goes to shard 0, which drops it.
#[must_use]
pub fn steering_program(shards: usize) -> [libc::sock_filter; 5] {
    #[expect(clippy::cast_possible_truncation, reason = "at most 64 shards")]
    let count = shards.max(1) as u32;
    let op = |code: u32, jt: u8, jf: u8, k: u32| libc::sock_filter { code: code as u16, jt, jf, k };
    [
        op(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS, 0, 0, LANE_OFFSET as u32),
        op(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, u32::from(weave_wire::Lane::CONTROL.number())),
        op(libc::BPF_RET | libc::BPF_K, 0, 0, count),
        op(libc::BPF_ALU | libc::BPF_MOD | libc::BPF_K, 0, 0, count),
        op(libc::BPF_RET | libc::BPF_A, 0, 0, 0),
    ]
}

fn attach_steering(fd: &OwnedFd, shards: usize, address: SocketAddr) -> Result<(), SocketError> {
    let mut program = steering_program(shards);
    let filter = libc::sock_fprog { len: 5, filter: program.as_mut_ptr() };
    check("SO_ATTACH_REUSEPORT_CBPF", address, setsockopt(fd, sockopt::AttachReusePortCbpf, &filter))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::time::Duration;

    #[test]
    fn every_lane_reaches_its_shard_and_255_the_control_core() {
        for shards in [1usize, 2, 3, 4] {
            let set = open(Some(Ipv4Addr::LOCALHOST.into()), 0, shards, true).unwrap();
            let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
            let sockets: Vec<UdpSocket> = set
                .receive
                .iter()
                .map(|fd| UdpSocket::from(fd.try_clone().unwrap()))
                .chain([set.control.receive.try_clone().unwrap()])
                .collect();
            for socket in &sockets {
                socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
            }
            for lane in 0..=255u8 {
                let owner = if lane == 255 { shards } else { usize::from(lane) % shards };
                sender.send_to(&[0x10, lane, 0, 0], ("127.0.0.1", set.port)).unwrap();
                let mut buffer = [0; 16];
                let len = sockets[owner].recv(&mut buffer).unwrap();
                assert_eq!(&buffer[..len], [0x10, lane, 0, 0], "{shards} shards, lane {lane}");
            }
            sender.send_to(&[1], ("127.0.0.1", set.port)).unwrap();
            assert_eq!(sockets[0].recv(&mut [0; 16]).unwrap(), 1);
        }
    }

    #[test]
    fn every_member_of_the_group_joins_or_none() {
        for gro in [true, false] {
            let set = open(Some(Ipv4Addr::LOCALHOST.into()), 0, 2, gro).unwrap();
            let joins = |fd: &OwnedFd| nix::sys::socket::getsockopt(fd, sockopt::UdpGroSegment).unwrap();
            let control = OwnedFd::from(set.control.receive);
            assert!(set.receive.iter().chain([&control]).all(|fd| joins(fd) == gro));
        }
    }

    #[test]
    fn a_port_in_use_is_refused() {
        let set = open(Some(Ipv4Addr::LOCALHOST.into()), 0, 2, true).unwrap();
        assert!(
            matches!(open(Some(Ipv4Addr::LOCALHOST.into()), set.port, 2, true), Err(SocketError::InUse(port)) if port == set.port)
        );
    }

    #[test]
    fn a_foreign_address_is_refused() {
        let foreign = Ipv4Addr::new(192, 0, 2, 1).into();
        assert!(matches!(open(Some(foreign), 0, 1, true), Err(SocketError::NotOurs(_))));
    }
}
