//! Views of the packets inside frames: Ethernet, ARP, IPv4, IPv6, TCP, UDP.

mod ethernet;
pub mod icmp;
mod ip;
mod transport;

pub use ethernet::{ArpPacket, EthernetHeader, VlanTag, ethertype, network_layer};
pub use ip::{Ipv4Header, Ipv6Header};
pub use transport::{IpVersion, Protocol, TcpHeader, Transport, UdpHeader, tcp_flags};
