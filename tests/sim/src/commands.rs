//! What `weave-sim` can do.

pub mod cuts;
pub mod run;
