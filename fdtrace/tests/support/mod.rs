//! What the tests that need root share: a running fdtrace whose every line is kept, and JSON
//! without ceremony.

#![allow(dead_code, unused_imports, reason = "each test target uses its own part")]

mod daemon;
mod fdtrace;
mod json;
mod remedy;

pub(crate) use daemon::{Daemon, eventually, free_port};
pub(crate) use fdtrace::{Fdtrace, Run, binary, buffer_arguments, form_arguments};
pub(crate) use json::{number, same};
pub(crate) use remedy::{Diagnosed, carry_out};
