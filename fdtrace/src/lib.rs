//! fdtrace: which process, on which port, cannot accept connections.
//!
//! `kernel maps + ring → decode → enrich → aggregate → diagnose → terminal | JSON lines`
//!
//! The stages stand in the order of that flow. They exchange the types of [`model`] and do not
//! know each other; only [`pipeline`] does.

pub mod cli;
pub mod model;

pub mod kernel;

pub mod decode;

pub mod enrich;

pub mod aggregate;

pub mod diagnose;

pub mod output;

pub mod pipeline;

pub mod listeners;

pub mod doctor;
pub mod explain;

pub mod audit;

pub mod daemon;
