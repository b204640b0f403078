//! Optional abilities of a router, one bit each. A router tells its own in the hello of each
//! handshake, and to the whole mesh in its host part; unknown bits are kept and mean nothing.

/// It answers echoes (frames of the kinds 1 and 2), and relays those of others.
pub const ECHOES: u64 = 1;

/// Those of this code.
pub const OURS: u64 = ECHOES;
