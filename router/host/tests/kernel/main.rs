//! What is changed in the kernel, in namespaces of the tests' own. Needs root.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod attach;
mod bridge_and_tap;
mod common;
#[cfg(feature = "engine")]
mod keeper;
mod named;
mod records;
