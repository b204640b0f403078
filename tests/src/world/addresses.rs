//! Which addresses the containers of a world have.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Most hosts of a world.
pub const HOSTS_MAX: usize = 50;
/// Most containers on each of them.
pub const CONTAINERS_MAX: usize = 5;

/// One of the containers of a world: the host it is on, and its number there, both from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spot {
    /// The host.
    pub host: usize,
    /// The number on that host.
    pub number: usize,
}

impl Spot {
    /// Its last byte of both addresses.
    fn number_in_subnet(self) -> u8 {
        assert!(self.host < HOSTS_MAX && self.number < CONTAINERS_MAX, "no world has {self:?}");
        (1 + self.number * HOSTS_MAX + self.host) as u8
    }

    /// Its IPv4 address, in 10.32.1.0/24.
    #[must_use]
    pub fn v4(self) -> Ipv4Addr {
        Ipv4Addr::new(10, 32, 1, self.number_in_subnet())
    }

    /// Its IPv6 address, in fd32:0:0:1::/64.
    #[must_use]
    pub fn v6(self) -> Ipv6Addr {
        Ipv6Addr::new(0xfd32, 0, 0, 1, 0, 0, 0, self.number_in_subnet().into())
    }

    /// Which container has this address.
    ///
    /// # Panics
    /// When none has.
    #[must_use]
    #[track_caller]
    pub fn of(address: IpAddr) -> Self {
        let last = match address {
            IpAddr::V4(address) => address.octets()[3],
            IpAddr::V6(address) => address.octets()[15],
        };
        let place = usize::from(last).checked_sub(1).expect("the address of a container");
        let spot = Self { host: place % HOSTS_MAX, number: place / HOSTS_MAX };
        assert!(
            [IpAddr::from(spot.v4()), spot.v6().into()].contains(&address),
            "{address} is not in the world"
        );
        spot
    }
}

/// The IPv4 address of the first container on host `index`.
#[must_use]
pub fn v4(index: usize) -> Ipv4Addr {
    Spot { host: index, number: 0 }.v4()
}

/// The IPv6 address of the first container on host `index`.
#[must_use]
pub fn v6(index: usize) -> Ipv6Addr {
    Spot { host: index, number: 0 }.v6()
}

/// Both addresses of the first container on host `index`.
#[must_use]
pub fn addresses(index: usize) -> [IpAddr; 2] {
    [v4(index).into(), v6(index).into()]
}
