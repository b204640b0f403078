//! Whole meshes in one process, delivered at once.

mod claims;
mod net;
mod restart;
mod scale;
mod topology;
mod trust;
