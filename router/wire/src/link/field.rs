//! Tagged fields: how the messages of a link hold their content.
//!
//! A field is its tag (u16), the length of its value (u32) and the value.
//! Unknown tags are skipped, so that a later version can add fields.

use super::ParseError;

const HEADER_LEN: usize = 6;

/// Appends a field.
pub(super) fn put(out: &mut Vec<u8>, tag: u16, value: &[u8]) {
    out.extend_from_slice(&tag.to_be_bytes());
    // A message of over 1 MiB is refused as a whole, so a value never fills u32.
    out.extend_from_slice(&(value.len() as u32).to_be_bytes());
    out.extend_from_slice(value);
}

/// The fields of a message in their order.
pub(super) struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u16, &'a [u8]), ParseError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = split(self.0);
        self.0 = field.map_or(&[], |(_, _, rest)| rest);
        Some(field.map(|(tag, value, _)| (tag, value)).ok_or(ParseError::Truncated { what: "a field" }))
    }
}

fn split(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let ([a, b, len @ ..], rest) = bytes.split_first_chunk::<HEADER_LEN>()?;
    let len = usize::try_from(u32::from_be_bytes(*len)).ok()?;
    let (value, rest) = rest.split_at_checked(len)?;
    Some((u16::from_be_bytes([*a, *b]), value, rest))
}

/// A value of fixed length.
pub(super) fn fixed<const N: usize>(value: &[u8], what: &'static str) -> Result<[u8; N], ParseError> {
    value.try_into().map_err(|_| ParseError::Invalid { what })
}

/// Fills a slot that may be filled once.
pub(super) fn once<T>(slot: &mut Option<T>, value: T, what: &'static str) -> Result<(), ParseError> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(ParseError::Repeated { what }),
    }
}

/// What a slot holds, which must be filled.
pub(super) fn required<T>(slot: Option<T>, what: &'static str) -> Result<T, ParseError> {
    slot.ok_or(ParseError::Missing { what })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn fields_survive_the_wire(
            fields in prop::collection::vec((any::<u16>(), prop::collection::vec(any::<u8>(), 0..20)), 0..8),
        ) {
            let mut bytes = Vec::new();
            for (tag, value) in &fields {
                put(&mut bytes, *tag, value);
            }
            let parsed: Result<Vec<_>, _> =
                Fields::new(&bytes).map(|f| f.map(|(tag, value)| (tag, value.to_vec()))).collect();
            prop_assert_eq!(parsed, Ok(fields));
        }

        #[test]
        fn any_bytes_end(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(Fields::new(&bytes).count() <= bytes.len());
        }
    }
}
