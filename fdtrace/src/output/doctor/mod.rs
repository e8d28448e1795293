//! What `fdtrace doctor` found out, as text for a person or as JSON for programs.

mod json;
#[cfg(test)]
mod tests;
mod text;
mod wrap;

pub use json::doctor_json;
pub use text::doctor_text;
