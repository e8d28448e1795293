//! One process looked at closely, as text for a person, or as JSON lines for programs.

mod facts;
mod json;
#[cfg(test)]
mod tests;
mod text;

pub(in crate::output) use json::On;
pub use json::explain_json;
pub use text::{explain_text, listener_query};
