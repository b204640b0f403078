//! The DNS sidecar's place; nothing is promised until it does something.
//!
//! It will answer the names of containers (`weave.local`) with hickory-server on
//! tokio, in a process of its own that speaks to the router over a socket of
//! names and to nobody else. The issue that brings names fills this crate; the
//! executable does not link it yet.
