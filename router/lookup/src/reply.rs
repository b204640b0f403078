//! What of a server's message is told to who asked.

use std::io;

use hickory_server::proto::op::{Message, Query, ResponseCode};
use hickory_server::proto::rr::{DNSClass, Name, RData, Record, RecordType};

/// Names that lead from the one asked for to the one that has the records, at most.
const CHAIN_MAX: usize = 16;

/// The answer to a question.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reply {
    /// `NoError` or `NXDomain`.
    pub code: ResponseCode,
    /// Those of the type asked for, and the CNAMEs that lead to them.
    pub records: Vec<Record>,
    /// Says how long it holds that there are no (more) records: for its TTL (RFC 2308, 5).
    pub soa: Option<Record>,
}

impl Reply {
    /// Takes what belongs to the question. The server has followed the CNAMEs: nobody asks for more.
    ///
    /// # Errors
    /// When the server does not know the answer.
    pub(crate) fn of(message: Message, query: &Query) -> io::Result<Self> {
        let code = message.metadata.response_code;
        if !matches!(code, ResponseCode::NoError | ResponseCode::NXDomain) {
            return Err(io::Error::other(format!("it says: {code}")));
        }
        let chain = chain(&message.answers, query);
        let end = chain.last().copied().unwrap_or(query.name());
        let is_asked = |record: &&Record| record.record_type() == query.query_type();
        let belongs = |record: &&Record| {
            let is_of_kind = is_asked(record) || record.record_type() == RecordType::CNAME;
            record.dns_class == DNSClass::IN && is_of_kind && chain.contains(&&record.name)
        };
        let records: Vec<Record> = message.answers.iter().filter(belongs).cloned().collect();
        let soa = negative(&message.authorities, end).filter(|_| !records.iter().any(|one| is_asked(&one)));
        if code == ResponseCode::NoError && records.is_empty() && soa.is_none() {
            if !message.answers.is_empty() {
                return Err(io::Error::other("it answers something else"));
            }
            let flags = message.metadata;
            let is_for_others =
                message.authorities.iter().any(|record| record.record_type() == RecordType::NS);
            if is_for_others && !flags.authoritative && !flags.recursion_available {
                return Err(io::Error::other("it names other servers instead of asking them"));
            }
        }
        Ok(Self { code, records, soa })
    }
}

/// The name asked for, and those it is another name of, in turn.
fn chain<'a>(answers: &'a [Record], query: &'a Query) -> Vec<&'a Name> {
    let mut names = vec![query.name()];
    while query.query_type() != RecordType::CNAME && names.len() <= CHAIN_MAX {
        let next = answers.iter().find_map(|record| {
            let RData::CNAME(target) = &record.data else { return None };
            let is_next = record.dns_class == DNSClass::IN && names.last() == Some(&&record.name);
            is_next.then_some(&target.0)
        });
        match next {
            Some(next) if !names.contains(&next) => names.push(next),
            Some(_) | None => break,
        }
    }
    names
}

/// The SOA of a zone that `name` is in, with the time that an answer without records holds.
fn negative(authorities: &[Record], name: &Name) -> Option<Record> {
    authorities.iter().find_map(|record| {
        let RData::SOA(soa) = &record.data else { return None };
        let mut soa_record = record.clone();
        soa_record.ttl = record.ttl.min(soa.minimum);
        (record.dns_class == DNSClass::IN && record.name.zone_of(name)).then_some(soa_record)
    })
}
