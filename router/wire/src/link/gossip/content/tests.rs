#![allow(clippy::unwrap_used)]

use super::super::MAX_CONTENT_LEN;
use super::super::tests::peers;
use super::*;
use proptest::prelude::*;

fn hosts() -> impl Strategy<Value = HostPart> {
    let links = prop::collection::btree_map(peers(), (any::<(bool, bool)>(), 1_u16..), 0..20);
    let addresses = prop::collection::vec(any::<(IpAddr, u16)>(), 0..=MAX_HOST_ADDRESSES);
    ("[A-Za-z0-9._-]{1,63}", any::<u16>(), addresses, links, any::<(bool, bool, u64)>()).prop_map(
        |(nickname, port, addresses, links, (farewell, sealed_only, features))| HostPart {
            nickname: nickname.parse().unwrap(),
            port,
            addresses: addresses.into_iter().map(SocketAddr::from).collect(),
            links: links
                .into_iter()
                .map(|(peer, ((unencrypted, outbound), cost))| AnnouncedLink {
                    peer,
                    unencrypted,
                    outbound,
                    cost,
                })
                .collect(),
            farewell,
            sealed_only,
            features,
        },
    )
}

fn stations() -> impl Strategy<Value = StationsPart> {
    let address = any::<(IpAddr, u8, u32)>().prop_map(|(address, prefix, claim)| StationAddress {
        address,
        prefix: prefix % if address.is_ipv4() { 33 } else { 129 },
        claim,
    });
    let macs = any::<[u8; 6]>().prop_map(MacAddr).prop_filter("group", |mac| mac.is_station());
    let entry = (macs, any::<u32>(), prop::collection::vec(address, 0..4))
        .prop_map(|(mac, claim, addresses)| StationEntry { mac, claim, addresses });
    prop::collection::vec(entry, 0..8).prop_map(|entries| StationsPart { entries })
}

fn names() -> impl Strategy<Value = NamesPart> {
    let entry = ("[a-z0-9_]{1,63}(\\.[a-z0-9_]{1,63}){0,2}", any::<IpAddr>(), any::<[u8; 6]>())
        .prop_map(|(name, address, container)| NameEntry { name: name.parse().unwrap(), address, container });
    prop::collection::vec(entry, 0..8).prop_map(|entries| NamesPart { entries })
}

fn announced(n: u16, cost: u16) -> AnnouncedLink {
    let [high, low] = n.to_be_bytes();
    AnnouncedLink {
        peer: PeerName::new([2, 0, 0, 0, high, low]).unwrap(),
        unencrypted: false,
        outbound: false,
        cost,
    }
}

fn host(links: Vec<AnnouncedLink>) -> HostPart {
    let (nickname, addresses) = (Nickname::from_host_name("a"), Vec::new());
    HostPart { nickname, port: 1, addresses, links, farewell: false, sealed_only: false, features: 0 }
}

#[test]
fn the_largest_host_part_fits() {
    let mut part = host((1..=512).map(|n| announced(n, 1)).collect());
    part.nickname = "x".repeat(63).parse().unwrap();
    part.addresses = vec![SocketAddr::from(([1; 16], 9)); MAX_HOST_ADDRESSES];
    let content = part.encode();
    assert!(content.len() <= MAX_CONTENT_LEN, "{}", content.len());
    assert_eq!(HostPart::parse(&content), Ok(part));
}

/// A part with these links as they stand.
fn with_links(links: &[AnnouncedLink]) -> Vec<u8> {
    let mut content = host(Vec::new()).encode();
    content.truncate(content.len() - FIELD_HEADER_LEN);
    let links: Vec<u8> = links.iter().flat_map(AnnouncedLink::encode).collect();
    put(&mut content, tag::LINKS, &links);
    content
}

#[test]
fn links_out_of_order_twice_or_too_many_are_refused() {
    let many: Vec<_> = (1..=513).map(|n| announced(n, 1)).collect();
    assert!(HostPart::parse(&with_links(&many[..512])).is_ok());
    assert!(HostPart::parse(&with_links(&many)).is_err());
    for links in [[announced(2, 1), announced(1, 1)], [announced(1, 1), announced(1, 2)]] {
        assert!(HostPart::parse(&with_links(&links)).is_err());
        assert!(HostPart::parse(&host(links.to_vec()).encode()).is_ok(), "the encoder puts them in order");
    }
}

#[test]
fn a_link_without_cost_is_refused() {
    let mut bytes = announced(1, 1).encode();
    bytes[8] = 0;
    assert!(AnnouncedLink::parse(&bytes).is_err());
}

#[test]
fn a_group_address_is_no_station() {
    let entry = StationEntry { mac: MacAddr([1, 0, 0, 0, 0, 1]), claim: 1, addresses: Vec::new() };
    assert!(StationsPart::parse(&StationsPart { entries: vec![entry] }.encode()).is_err());
}

proptest! {
    #[test]
    fn parts_survive_the_wire(host in hosts(), stations in stations(), names in names()) {
        prop_assert_eq!(HostPart::parse(&host.encode()), Ok(host));
        let lengths: usize = stations.entries.iter().map(StationEntry::encoded_len).sum();
        prop_assert_eq!(stations.encode().len(), lengths);
        prop_assert_eq!(StationsPart::parse(&stations.encode()), Ok(stations));
        let lengths: usize = names.entries.iter().map(NameEntry::encoded_len).sum();
        prop_assert_eq!(names.encode().len(), lengths);
        prop_assert_eq!(NamesPart::parse(&names.encode()), Ok(names));
    }

    #[test]
    fn unknown_fields_are_skipped(host in hosts(), value in prop::collection::vec(any::<u8>(), 0..9)) {
        let mut content = host.encode();
        put(&mut content, 77, &value);
        prop_assert_eq!(HostPart::parse(&content), Ok(host));
    }

    #[test]
    fn any_bytes_parse_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = (HostPart::parse(&bytes), StationsPart::parse(&bytes), NamesPart::parse(&bytes));
    }

    #[test]
    fn mutated_parts_parse_without_panic(
        host in hosts(), stations in stations(), names in names(), at: prop::sample::Index, byte: u8,
    ) {
        for mut bytes in [host.encode(), stations.encode(), names.encode()] {
            if !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            let _ = (HostPart::parse(&bytes), StationsPart::parse(&bytes), NamesPart::parse(&bytes));
        }
    }
}
