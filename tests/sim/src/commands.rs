//! What `weave-sim` can do.

pub mod run;
