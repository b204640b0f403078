//! One file for each command.

pub mod attach;
pub mod check;
pub mod completions;
pub mod connect;
mod container;
pub mod create_bridge;
pub mod demo;
pub mod detach;
pub mod dns;
pub mod expose;
pub mod forget;
pub mod former;
pub mod keeper;
pub mod launch;
pub mod log_level;
pub mod man;
pub mod ping;
pub mod ps;
pub mod reload;
pub mod report;
pub mod reset;
pub mod router;
pub mod run;
pub mod start;
pub mod status;
pub mod stop;
pub mod version;
