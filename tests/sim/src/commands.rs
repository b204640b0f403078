//! What `weave-sim` can do.

pub mod curve;
pub mod cuts;
pub mod run;
