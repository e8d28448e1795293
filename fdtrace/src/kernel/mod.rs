//! Stage 1: everything that calls bpf(2). Out go records as bytes, counts and losses.
//!
//! aya is used here and nowhere else; nothing here knows what a record means.

mod attach;
mod btf;
mod descriptors;
mod error;
mod examine;
mod load;
mod mapped;
mod plan;
mod probes;
mod program_log;
mod records;
mod return_probe;
mod slots;
mod support;
mod tracefs;

pub use attach::Attached;
pub use descriptors::Descriptors;
pub use error::HostError;
pub use examine::{Examination, Timing};
pub use load::{Kernel, Options};
pub use plan::{FormChoice, FormRequest, Refused, Request, probe_names};
pub use probes::NO_FORM;
pub use records::Buffer;
pub use slots::Count;
