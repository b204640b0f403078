//! Routes through an interface.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use netlink_packet_route::route::{RouteMessage, RouteProtocol, RouteScope, RouteType};
use rtnetlink::RouteMessageBuilder;

use super::{Netlink, collect, is_present};
use crate::error::Result;

/// How long a new address may take to be in use; it is a matter of microseconds where the kernel's
/// workers are not busy.
const LOCAL_WITHIN: Duration = Duration::from_millis(500);
/// How often that is looked at: the kernel tells nobody.
const LOCAL_AGAIN: Duration = Duration::from_millis(1);

/// A route through an interface, without a gateway.
#[derive(Debug, Clone, Copy)]
pub(crate) struct InterfaceRoute {
    pub index: u32,
    pub destination: IpNet,
    /// `RT_TABLE_*`.
    pub table: u32,
    pub kind: RouteType,
    /// Smaller wins; 0 is the kernel's default.
    pub metric: u32,
}

impl Netlink {
    /// Adds a route; whether it was new.
    pub(crate) fn add_route(&mut self, route: InterfaceRoute) -> Result<bool> {
        let request = self.handle.route().add(route.message()).execute();
        match self.call("add route", route.destination, request) {
            Ok(()) => Ok(true),
            Err(error) if is_present(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Waits until the kernel takes what is sent to a new address of this host, [`LOCAL_WITHIN`] at
    /// most, as where its interface is down. It joins the group of the address and makes the local
    /// route some time after it has added it (`addrconf_dad_work`, net/ipv6/addrconf.c): a question
    /// for it, or an answer to its announcement, would be lost.
    pub(super) fn await_local(&mut self, address: Ipv6Addr) {
        let deadline = Instant::now() + LOCAL_WITHIN;
        loop {
            let message = RouteMessageBuilder::<Ipv6Addr>::new().destination_prefix(address, 128).build();
            let request = collect(self.handle.route().get(message).execute());
            let is_local = self.call("look up", address, request).is_ok_and(|routes| {
                routes.first().is_some_and(|route| route.header.kind == RouteType::Local)
            });
            if is_local || Instant::now() >= deadline {
                return;
            }
            std::thread::sleep(LOCAL_AGAIN);
        }
    }

    /// Adds a route of `destination` through `gateway`; whether it was new.
    ///
    /// # Errors
    /// When the gateway is not reachable or the kernel refuses otherwise.
    pub fn add_gateway(&mut self, destination: IpNet, gateway: std::net::IpAddr) -> Result<bool> {
        let message = RouteMessageBuilder::<std::net::IpAddr>::new()
            .destination_prefix(destination.network(), destination.prefix_len())
            .and_then(|message| message.gateway(gateway));
        let message = match message {
            Ok(message) => message.build(),
            Err(error) => {
                return Err(crate::Error::invalid(destination, error.to_string()));
            }
        };
        let request = self.handle.route().add(message).execute();
        match self.call("add route", destination, request) {
            Ok(()) => Ok(true),
            Err(error) if is_present(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

impl InterfaceRoute {
    fn message(self) -> RouteMessage {
        match self.destination {
            IpNet::V4(net) => finish(
                RouteMessageBuilder::<Ipv4Addr>::new()
                    .destination_prefix(net.network(), net.prefix_len())
                    .scope(RouteScope::Link),
                self,
            ),
            IpNet::V6(net) => finish(
                RouteMessageBuilder::<Ipv6Addr>::new().destination_prefix(net.network(), net.prefix_len()),
                self,
            ),
        }
    }
}

fn finish<T>(builder: RouteMessageBuilder<T>, route: InterfaceRoute) -> RouteMessage {
    let builder = builder
        .output_interface(route.index)
        .table_id(route.table)
        .kind(route.kind)
        .protocol(RouteProtocol::Boot);
    if route.metric == 0 { builder.build() } else { builder.priority(route.metric).build() }
}
