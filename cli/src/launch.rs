//! Starting a router: options, the configuration they make, and handing both
//! over to a process in the background.

mod handover;
mod options;
mod passwords;
mod resolve;
mod spawn;

pub use handover::{Readiness, read_secrets};
pub use options::{LaunchOptions, log_level};
pub use resolve::{Resolved, Role, resolve};
pub use spawn::{make_run_dir, spawn};
