//! The router daemon: what joins forwarding shards, mesh and control socket.
//!
//! `daemon` starts and ends the process with what `ground` opens, `control` is the core that owns all
//! links, `state` what outlives a run, `rt` the runtime behind it. The layers
//! below are crates of their own: `weave-forward`, `weave-mesh`,
//! `weave-crypto`, `weave-wire`.

pub mod config;
mod control;
mod daemon;
mod ground;
pub mod logging;
pub mod privileges;
mod rt;
mod seccomp;
mod secrets;
mod state;

pub use config::Config;
pub use daemon::{LOCKED_MEMORY_MIN, RunError, run};
pub use state::{FILES as STATE_FILES, StateError};
pub use weave_crypto::Failure as HandshakeFailure;
pub use weave_forward::{Features, ProbeError, SOCKET_BUFFER, probe as probe_kernel};
