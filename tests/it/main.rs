//! The program as a whole: the real binary against real servers.

#[path = "../support/mod.rs"]
mod support;

mod bed;
mod bundle;
