//! Messages between two routers: the handshake, the TCP link, the control lane.

pub mod heartbeat;
