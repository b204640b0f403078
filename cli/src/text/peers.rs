//! `status peers`: each peer and its links.

use std::fmt::Write;

use weave_api::status::{Peer, PeerConnection};

use super::connections::arrow;
use super::peer;

/// A line for each peer, under it a line for each of its links.
pub fn peers(list: &[Peer]) -> String {
    let links = || list.iter().flat_map(|peer| &peer.connections);
    let addresses = links().map(|link| address(link).len()).max().unwrap_or(0).max(21);
    let names = links().map(|link| peer(link.peer, Some(&link.nickname)).len()).max().unwrap_or(0).max(37);
    let mut text = String::new();
    for one in list {
        let _ = writeln!(text, "{}", peer(one.name, Some(&one.nickname)));
        for link in &one.connections {
            let state = if link.established { "established" } else { "pending" };
            let sealed = if link.encrypted { "encrypted" } else { "unencrypted" };
            let name = peer(link.peer, Some(&link.nickname));
            let address = address(link);
            let _ = writeln!(
                text,
                "   {} {address:addresses$} {name:names$} {state:11} {sealed}",
                arrow(link.direction)
            );
        }
    }
    text
}

/// Where the other end of a link is; `-` while that is not known yet.
fn address(link: &PeerConnection) -> String {
    link.address.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string)
}
