//! What is wrong with listeners' processes, as text for a person, or as JSON lines for programs.

mod json;
#[cfg(test)]
mod tests;
mod text;

pub use json::audit_json;
pub use text::audit_text;
