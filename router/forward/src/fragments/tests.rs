#![allow(clippy::unwrap_used)]

use super::*;
use proptest::prelude::*;
use weave_wire::PeerName;
use weave_wire::inner::{ChecksumField, ChecksumRequest};

const NOW: Duration = Duration::from_secs(100);
const MAX_FRAME: usize = 9018;

fn name(number: u8) -> PeerName {
    PeerName::new([2, 0, 0, 0, 0, number]).unwrap()
}

fn header() -> InnerHeader {
    InnerHeader::new(name(1), Some(name(2)), None)
}

fn fragment(first: u32, index: u8, last: bool, bytes: &[u8]) -> Fragment<'_> {
    Fragment {
        link: LinkId(1),
        session: SessionIndex(7),
        lane: Lane::data(3).unwrap(),
        counter: first + u32::from(index),
        inner: header().of_fragment(index, last),
        bytes,
    }
}

#[test]
fn a_frame_is_there_with_its_last_missing_fragment() {
    let mut reassembly = Reassembly::new(MAX_FRAME);
    let request = ChecksumRequest { start: 34, field: ChecksumField::Udp };
    let with_request = InnerHeader::new(name(1), Some(name(2)), Some(request));
    assert_eq!(reassembly.add(fragment(9, 2, true, b"c"), NOW), Ok(None));
    let first = Fragment { inner: with_request.of_fragment(0, false), ..fragment(9, 0, false, b"aa") };
    assert_eq!(reassembly.add(first, NOW), Ok(None));
    let frame = reassembly.add(fragment(9, 1, false, b"bb"), NOW).unwrap().unwrap();
    // The request is that of fragment 0.
    assert_eq!(frame, Reassembled { inner: with_request, bytes: b"aabbc".to_vec() });
    assert_eq!((reassembly.partials.len(), reassembly.held), (0, 0));
}

#[test]
fn fragments_that_contradict_each_other_take_all_with_them() {
    let other = InnerHeader::new(name(3), Some(name(2)), None);
    let begin = |reassembly: &mut Reassembly| {
        assert_eq!(reassembly.add(fragment(9, 1, false, b"bb"), NOW), Ok(None));
        assert_eq!(reassembly.add(fragment(9, 3, true, b"d"), NOW), Ok(None));
    };
    for bad in [
        // Once more; a second last one; one behind the last; an empty one; of another peer.
        fragment(9, 1, false, b"bb"),
        fragment(9, 0, true, b"a"),
        fragment(9, 2, true, b"c"),
        fragment(9, 4, false, b"e"),
        fragment(9, 5, true, b"f"),
        fragment(9, 2, false, b""),
        Fragment { inner: other.of_fragment(2, false), ..fragment(9, 2, false, b"c") },
        Fragment { inner: header().relayed().unwrap().of_fragment(2, false), ..fragment(9, 2, false, b"c") },
    ] {
        let mut reassembly = Reassembly::new(MAX_FRAME);
        begin(&mut reassembly);
        assert_eq!(reassembly.add(bad, NOW), Err(DropReason::FragmentInconsistent), "{bad:?}");
        assert_eq!((reassembly.partials.len(), reassembly.held), (0, 0));
    }
    let mut reassembly = Reassembly::new(MAX_FRAME);
    // The number of its first fragment would be below zero.
    let bad = Fragment { counter: 1, ..fragment(9, 2, false, b"c") };
    assert_eq!(reassembly.add(bad, NOW), Err(DropReason::FragmentInconsistent));
    // A last one in front of others that came before.
    assert_eq!(reassembly.add(fragment(9, 5, false, b"f"), NOW), Ok(None));
    assert_eq!(reassembly.add(fragment(9, 4, true, b"e"), NOW), Err(DropReason::FragmentInconsistent));
}

#[test]
fn sessions_lanes_and_numbers_are_kept_apart() {
    let mut reassembly = Reassembly::new(MAX_FRAME);
    let first = fragment(9, 0, false, b"a");
    for other in [
        first,
        Fragment { session: SessionIndex(8), ..first },
        Fragment { lane: Lane::data(4).unwrap(), ..first },
        Fragment { counter: 8, ..first },
    ] {
        assert_eq!(reassembly.add(other, NOW), Ok(None));
    }
    assert_eq!(reassembly.partials.len(), 4);
    assert!(reassembly.add(fragment(9, 1, true, b"b"), NOW).unwrap().is_some());
    assert_eq!(reassembly.partials.len(), 3);
}

#[test]
fn fragments_wait_a_second() {
    let mut reassembly = Reassembly::new(MAX_FRAME);
    assert_eq!(reassembly.add(fragment(9, 0, false, b"a"), NOW), Ok(None));
    reassembly.expire(NOW + FRAGMENT_LIFETIME - Duration::from_millis(1));
    assert_eq!(reassembly.partials.len(), 1);
    reassembly.expire(NOW + FRAGMENT_LIFETIME);
    assert_eq!((reassembly.partials.len(), reassembly.held), (0, 0));
    assert_eq!(reassembly.take_given_up(), (1, 0));
    assert_eq!(reassembly.take_given_up(), (0, 0));
}

#[test]
fn a_frame_that_gets_too_long_is_given_up() {
    let mut reassembly = Reassembly::new(100);
    assert_eq!(reassembly.add(fragment(9, 0, false, &[0; 60]), NOW), Ok(None));
    assert_eq!(reassembly.add(fragment(9, 1, true, &[0; 41]), NOW), Err(DropReason::FrameTooLong));
    assert_eq!(reassembly.add(fragment(9, 0, false, &[0; 60]), NOW), Ok(None));
    assert!(reassembly.add(fragment(9, 1, true, &[0; 40]), NOW).unwrap().is_some());
}

#[test]
fn frames_number_and_bytes_are_bounded_and_the_oldest_goes() {
    let mut reassembly = Reassembly::new(MAX_FRAME);
    for number in 0..100 {
        assert_eq!(reassembly.add(fragment(100 * number, 0, false, b"a"), NOW), Ok(None));
    }
    assert_eq!(reassembly.partials.len(), MAX_PARTIAL_FRAMES_OF_LINK);
    assert_eq!(reassembly.take_given_up().1, 92);
    for number in 0..200u16 {
        let fragment = fragment(100_000 + 100 * u32::from(number), 0, false, b"a");
        assert_eq!(reassembly.add(Fragment { link: LinkId(2 + number), ..fragment }, NOW), Ok(None));
    }
    assert_eq!(reassembly.partials.len(), MAX_PARTIAL_FRAMES);
    // The newest is among them.
    let newest = fragment(100_000 + 100 * 199, 1, true, b"b");
    assert!(reassembly.add(Fragment { link: LinkId(201), ..newest }, NOW).unwrap().is_some());

    let mut reassembly = Reassembly::new(65_535);
    let large = vec![0; 60_000];
    for number in 0..60u16 {
        let fragment = fragment(100 * u32::from(number), 0, false, &large);
        assert_eq!(reassembly.add(Fragment { link: LinkId(number), ..fragment }, NOW), Ok(None));
        assert!(reassembly.held <= MAX_PARTIAL_BYTES);
    }
    assert_eq!(reassembly.partials.len(), MAX_PARTIAL_BYTES / large.len());
}

proptest! {
    #[test]
    fn fragments_in_any_order_give_the_frame(
        frame in prop::collection::vec(any::<u8>(), 16..2000),
        count in 2usize..=16,
        order in Just((0..16usize).collect::<Vec<_>>()).prop_shuffle(),
    ) {
        let size = frame.len().div_ceil(count);
        let pieces: Vec<_> = frame.chunks(size).collect();
        let mut reassembly = Reassembly::new(MAX_FRAME);
        let order: Vec<_> = order.into_iter().filter(|index| *index < pieces.len()).collect();
        prop_assume!(pieces.len() > 1);
        for (place, &index) in order.iter().enumerate() {
            let part = fragment(500, index as u8, index + 1 == pieces.len(), pieces[index]);
            let result = reassembly.add(part, NOW).unwrap();
            prop_assert_eq!(result.is_some(), place + 1 == order.len());
            if let Some(whole) = result {
                prop_assert_eq!(&whole.bytes, &frame);
                prop_assert_eq!(whole.inner, header());
            }
        }
    }

    #[test]
    fn any_fragments_keep_the_bounds(parts in prop::collection::vec((0u32..200, 0u8..16, any::<bool>(), 0usize..40, 0u16..3, 0u64..3000), 0..300)) {
        let mut reassembly = Reassembly::new(300);
        let bytes = [0; 40];
        for (counter, index, last, len, link, at) in parts {
            let now = NOW + Duration::from_millis(at);
            reassembly.expire(now);
            let part = Fragment {
                link: LinkId(link),
                counter,
                inner: header().of_fragment(index, last),
                ..fragment(0, 0, false, &bytes[..len])
            };
            if let Ok(Some(whole)) = reassembly.add(part, now) {
                prop_assert!(whole.bytes.len() <= 300);
                reassembly.give_back(whole.bytes);
            }
            let held: usize = reassembly.partials.iter().map(|partial| partial.bytes.len()).sum();
            prop_assert_eq!(reassembly.held, held);
            prop_assert!(reassembly.partials.len() <= 3 * MAX_PARTIAL_FRAMES_OF_LINK);
            prop_assert!(reassembly.spare.len() <= MAX_PARTIAL_FRAMES);
        }
    }
}
