//! How large a datagram each link's path carries.

use super::*;
use weave_mesh::{PathMtu, Probe};
use weave_wire::{FRAME_OVERHEAD, INNER_LEN, OUTER_LEN, TAG_LEN};

/// Length of a VLAN tag (IEEE 802.1Q), for which there is room in the longest frame.
const VLAN_TAG_LEN: u16 = 4;
/// What every path carries, bytes of UDP payload: the smallest MTU of IPv4
/// (RFC 791) and of IPv6 (RFC 8200) without their headers and that of UDP.
const FLOOR: (u16, u16) = (576 - 28, 1280 - 48);

impl Core {
    /// The longest datagram this network ever needs.
    fn longest_datagram(&self) -> u16 {
        let len = usize::from(self.config.mtu) + FRAME_OVERHEAD + OUTER_LEN + INNER_LEN + TAG_LEN;
        u16::try_from(len).unwrap_or(u16::MAX)
    }

    /// Begins to look into the path of a link.
    pub(super) fn begin_path(&mut self, id: LinkId, now: Duration) {
        let ceiling = self.longest_datagram();
        let Some(link) = self.links.get_mut(&id) else { return };
        let v6 = link.roaming.as_ref().is_some_and(|roaming| roaming.address().is_ipv6());
        let floor = if v6 { FLOOR.1 } else { FLOOR.0 };
        link.path = Some(PathMtu::new(floor, ceiling - VLAN_TAG_LEN, ceiling, now));
    }

    /// Changes what is known of a link's path, and tells the shards.
    pub(super) fn with_path<T>(
        &mut self,
        id: LinkId,
        now: Duration,
        change: impl FnOnce(&mut PathMtu) -> T,
    ) -> Option<T> {
        let link = self.links.get_mut(&id)?;
        let path = link.path.as_mut()?;
        let before = (path.usable(), path.is_searching());
        let result = change(path);
        let (datagram, searching) = (path.usable(), path.is_searching());
        if before != (datagram, searching) {
            if !path.is_reduced() {
                link.path_reduced = None;
            } else if link.path_reduced.is_none() {
                link.path_reduced = Some(now);
            }
            tracing::debug!(peer = %link.peer.name, datagram, searching, "what the path carries");
            self.command_all(|| Command::SetPathMtu { link: id, datagram, advise: !searching });
        }
        Some(result)
    }

    /// Sends probes of the path, if any are due; returns whether it did.
    pub(super) fn probe_path(&mut self, id: LinkId, now: Duration) -> bool {
        let round_trip = self.links.get(&id).and_then(|link| link.liveness.as_ref()?.rtt());
        let probes = self.with_path(id, now, |path| {
            if let Some(round_trip) = round_trip {
                path.set_round_trip(round_trip);
            }
            path.poll(now)
        });
        let probes = probes.unwrap_or_default();
        let Some(Probe { number: first, .. }) = probes.first().copied() else { return false };
        let lens = probes.iter().map(|probe| probe.len).collect();
        // What is not sent is sent again like what is lost.
        self.command_quietly(0, Command::Probe { link: id, first, lens })
    }

    /// A probe of the peer came through.
    pub(super) fn on_probe(&mut self, id: LinkId, number: u64, len: u16) {
        let Some(link) = self.links.get(&id) else { return };
        let mesh_port = link.ports.one_port().is_some();
        self.send_control(id, &ControlMessage::PathAck { number, len }, mesh_port);
    }
}
