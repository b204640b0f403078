//! An attacker: a host of its own on the network of host 0, with eight addresses and no password.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;
use weave_host::address::cidr;
use weave_host::netlink::VethEnd;
use weave_host::{Namespace, Netlink};

use crate::World;
use crate::random::Random;
use crate::raw::{OFFLOAD, ROOM, RawSocket};

/// Addresses of the attacker: as many sources.
pub const SOURCES: u8 = 8;
/// Host 0 as the attacker sees it.
pub const VICTIM: Ipv4Addr = Ipv4Addr::new(10, 97, 0, 1);
const DEVICE: &str = "evil0";

/// What the attacker did and saw.
#[derive(Debug, Default)]
pub struct Tally {
    /// Datagrams sent.
    pub datagrams: AtomicU64,
    /// Connections made, or tried.
    pub connections: AtomicU64,
    /// Frames with UDP or ICMP that came back.
    pub answers: AtomicU64,
    /// Frames that came back at all: the kernel's answers to connections.
    pub frames: AtomicU64,
}

/// The attacker at work; dropping it ends it.
#[derive(Debug)]
pub struct Attack {
    over: Arc<AtomicBool>,
    tally: Arc<Tally>,
    threads: Vec<JoinHandle<()>>,
}

impl Attack {
    /// Joins the attacker to host 0 of `world` and begins: datagrams made of `genuine` ones and of
    /// nothing, and connections that say what nobody understands, as fast as they go.
    #[must_use]
    pub fn start(world: &World, port: u16, genuine: Vec<Vec<u8>>, random: &mut Random) -> Self {
        let evil = Namespace::create("attacker").unwrap();
        let victim = world.host(0).namespace();
        let mut netlink = Netlink::in_namespace(&evil).unwrap();
        let there = VethEnd { namespace: Some(victim), ..VethEnd::new(DEVICE) };
        netlink.create_veth(VethEnd::new(DEVICE), there, 1500).unwrap();
        let link = netlink.expect_link(DEVICE).unwrap();
        for source in 0..SOURCES {
            netlink.add_address(link.index, cidr(source_address(source).into(), 24).unwrap()).unwrap();
        }
        netlink.set_up(&link).unwrap();
        let mut netlink = Netlink::in_namespace(victim).unwrap();
        let link = netlink.expect_link(DEVICE).unwrap();
        netlink.add_address(link.index, cidr(VICTIM.into(), 24).unwrap()).unwrap();
        netlink.set_up(&link).unwrap();

        let (over, tally) = (Arc::<AtomicBool>::default(), Arc::<Tally>::default());
        let target = SocketAddr::from((VICTIM, port));
        let mut threads = Vec::new();
        let mut start = |work: Box<dyn FnOnce() + Send>| threads.push(std::thread::spawn(work));
        let sockets: Vec<UdpSocket> = evil
            .run(|| {
                (0..SOURCES).map(|source| UdpSocket::bind((source_address(source), 0)).unwrap()).collect()
            })
            .unwrap();
        let watch = evil.run(|| RawSocket::open(DEVICE)).unwrap();
        {
            let (over, tally, random) = (Arc::clone(&over), Arc::clone(&tally), Random::new(random.number()));
            start(Box::new(move || send_datagrams(&sockets, target, &genuine, random, &over, &tally)));
        }
        for source in 0..SOURCES {
            let (over, tally, random) = (Arc::clone(&over), Arc::clone(&tally), Random::new(random.number()));
            let (evil, source) = (evil.try_clone().unwrap(), source_address(source));
            start(Box::new(move || evil.run(|| connect_all(source, target, random, &over, &tally)).unwrap()));
        }
        {
            let (over, tally) = (Arc::clone(&over), Arc::clone(&tally));
            start(Box::new(move || look_for_answers(&watch, &over, &tally)));
        }
        Self { over, tally, threads }
    }

    /// What happened so far.
    #[must_use]
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Datagrams sent so far.
    #[must_use]
    pub fn datagrams(&self) -> u64 {
        self.tally.datagrams.load(Ordering::Relaxed)
    }

    /// Ends the attack, and the test too if the attacker had trouble of its own.
    #[must_use]
    pub fn finish(mut self) -> Arc<Tally> {
        self.over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        }
        Arc::clone(&self.tally)
    }
}

impl Drop for Attack {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn source_address(source: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 97, 0, 2 + source)
}

/// One bad datagram: noise, or a genuine one with something wrong.
fn mutate(genuine: &[Vec<u8>], random: &mut Random, out: &mut Vec<u8>) {
    out.clear();
    let kind = random.below(10);
    if kind < 2 || genuine.is_empty() {
        let len = random.below(1472) as usize;
        while out.len() < len {
            out.extend(random.number().to_le_bytes());
        }
        if kind == 1 && out.len() > 16 {
            // With a header that looks right.
            out[..4].copy_from_slice(&[0x10 + random.below(4) as u8, random.below(3) as u8, 0, 0]);
        }
        return;
    }
    out.extend_from_slice(&genuine[random.below(genuine.len() as u64) as usize]);
    let len = out.len() as u64;
    match kind {
        // As it is: repeated from elsewhere.
        2 => {}
        3 => out.truncate(random.below(len) as usize),
        4 => out.extend((0..random.below(200)).map(|byte| byte as u8)),
        5 => out[1] = random.number() as u8,
        6 => out[0] = random.number() as u8,
        7 => out[12..16].copy_from_slice(&(random.number() as u32).to_be_bytes()),
        _ => {
            for _ in 0..1 + random.below(8) {
                let at = random.below(len) as usize;
                out[at] = random.number() as u8;
            }
        }
    }
}

fn send_datagrams(
    sockets: &[UdpSocket],
    target: SocketAddr,
    genuine: &[Vec<u8>],
    mut random: Random,
    over: &AtomicBool,
    tally: &Tally,
) {
    let mut datagram = Vec::with_capacity(2048);
    while !over.load(Ordering::Relaxed) {
        for socket in sockets {
            mutate(genuine, &mut random, &mut datagram);
            if socket.send_to(&datagram, target).is_ok() {
                tally.datagrams.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

fn connect_all(source: Ipv4Addr, target: SocketAddr, mut random: Random, over: &AtomicBool, tally: &Tally) {
    const OPEN: usize = 32;
    let mut open: Vec<TcpStream> = Vec::new();
    while !over.load(Ordering::Relaxed) {
        tally.connections.fetch_add(1, Ordering::Relaxed);
        // Some stay and say nothing more, until others take their place.
        if let Some(mut stream) = connect_from(source, target, TimeVal::new(0, 200_000)) {
            let mut noise = vec![0; random.below(700) as usize];
            noise.iter_mut().for_each(|byte| *byte = random.number() as u8);
            let _ = stream.write_all(&noise);
            if open.len() < OPEN {
                open.push(stream);
            } else if random.chance(500) {
                open[random.below(OPEN as u64) as usize] = stream;
            }
        }
    }
}

/// A connection that is made within `limit` and leaves no port waiting behind it.
pub(crate) fn connect_from(source: Ipv4Addr, target: SocketAddr, limit: TimeVal) -> Option<TcpStream> {
    let fd = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).ok()?;
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    setsockopt(&fd, sockopt::Linger, &linger).ok()?;
    setsockopt(&fd, sockopt::SendTimeout, &limit).ok()?;
    bind(fd.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(IpAddr::V4(source), 0))).ok()?;
    connect(fd.as_raw_fd(), &SockaddrStorage::from(target)).ok()?;
    Some(fd.into())
}

fn look_for_answers(watch: &RawSocket, over: &AtomicBool, tally: &Tally) {
    let mut room = vec![0; ROOM];
    loop {
        // Read before the socket is found empty, so that what came earlier is counted.
        let last = over.load(Ordering::Relaxed);
        while let Some(frame) = watch.receive(&mut room) {
            tally.frames.fetch_add(1, Ordering::Relaxed);
            let (ethertype, protocol) = (&frame[OFFLOAD + 12..OFFLOAD + 14], frame.get(OFFLOAD + 23));
            if ethertype == [8, 0] && matches!(protocol, Some(1 | 17)) {
                tally.answers.fetch_add(1, Ordering::Relaxed);
            }
        }
        if last {
            assert_eq!(watch.lost(), 0, "the attacker did not see everything that came back");
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
