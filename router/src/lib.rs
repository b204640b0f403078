//! The router daemon: control core, forwarding shards and what joins them.
pub mod config;

pub use config::Config;
