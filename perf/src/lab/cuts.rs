//! Paths between hosts that are cut and healed at run time.

use std::collections::BTreeSet;
use std::sync::PoisonError;

use super::Lab;
use super::error::Result;
use super::tool;

/// What a cut takes away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Traffic {
    /// Every packet.
    All,
    /// UDP.
    Udp,
    /// TCP.
    Tcp,
    /// TCP and UDP to this port.
    To(u16),
    /// Packets of flows that the receiving host did not begin, as a firewall does; flows that run
    /// when the cut is made count as begun by the next packet seen.
    NotBegun,
}

/// What a host does not receive from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Cut {
    from: usize,
    to: usize,
    traffic: Traffic,
}

impl Lab {
    /// From now on host `to` receives none of this traffic from host `from`, established flows
    /// included; nobody is told. Follows both when their addresses change.
    ///
    /// # Errors
    /// When the rules cannot be set.
    pub fn cut_way(&self, from: usize, to: usize, traffic: Traffic) -> Result<()> {
        let mut cuts = self.cuts.lock().unwrap_or_else(PoisonError::into_inner);
        cuts.insert(Cut { from, to, traffic });
        self.enforce(to, cuts.iter())
    }

    /// The same in both directions, one just after the other.
    ///
    /// # Errors
    /// When the rules cannot be set.
    pub fn cut(&self, one: usize, other: usize, traffic: Traffic) -> Result<()> {
        self.cut_way(one, other, traffic)?;
        self.cut_way(other, one, traffic)
    }

    /// Ends all cuts between two hosts, in both directions.
    ///
    /// # Errors
    /// When the rules cannot be set.
    pub fn heal(&self, one: usize, other: usize) -> Result<()> {
        let mut cuts = self.cuts.lock().unwrap_or_else(PoisonError::into_inner);
        cuts.retain(|cut| (cut.from, cut.to) != (one, other) && (cut.from, cut.to) != (other, one));
        self.enforce(one, cuts.iter())?;
        self.enforce(other, cuts.iter())
    }

    /// Sets the rules of all cuts from `host` again: its addresses have changed.
    pub(super) fn follow(&self, host: usize) -> Result<()> {
        let cuts = self.cuts.lock().unwrap_or_else(PoisonError::into_inner);
        let receivers: BTreeSet<usize> =
            cuts.iter().filter(|cut| cut.from == host).map(|cut| cut.to).collect();
        receivers.into_iter().try_for_each(|to| self.enforce(to, cuts.iter()))
    }

    fn enforce<'a>(&self, to: usize, cuts: impl Iterator<Item = &'a Cut>) -> Result<()> {
        let mut sources = Vec::new();
        for cut in cuts.filter(|cut| cut.to == to) {
            sources.extend(self.host(cut.from).seen_as()?.into_iter().map(|source| (source, cut.traffic)));
        }
        tool::replace_rules(self.host(to).namespace(), |family| {
            let (mut raw, mut mangle) = (String::new(), String::new());
            for (source, traffic) in &sources {
                if source.is_ipv4() != (family == 4) {
                    continue;
                }
                let (table, matches) = match traffic {
                    Traffic::All => (&mut raw, vec![String::new()]),
                    Traffic::Udp => (&mut raw, vec![" -p udp".into()]),
                    Traffic::Tcp => (&mut raw, vec![" -p tcp".into()]),
                    Traffic::To(port) => {
                        (&mut raw, ["tcp", "udp"].map(|kind| format!(" -p {kind} --dport {port}")).into())
                    }
                    Traffic::NotBegun => (&mut mangle, vec![" -m conntrack --ctstate NEW".into()]),
                };
                for what in matches {
                    table.push_str(&format!("-A PREROUTING -s {source}{what} -j DROP\n"));
                }
            }
            format!(
                "*raw\n:PREROUTING ACCEPT [0:0]\n{raw}COMMIT\n*mangle\n:PREROUTING ACCEPT [0:0]\n{mangle}COMMIT\n"
            )
        })
    }
}
