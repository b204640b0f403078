//! The records of a TCP link: sealed pieces of the stream of messages.
//!
//! A record is the length of its sealed body (u16), the sealed body and the tag.
//! The bodies in their order are a stream of messages; neither begins or ends
//! where the other does, but for one rule: a record with the last re-key message
//! of a direction ends with it, and the next record has the new key.

/// Length of the field in front of a record; it is the associated data.
pub const LENGTH_LEN: usize = 2;
/// Longest body of a record, without the tag, bytes.
pub const MAX_BODY_LEN: usize = 16 * 1024;
