//! What the mesh refused, by reason, and what it did.

/// Counts since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MeshCounters {
    /// Parts of others accepted.
    pub accepted: u64,
    /// Parts received that were not newer than what was there.
    pub stale: u64,
    /// Parts whose signature is not their owner's.
    pub forged: u64,
    /// Parts or links under a second key for a name.
    pub key_conflict: u64,
    /// Digests and parts of version 2^64-1.
    pub version_limit: u64,
    /// Parts whose content cannot be read; kept, without effect.
    pub unreadable: u64,
    /// Parts of a peer that said farewell.
    pub farewelled: u64,
    /// Parts refused because the table of peers is full.
    pub peers_full: u64,
    /// Parts refused, or not asked for, because their owner has too many.
    pub parts_full: u64,
    /// Parts refused because all together are too long.
    pub bytes_full: u64,
    /// Peers that gave way to others.
    pub evicted: u64,
    /// Peers collected after they were unreachable for long.
    pub collected: u64,
    /// Digests not followed, or no longer, because too much is wanted already.
    pub wants_full: u64,
    /// Requests for parts not answered because too many are waiting.
    pub pulls_full: u64,
    /// Requests for parts that nobody answered.
    pub unanswered: u64,
    /// Stations or addresses of others beyond the limits.
    pub stations_full: u64,
    /// Names of others beyond the limits.
    pub names_full: u64,
    /// Own stations or names that found no room in the parts.
    pub does_not_fit: u64,
    /// Copies of our own parts that were at or above ours.
    pub own_copies: u64,
    /// Routes computed.
    pub route_runs: u64,
    /// Own parts published.
    pub published: u64,
}
