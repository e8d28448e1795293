//! Stage 5: facts become causes, evidence and remedies. Pure: what is not known is not guessed.

mod accept_fails;
mod backlog;
mod behaviour;
mod evidence;
mod growth;
mod held;
mod leak;
mod load;
mod queue;
mod slow_acceptor;
mod syn_flood;
mod sysctl;

pub use behaviour::{AcceptFacts, FailureSample, QueueSample, behaviour};
pub use held::{HeldFacts, held};
pub use queue::{QueueFacts, queue};
pub use syn_flood::{SynFacts, syn_flood};
