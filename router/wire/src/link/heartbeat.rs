//! Messages of the control lane.

/// Length of the body of a keep-alive of a data lane, bytes, all zero.
pub const KEEP_ALIVE_LEN: usize = 8;
