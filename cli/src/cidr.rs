//! Addresses with the length of their network, as `attach` takes them.

use std::net::IpAddr;

use ipnet::IpNet;
use weave_host::address::check_cidr;

/// Reads `10.2.1.1/24`, `ip:10.2.1.1/24` or `fd00:2::1/64`: an address that a
/// station can have.
pub fn parse(text: &str) -> Result<IpNet, String> {
    if text.starts_with("net:") {
        return Err("no address is chosen for you: name one, as in 10.2.1.1/24".to_owned());
    }
    let bare = text.strip_prefix("ip:").unwrap_or(text);
    let net: IpNet = bare.parse().map_err(|_| match bare.parse::<IpAddr>() {
        Ok(ip) if ip.is_ipv4() => format!("the length of its network is missing, as in {ip}/24"),
        Ok(ip) => format!("the length of its network is missing, as in {ip}/64"),
        Err(_) => {
            "it is no address with the length of its network, as in 10.2.1.1/24 or fd00:2::1/64".to_owned()
        }
    })?;
    if let IpAddr::V6(v6) = net.addr()
        && let Some(v4) = v6.to_ipv4_mapped()
    {
        return Err(format!("it is an IPv4 address in IPv6 form: write it as {v4}"));
    }
    check_cidr(&net).map_err(|error| error.to_string())?;
    Ok(net)
}

/// Whether `text` is written like an address with the length of its network, and so is no image:
/// digits and dots, or colons and hexadecimal digits, before a slash and digits.
pub fn is_written(text: &str) -> bool {
    if text.starts_with("ip:") || text.starts_with("net:") {
        return true;
    }
    let (address, length) = text.split_once('/').unwrap_or((text, "0"));
    let all = |text: &str, is: &dyn Fn(char) -> bool| !text.is_empty() && text.chars().all(is);
    let v4 = address.contains('.') && all(address, &|c| c.is_ascii_digit() || c == '.');
    let v6 =
        address.matches(':').count() > 1 && all(address, &|c| c.is_ascii_hexdigit() || c == ':' || c == '.');
    (v4 || v6) && all(length, &|c| c.is_ascii_digit())
}

/// Whether `text` was meant as an address rather than as a container.
pub fn is_meant(text: &str) -> bool {
    let prefixed = text.starts_with("ip:") || text.starts_with("net:");
    let is_path = text.starts_with('/') || text.starts_with("netns:");
    prefixed || (text.contains('/') && !is_path) || text.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn addresses_of_stations_are_read() {
        for (text, shown) in [
            ("10.2.1.1/24", "10.2.1.1/24"),
            ("ip:10.2.1.1/24", "10.2.1.1/24"),
            ("10.2.1.0/31", "10.2.1.0/31"),
            ("10.2.1.1/32", "10.2.1.1/32"),
            ("fd00:2::1/64", "fd00:2::1/64"),
            ("ip:fd00:2::1/64", "fd00:2::1/64"),
            ("fd00::ffff:ffff/96", "fd00::ffff:ffff/96"),
        ] {
            assert!(is_meant(text));
            assert_eq!(parse(text).unwrap().to_string(), shown);
        }
    }

    #[test]
    fn what_no_station_can_have_is_refused() {
        for text in [
            "",
            "/",
            "10.2.1.1",
            "10.2.1.1/",
            "10.2.1.1/33",
            "10.2.1/24",
            "10.2.1.256/24",
            "10.2.1.1/24/24",
            "10.2.1.1/-1",
            "10.2.1.0/24",
            "10.2.1.255/24",
            "10.2.1.1/0",
            "0.0.0.0/0",
            "0.0.0.0/8",
            "127.0.0.1/8",
            "224.0.0.1/24",
            "255.255.255.255/32",
            "fd00::/64",
            "fd00::1",
            "fd00::1/129",
            "ff02::1/64",
            "::1/128",
            "::/0",
            "::ffff:10.0.0.1/120",
            "net:10.2.1.0/24",
            "net:default",
            "ip:",
            "ip:ip:10.2.1.1/24",
            " 10.2.1.1/24",
            "10.2.1.1/24;reboot",
            "$(reboot)/24",
            "10.2.1.1/24\n",
        ] {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn containers_are_not_taken_for_addresses() {
        for text in ["pid:1", "netns:blue", "/run/netns/blue", "4f0a2b", "web", "10"] {
            assert!(!is_meant(text), "{text}");
        }
    }
}
