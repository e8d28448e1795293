//! What `fdtrace listeners` says of listeners that this very process has made, with so many clients
//! waiting. It needs no privileges; what only root can do is left out without them.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../support/mod.rs"]
mod support;

mod listener;
mod namespaces;
mod output;
mod owners;
mod queues;
