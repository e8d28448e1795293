//! Stage 1: everything that calls bpf(2). Out go records as bytes, counts and losses.
//!
//! aya is used here and nowhere else; nothing here knows what a record means.

mod btf;
mod error;
mod load;
mod mapped;
mod probes;
mod slots;
mod support;
mod tracefs;

pub use error::HostError;
pub use load::{Kernel, Options};
pub use slots::Count;
