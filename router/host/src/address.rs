//! Which addresses a container may have.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;

use crate::error::{Error, Result};

/// Most addresses of one container.
pub const ADDRESSES_MAX: usize = 64;

/// An address with the length of its prefix.
///
/// # Errors
/// [`Error::Invalid`] when the prefix is longer than addresses of its family.
pub fn cidr(address: IpAddr, prefix_len: u8) -> Result<IpNet> {
    IpNet::new(address, prefix_len)
        .map_err(|error| Error::invalid(format!("{address}/{prefix_len}"), error.to_string()))
}

/// Refuses what is not the address of one station in a subnet.
///
/// # Errors
/// [`Error::Invalid`] for a network, broadcast, multicast, loopback, unspecified
/// or (IPv6) link-local address and for a prefix of length 0.
pub fn check_cidr(cidr: &IpNet) -> Result<()> {
    let refuse = |reason: &str| Err(Error::invalid(cidr, reason));
    let address = cidr.addr();
    if cidr.prefix_len() == 0 {
        return refuse("a prefix of length 0 is no subnet: give the length of the subnet, as in 10.2.1.1/24");
    }
    if address.is_unspecified() || address.is_loopback() || address.is_multicast() {
        return refuse("not the address of a container: loopback, multicast or unspecified");
    }
    if let IpAddr::V6(v6) = address
        && v6.is_unicast_link_local()
    {
        return refuse(
            "an address of the link, which the kernel gives by itself: give one of a subnet, as in fd00:2::1/64",
        );
    }
    // The two addresses of a point-to-point subnet are both ordinary (RFC 3021, RFC 6164).
    if cidr.max_prefix_len() - cidr.prefix_len() > 1 && address == cidr.network() {
        return refuse("the address of the network itself: give one of its hosts, as in 10.2.1.1/24");
    }
    if let IpNet::V4(net) = cidr
        && ((net.prefix_len() < 31 && net.addr() == net.broadcast()) || net.addr() == Ipv4Addr::BROADCAST)
    {
        return refuse("the broadcast address of the network: give one of its hosts, as in 10.2.1.1/24");
    }
    Ok(())
}

/// Checks a list of addresses and drops repetitions, keeping the order.
///
/// # Errors
/// [`Error::Invalid`] for a list that is empty or too long, a bad address, or
/// one address with two prefixes.
pub fn check_cidrs(cidrs: &[IpNet]) -> Result<Vec<IpNet>> {
    if cidrs.is_empty() {
        return Err(Error::invalid("no address", "give at least one, as in 10.2.1.1/24"));
    }
    let mut checked: Vec<IpNet> = Vec::with_capacity(cidrs.len());
    for cidr in cidrs {
        check_cidr(cidr)?;
        match checked.iter().find(|other| other.addr() == cidr.addr()) {
            Some(same) if same == cidr => {}
            Some(other) => {
                return Err(Error::invalid(cidr, format!("is given with two prefixes, also as {other}")));
            }
            None => checked.push(*cidr),
        }
    }
    if checked.len() > ADDRESSES_MAX {
        return Err(Error::invalid(
            format!("{} addresses", checked.len()),
            format!("too many: a container may have {ADDRESSES_MAX}"),
        ));
    }
    Ok(checked)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn addresses_of_hosts_pass() {
        for text in [
            "10.2.1.1/24",
            "10.0.0.0/31",
            "10.0.0.1/31",
            "10.0.0.0/32",
            "10.2.0.255/16",
            "fd00::1/64",
            "fd00::/127",
            "fd00::/128",
            "2001:db8::ffff/112",
            "169.254.1.1/16",
        ] {
            check_cidr(&text.parse().unwrap()).unwrap_or_else(|error| panic!("{text}: {error}"));
        }
    }

    #[test]
    fn addresses_of_no_host_are_refused() {
        for text in [
            "10.2.1.0/24",
            "10.2.1.255/24",
            "255.255.255.255/32",
            "0.0.0.0/32",
            "10.1.1.1/0",
            "127.0.0.1/8",
            "224.0.0.1/24",
            "239.1.2.3/32",
            "::/128",
            "::1/128",
            "ff02::1/64",
            "fd00::/64",
            "fd00::1/0",
        ] {
            let error = check_cidr(&text.parse().unwrap()).expect_err(text);
            assert!(error.to_string().starts_with(&format!("{text}: ")), "{error}");
        }
    }

    #[test]
    fn lists_keep_their_order_and_lose_repetitions() {
        let list: Vec<IpNet> =
            ["10.2.2.1/24", "10.2.1.1/24", "10.2.2.1/24"].iter().map(|text| text.parse().unwrap()).collect();
        assert_eq!(check_cidrs(&list).unwrap(), list[..2]);
        assert!(check_cidrs(&[]).is_err());
        assert!(check_cidrs(&["10.2.1.1/24".parse().unwrap(), "10.2.1.1/16".parse().unwrap()]).is_err());
    }
}
