//! From a message to the message that answers it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use hickory_server::net::xfer::Protocol;
use hickory_server::proto::ProtoError;
use hickory_server::proto::op::{Edns, LowerQuery, Metadata, ResponseCode};
use hickory_server::proto::rr::rdata::{A, AAAA, NS, PTR, SOA};
use hickory_server::proto::rr::{DNSClass, LowerName, Name, RData, Record, RecordType};
use hickory_server::proto::serialize::binary::BinEncoder;
use hickory_server::server::Request;
use hickory_server::zone_handler::MessageResponseBuilder;
use ipnet::IpNet;

use crate::counters::count;
use crate::server::Server;
use crate::zone::{ADDRESSES_MAX, Found};

/// Longest answer in a datagram, bytes: it fits any path without fragments (RFC 6891, 6.2.5).
pub(crate) const DATAGRAM_MAX: u16 = 1232;
/// The same for who does not say how much it takes (RFC 1035, 4.2.1).
const DATAGRAM_PLAIN: u16 = 512;
/// Length of the header, bytes.
const HEADER: usize = 12;
/// Additional records of a question, at most: one says what its sender can, one may sign it.
const ADDITIONAL_MAX: u16 = 2;
/// Records of the other sections of a question, at most: one, of a transfer.
const OTHERS_MAX: u16 = 1;

/// What becomes of a message.
pub(crate) enum Outcome {
    /// This goes back.
    Send(Vec<u8>),
    /// Nothing goes back.
    Drop,
    /// The host's resolvers are to be asked: see [`Server::forward`].
    Forward(Box<Request>),
}

/// What answers a question.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) code: ResponseCode,
    pub(crate) authoritative: bool,
    pub(crate) records: Vec<Record>,
    /// Says how long it holds that there is nothing (RFC 2308).
    pub(crate) soa: Vec<Record>,
}

impl Answer {
    pub(crate) fn code(code: ResponseCode) -> Self {
        Self { code, ..Self::default() }
    }
}

impl Server {
    /// Answers a message, or says what is to be done.
    pub(crate) fn answer(&self, message: &[u8], source: SocketAddr, protocol: Protocol) -> Outcome {
        let Some(header) = message.first_chunk::<HEADER>() else {
            count(&self.counters.malformed);
            return Outcome::Drop;
        };
        // Answers are never answered, nor what nobody could have sent.
        let is_response = header[2] & 0x80 != 0;
        if is_response || source.port() == 0 || source.ip().is_unspecified() {
            count(&self.counters.malformed);
            return Outcome::Drop;
        }
        if !self.access.borrow().allows(source.ip().to_canonical()) {
            count(&self.counters.refused);
            return Outcome::Send(bare(header, ResponseCode::Refused));
        }
        // The counts are looked at before anything is read by them.
        let [_, _, _, _, questions @ .., a, b, c, d, e, f] = *header;
        let [questions, answers, authorities, additional] =
            [questions, [a, b], [c, d], [e, f]].map(u16::from_be_bytes);
        let is_question = header[2] & 0x78 == 0;
        if !is_question {
            count(&self.counters.refused);
            return Outcome::Send(bare(header, ResponseCode::NotImp));
        }
        let too_many = answers > OTHERS_MAX || authorities > OTHERS_MAX || additional > ADDITIONAL_MAX;
        if questions != 1 || too_many {
            count(&self.counters.malformed);
            return Outcome::Send(bare(header, ResponseCode::FormErr));
        }
        let Ok(request) = Request::from_bytes(message.to_vec(), source, protocol) else {
            count(&self.counters.malformed);
            return Outcome::Send(bare(header, ResponseCode::FormErr));
        };
        let Some(query) = request.queries.queries().first() else { return Outcome::Drop };
        count(&self.counters.queries);
        if request.version() > 0 {
            return Outcome::Send(self.encode(&request, &Answer::code(ResponseCode::BADVERS)));
        }
        match self.look_up(query, request.metadata.recursion_desired) {
            Some(answer) => {
                let refused = matches!(answer.code, ResponseCode::Refused | ResponseCode::NotImp);
                count(if refused { &self.counters.refused } else { &self.counters.answered });
                Outcome::Send(self.encode(&request, &answer))
            }
            None => match self.forwarder.remembered(query) {
                Some(answer) => {
                    count(&self.counters.remembered);
                    Outcome::Send(self.encode(&request, &answer))
                }
                None => Outcome::Forward(Box::new(request)),
            },
        }
    }

    /// The answer from memory; `None`: the resolvers know.
    fn look_up(&self, query: &LowerQuery, recursion_desired: bool) -> Option<Answer> {
        let kind = query.query_type();
        if query.query_class() != DNSClass::IN || matches!(kind, RecordType::AXFR | RecordType::IXFR) {
            return Some(Answer::code(ResponseCode::Refused));
        }
        let name = text_of(query.name());
        if let Some(name) = name.as_deref().filter(|name| self.zone.borrow().holds(name)) {
            return Some(self.in_zone(name, query.original().name(), kind));
        }
        if let Some(answer) = self.reverse(query.name(), query.original().name(), kind) {
            return Some(answer);
        }
        // In the domain, but no name that a container can have.
        if name.is_none() && self.is_under_domain(query.name()) {
            return Some(self.nothing(ResponseCode::NXDomain));
        }
        if kind == RecordType::ANY {
            // Whoever asks that wants a long answer, mostly for somebody else (RFC 8482).
            return Some(Answer::code(ResponseCode::NotImp));
        }
        if !recursion_desired {
            return Some(Answer::code(ResponseCode::Refused));
        }
        None
    }

    fn in_zone(&self, name: &str, asked: &Name, kind: RecordType) -> Answer {
        let zone = self.zone.borrow();
        let mut addresses = match zone.find(name) {
            Found::Addresses(addresses) => addresses,
            Found::Domain => Vec::new(),
            Found::Nothing => return self.nothing(ResponseCode::NXDomain),
        };
        addresses.retain(|address| {
            let own = if address.is_ipv4() { RecordType::A } else { RecordType::AAAA };
            kind == own || kind == RecordType::ANY
        });
        shuffle(&mut addresses);
        addresses.truncate(ADDRESSES_MAX);
        let records = addresses.into_iter().map(|address| match address {
            IpAddr::V4(v4) => RData::A(A(v4)),
            IpAddr::V6(v6) => RData::AAAA(AAAA(v6)),
        });
        let mut records: Vec<Record> = records.map(|data| self.record(asked, data)).collect();
        if name == zone.domain().as_str() {
            records.extend(self.of_zone(asked, kind));
        }
        if records.is_empty() {
            return self.nothing(ResponseCode::NoError);
        }
        Answer { code: ResponseCode::NoError, authoritative: true, records, soa: Vec::new() }
    }

    /// The answer for an address, or for a network of containers; `None`: others know.
    fn reverse(&self, name: &LowerName, asked: &Name, kind: RecordType) -> Option<Answer> {
        let Reverse { net, is_inside } = Reverse::of(name)?;
        let is_address = net.prefix_len() == net.max_prefix_len();
        let mut names = match self.zone.borrow().names_of(&net.addr()) {
            names if is_address && !is_inside => names.to_vec(),
            _ => Vec::new(),
        };
        let ours = self.access.borrow().ours(&net);
        if names.is_empty() && ours.is_none() {
            return None;
        }
        // The zone of a network begins at the label in which it ends; that of any other address is the
        // address.
        let zone = asked.trim_to(ours.map_or(usize::MAX, |ours| labels_of(&ours)));
        let mut records = Vec::new();
        if matches!(kind, RecordType::PTR | RecordType::ANY) {
            shuffle(&mut names);
            names.truncate(ADDRESSES_MAX);
            let pointers = names.iter().filter_map(|name| name_of(name.as_str()));
            records.extend(pointers.map(|name| self.record(asked, RData::PTR(PTR(name)))));
        }
        if ours.is_some() && zone == *asked {
            records.extend(self.of_zone(asked, kind));
        }
        if !records.is_empty() {
            return Some(Answer {
                code: ResponseCode::NoError,
                authoritative: true,
                records,
                soa: Vec::new(),
            });
        }
        // A part of an address stands for nothing, but addresses may be inside (RFC 8020).
        let is_there = !is_inside && (!is_address || !names.is_empty() || zone == *asked);
        let code = if is_there { ResponseCode::NoError } else { ResponseCode::NXDomain };
        Some(self.nothing_in(&zone, code))
    }

    /// Nothing in the domain.
    fn nothing(&self, code: ResponseCode) -> Answer {
        let domain = name_of(self.zone.borrow().domain().as_str());
        domain.map_or_else(|| Answer::code(ResponseCode::ServFail), |domain| self.nothing_in(&domain, code))
    }

    /// Nothing, by the zone that says so: at or above what is asked for (RFC 2308, 3).
    fn nothing_in(&self, zone: &Name, code: ResponseCode) -> Answer {
        Answer { code, authoritative: true, records: Vec::new(), soa: self.soa(zone).into_iter().collect() }
    }

    /// What a zone says of itself.
    fn of_zone(&self, zone: &Name, kind: RecordType) -> Option<Record> {
        if kind == RecordType::SOA {
            return self.soa(zone);
        }
        let server = self.in_domain("ns").filter(|_| kind == RecordType::NS)?;
        Some(self.record(zone, RData::NS(NS(server))))
    }

    fn record(&self, name: &Name, data: RData) -> Record {
        Record::from_rdata(name.clone(), self.ttl_s, data)
    }

    /// Nobody copies our zones: only their times count.
    fn soa(&self, zone: &Name) -> Option<Record> {
        let (server, person) = (self.in_domain("ns")?, self.in_domain("hostmaster")?);
        let times = (3600, 600, 86_400);
        let soa = SOA::new(server, person, 1, times.0, times.1, times.2, self.ttl_s);
        Some(self.record(zone, RData::SOA(soa)))
    }

    fn in_domain(&self, label: &str) -> Option<Name> {
        name_of(&format!("{label}.{}", self.zone.borrow().domain()))
    }

    fn is_under_domain(&self, name: &LowerName) -> bool {
        let domain = name_of(self.zone.borrow().domain().as_str());
        domain.is_some_and(|domain| LowerName::new(&domain).zone_of(name))
    }

    /// The message that gives this answer to a request.
    pub(crate) fn encode(&self, request: &Request, answer: &Answer) -> Vec<u8> {
        let mut metadata = Metadata::response_from_request(&request.metadata);
        metadata.response_code = answer.code;
        metadata.authoritative = answer.authoritative;
        metadata.recursion_available = true;
        let mut edns = Edns::new();
        edns.set_max_payload(DATAGRAM_MAX);
        edns.set_rcode_high(answer.code.high());
        let has_edns = request.edns.is_some();
        let limit = if request.protocol() != Protocol::Udp {
            u16::MAX
        } else if has_edns {
            request.max_payload().clamp(DATAGRAM_PLAIN, DATAGRAM_MAX)
        } else {
            DATAGRAM_PLAIN
        };
        let write = |metadata: Metadata, records: &[Record], soa: &[Record]| {
            let builder = MessageResponseBuilder::new(&request.queries, has_edns.then_some(&edns));
            let mut bytes = Vec::with_capacity(usize::from(DATAGRAM_PLAIN));
            let mut encoder = BinEncoder::new(&mut bytes);
            encoder.set_max_size(limit);
            let info = builder.build(metadata, records, [], soa, []).destructive_emit(&mut encoder)?;
            Ok::<_, ProtoError>((bytes, info.truncation))
        };
        let written = match write(metadata, &answer.records, &answer.soa) {
            // OPT comes last and found no room, but has to be there (RFC 6891, 7): who asked asks again
            // over a connection, and needs none of the records.
            Ok((_, true)) if has_edns => {
                metadata.truncation = true;
                write(metadata, &[], &[])
            }
            other => other,
        };
        match written {
            Ok((bytes, is_truncated)) => {
                if is_truncated {
                    count(&self.counters.truncated);
                }
                bytes
            }
            Err(error) => {
                tracing::debug!("writing an answer: {error}");
                let header = request.as_slice().first_chunk().copied().unwrap_or_default();
                bare(&header, ResponseCode::ServFail)
            }
        }
    }
}

/// A header alone.
fn bare(asked: &[u8; HEADER], code: ResponseCode) -> Vec<u8> {
    let opcode_and_wish = asked[2] & 0x79;
    let mut header = [0; HEADER];
    header[..2].copy_from_slice(&asked[..2]);
    header[2] = 0x80 | opcode_and_wish;
    header[3] = 0x80 | code.low();
    header.to_vec()
}

/// A name as text in lower case, without the last dot; `None` if it is no host name.
fn text_of(name: &LowerName) -> Option<String> {
    let mut text = String::with_capacity(name.len());
    for label in name.iter() {
        if !text.is_empty() {
            text.push('.');
        }
        if !label.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')) {
            return None;
        }
        text.push_str(std::str::from_utf8(label).ok()?);
    }
    Some(text)
}

fn name_of(text: &str) -> Option<Name> {
    let mut name = Name::from_ascii(text).ok()?;
    name.set_fqdn(true);
    Some(name)
}

/// What a name in `in-addr.arpa` or `ip6.arpa` is asked for.
#[derive(Debug, PartialEq, Eq)]
struct Reverse {
    /// An address, or all that begin as the name ends.
    net: IpNet,
    /// The name has more labels, which belong to no address: it is inside that of the network.
    is_inside: bool,
}

impl Reverse {
    fn of(name: &LowerName) -> Option<Self> {
        let labels: Vec<&[u8]> = name.iter().collect();
        let (net, len, all) = match labels.as_slice() {
            [rest @ .., b"in-addr", b"arpa"] => {
                let mut octets = [0; 4];
                let mut len = 0;
                for (octet, label) in octets.iter_mut().zip(rest.iter().rev()) {
                    let Some(number) = octet_of(label) else { break };
                    *octet = number;
                    len += 1;
                }
                (IpNet::new(Ipv4Addr::from(octets).into(), len * OCTET), len, rest.len())
            }
            [rest @ .., b"ip6", b"arpa"] => {
                let (mut bits, mut len) = (0_u128, 0);
                for label in rest.iter().rev().take(32) {
                    let Some(digit) = digit_of(label) else { break };
                    bits |= u128::from(digit) << (124 - 4 * u32::from(len));
                    len += 1;
                }
                (IpNet::new(Ipv6Addr::from(bits).into(), len * DIGIT), len, rest.len())
            }
            _ => return None,
        };
        let net = net.ok().filter(|_| len > 0)?;
        Some(Self { net, is_inside: all > usize::from(len) })
    }
}

/// Bits of a label in `in-addr.arpa`, and in `ip6.arpa`.
const OCTET: u8 = 8;
const DIGIT: u8 = 4;

fn octet_of(label: &[u8]) -> Option<u8> {
    let is_number = label.iter().all(u8::is_ascii_digit) && (label.len() == 1 || !label.starts_with(b"0"));
    std::str::from_utf8(label).ok()?.parse().ok().filter(|_| is_number)
}

fn digit_of(label: &[u8]) -> Option<u8> {
    let [digit] = label else { return None };
    char::from(*digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

/// Labels of the name of a network, the last one whole.
fn labels_of(net: &IpNet) -> usize {
    let label = if net.addr().is_ipv4() { OCTET } else { DIGIT };
    usize::from(net.prefix_len().div_ceil(label)) + 2
}

/// Any order is as likely as any other (Fisher-Yates).
fn shuffle<T>(items: &mut [T]) {
    for last in (1..items.len()).rev() {
        items.swap(last, random_to(last));
    }
}

/// A random number from 0 to `most`.
fn random_to(most: usize) -> usize {
    getrandom::u32().ok().and_then(|random| usize::try_from(random).ok()).unwrap_or_default() % (most + 1)
}

#[cfg(test)]
pub(crate) mod tests;
