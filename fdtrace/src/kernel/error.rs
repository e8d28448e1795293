//! Why this host does not let fdtrace attach.

use std::{error::Error, io};

/// A host on which fdtrace cannot work as it was started. The texts say what to do next.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// Privileges are missing.
    #[error("{0}")]
    NotPermitted(String),
    /// The host lacks something, or forbids it to root too.
    #[error("{0}")]
    Unsupported(String),
}

/// The errno at the bottom of an error, if there is one.
pub(super) fn errno_of(error: &(dyn Error + 'static)) -> Option<i32> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(errno) = error.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error) {
            return Some(errno);
        }
        next = error.source();
    }
    None
}
