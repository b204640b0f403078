//! Interfaces: looking them up, making, changing and deleting them.

use std::os::fd::{AsFd, AsRawFd};

use netlink_packet_core::Nla;
use netlink_packet_route::link::{
    BridgeStpState, InfoData, InfoKind, InfoTun, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use rtnetlink::{LinkBridge, LinkMessageBuilder, LinkUnspec, LinkVeth};
use weave_wire::MacAddr;

use super::{Netlink, collect, is_absent};
use crate::error::{Error, Result};
use crate::namespace::Namespace;

/// Longest name of an interface, bytes (`IFNAMSIZ` less the closing zero).
pub const INTERFACE_NAME_MAX: usize = 15;

/// Stations that a bridge learns, at most: as many as a router. A container that sends
/// under any number of addresses would have the kernel remember each for five minutes.
/// Frames for a station that a bridge does not know go to all its ports.
pub const LEARNED_MAX: u32 = 16_384;

/// Index of the loopback interface in every namespace.
const LOOPBACK_INDEX: u32 = 1;

/// `IFLA_TUN_NUM_QUEUES` of linux/if_link.h: queues of a tap that a process holds.
const IFLA_TUN_NUM_QUEUES: u16 = 8;

/// What the kernel says about an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Index in its namespace.
    pub index: u32,
    /// Name, for example `ethwe`.
    pub name: String,
    /// Kind, for example `bridge`; empty for hardware and loopback.
    pub kind: String,
    /// MAC, for interfaces that have one of six bytes.
    pub mac: Option<MacAddr>,
    /// MTU, bytes.
    pub mtu: u32,
    /// Transmit queue length, packets.
    pub tx_queue_len: u32,
    /// Switched on.
    pub up: bool,
    /// Up, with carrier, and its queues run: frames sent now leave.
    pub running: bool,
    /// Index of the bridge it is a port of.
    pub controller: Option<u32>,
    /// Index of the other end of a veth pair, in the namespace of that end.
    pub peer: Option<u32>,
    /// Number by which this namespace knows that of the other end of a veth pair; `None`: it is here.
    pub peer_namespace: Option<i32>,
    /// Queues of a tap that processes hold.
    pub tap_queues: Option<u32>,
}

/// One end of a veth pair to be made.
#[derive(Debug, Clone, Copy)]
pub struct VethEnd<'a> {
    /// Name, at most [`INTERFACE_NAME_MAX`] bytes.
    pub name: &'a str,
    /// MAC; the kernel's choice if none.
    pub mac: Option<MacAddr>,
    /// Index of the bridge to put it in; only for the end in this namespace.
    pub controller: Option<u32>,
    /// Where to make it; here if none.
    pub namespace: Option<&'a Namespace>,
}

impl<'a> VethEnd<'a> {
    /// An end of that name, here, without further wishes.
    #[must_use]
    pub fn new(name: &'a str) -> Self {
        Self { name, mac: None, controller: None, namespace: None }
    }
}

impl Netlink {
    /// The interface called `name`, if there is one.
    ///
    /// # Errors
    /// When the kernel refuses or does not answer.
    pub fn link(&mut self, name: &str) -> Result<Option<Link>> {
        if name.is_empty() || name.len() > INTERFACE_NAME_MAX {
            return Ok(None);
        }
        let request = self.handle.link().get().match_name(name).execute();
        match self.call("look up", name, collect(request)) {
            Ok(links) => Ok(links.into_iter().next().map(Link::from_message)),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The interface called `name`.
    ///
    /// # Errors
    /// When there is none, or the kernel refuses or does not answer.
    pub fn expect_link(&mut self, name: &str) -> Result<Link> {
        self.link(name)?
            .ok_or_else(|| Error::kernel("look up", name, std::io::Error::from_raw_os_error(libc::ENODEV)))
    }

    /// All interfaces.
    ///
    /// # Errors
    /// When the kernel refuses or does not answer.
    pub fn links(&mut self) -> Result<Vec<Link>> {
        let request = self.handle.link().get().execute();
        let messages = self.call("list", "interfaces", collect(request))?;
        Ok(messages.into_iter().map(Link::from_message).collect())
    }

    /// Makes a bridge that neither delays nor filters: no spanning tree, no
    /// multicast snooping. It learns [`LEARNED_MAX`] stations (before Linux 6.7: any
    /// number). It is down.
    ///
    /// # Errors
    /// When the name is taken (`EEXIST`), or the kernel refuses otherwise.
    pub fn create_bridge(&mut self, name: &str, mac: MacAddr, mtu: u32) -> Result<()> {
        // `new` would set it up.
        let message = LinkBridge::new(name)
            .down()
            .address(mac.0.to_vec())
            .mtu(mtu)
            .stp_state(BridgeStpState::Disabled)
            .mcast_snooping(false)
            .forward_delay(0)
            .fdb_max_learned(LEARNED_MAX)
            .build();
        let request = self.handle.link().add(message).execute();
        self.call("create bridge", name, request)
    }

    /// Makes a veth pair, one end here; both ends are down.
    ///
    /// # Errors
    /// When a name is taken (`EEXIST`), or the kernel refuses otherwise.
    pub fn create_veth(&mut self, here: VethEnd<'_>, there: VethEnd<'_>, mtu: u32) -> Result<()> {
        let peer = end_message(LinkMessageBuilder::<LinkUnspec>::new(), &there, mtu).build();
        let message =
            end_message(LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth), &here, mtu)
                .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
                .build();
        let request = self.handle.link().add(message).execute();
        self.call("create veth pair", format_args!("{}, {}", here.name, there.name), request)
    }

    /// Switches an interface on.
    ///
    /// # Errors
    /// When it is gone or the kernel refuses.
    pub fn set_up(&mut self, link: &Link) -> Result<()> {
        self.change("switch on", link, LinkMessageBuilder::up)
    }

    /// Switches an interface off.
    ///
    /// # Errors
    /// When it is gone or the kernel refuses.
    pub fn set_down(&mut self, link: &Link) -> Result<()> {
        self.change("switch off", link, LinkMessageBuilder::down)
    }

    /// Sets the MTU, bytes.
    ///
    /// # Errors
    /// When it is out of range for the interface, or the interface is gone.
    pub fn set_mtu(&mut self, link: &Link, mtu: u32) -> Result<()> {
        self.change("set the MTU of", link, |message| message.mtu(mtu))
    }

    /// Makes an interface a port of the bridge with index `controller`.
    ///
    /// # Errors
    /// When either is gone or the kernel refuses.
    pub fn set_controller(&mut self, link: &Link, controller: u32) -> Result<()> {
        self.change("put into the bridge", link, |message| message.controller(controller))
    }

    pub(crate) fn set_tx_queue_len(&mut self, link: &Link, packets: u32) -> Result<()> {
        self.change("set the queue length of", link, |message| message.txqueuelen(packets))
    }

    /// Gives an interface a MAC; one that is not virtual has to be down.
    ///
    /// # Errors
    /// When it is gone or the kernel refuses.
    pub(crate) fn set_mac(&mut self, link: &Link, mac: MacAddr) -> Result<()> {
        self.change("set the MAC of", link, |message| message.address(mac.0.to_vec()))
    }

    fn change(
        &mut self,
        step: &'static str,
        link: &Link,
        what: impl FnOnce(LinkMessageBuilder<LinkUnspec>) -> LinkMessageBuilder<LinkUnspec>,
    ) -> Result<()> {
        let message = what(LinkUnspec::new_with_index(link.index)).build();
        let request = self.handle.link().set(message).execute();
        self.call(step, &link.name, request)
    }

    /// Deletes an interface; one that is gone already is no error.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn delete_link(&mut self, link: &Link) -> Result<()> {
        let request = self.handle.link().del(link.index).execute();
        match self.call("delete interface", &link.name, request) {
            Err(error) if is_absent(&error) => Ok(()),
            result => result,
        }
    }

    /// Switches the loopback interface on.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn set_loopback_up(&mut self) -> Result<()> {
        let message = LinkUnspec::new_with_index(LOOPBACK_INDEX).up().build();
        let request = self.handle.link().set(message).execute();
        self.call("switch on", "lo", request)
    }
}

fn end_message<T>(message: LinkMessageBuilder<T>, end: &VethEnd<'_>, mtu: u32) -> LinkMessageBuilder<T> {
    let mut message = message.name(end.name).mtu(mtu);
    if let Some(mac) = end.mac {
        message = message.address(mac.0.to_vec());
    }
    if let Some(controller) = end.controller {
        message = message.controller(controller);
    }
    if let Some(namespace) = end.namespace {
        message = message.setns_by_fd(namespace.as_fd().as_raw_fd());
    }
    message
}

impl Link {
    // The kernel's attributes are an open set: what is not asked for is passed over.
    #[allow(clippy::wildcard_enum_match_arm)]
    pub(super) fn from_message(message: LinkMessage) -> Self {
        let mut link = Self {
            index: message.header.index,
            name: String::new(),
            kind: String::new(),
            mac: None,
            mtu: 0,
            tx_queue_len: 0,
            up: message.header.flags.contains(LinkFlags::Up),
            running: message.header.flags.contains(LinkFlags::Running | LinkFlags::LowerUp),
            controller: None,
            peer: None,
            peer_namespace: None,
            tap_queues: None,
        };
        for attribute in message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name = name,
                LinkAttribute::Address(address) => {
                    link.mac = <[u8; 6]>::try_from(address).ok().map(MacAddr);
                }
                LinkAttribute::Mtu(mtu) => link.mtu = mtu,
                LinkAttribute::TxQueueLen(packets) => link.tx_queue_len = packets,
                LinkAttribute::Controller(index) => link.controller = Some(index),
                LinkAttribute::Link(index) => link.peer = Some(index),
                LinkAttribute::LinkNetNsId(number) => link.peer_namespace = Some(number),
                LinkAttribute::LinkInfo(infos) => link.read_info(infos),
                _ => {}
            }
        }
        link
    }

    #[allow(clippy::wildcard_enum_match_arm)]
    fn read_info(&mut self, infos: Vec<LinkInfo>) {
        for info in infos {
            match info {
                LinkInfo::Kind(kind) => self.kind = kind.to_string(),
                LinkInfo::Data(InfoData::Tun(attributes)) => {
                    self.tap_queues = attributes.iter().find_map(tap_queues);
                }
                _ => {}
            }
        }
    }
}

#[allow(clippy::wildcard_enum_match_arm)]
fn tap_queues(attribute: &InfoTun) -> Option<u32> {
    match attribute {
        InfoTun::Other(attribute) if attribute.kind() == IFLA_TUN_NUM_QUEUES => {
            let mut value = vec![0; attribute.value_len()];
            attribute.emit_value(&mut value);
            Some(u32::from_ne_bytes(value.try_into().ok()?))
        }
        _ => None,
    }
}
