//! The list of listeners as a table for a person, or as JSON lines for programs.

mod json;
#[cfg(test)]
mod tests;
mod text;

pub use json::listeners_json;
pub use text::listeners_text;
