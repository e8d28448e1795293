//! The life of a run of failures.

/// What a report of an episode says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Its first failure.
    Opened,
    /// It lasts.
    Updated,
    /// It is over.
    Closed(Outcome),
}

/// How an episode ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Calls do not fail any more.
    Recovered,
    /// The process is gone.
    Exited,
    /// It had not ended when fdtrace stopped.
    Unfinished,
}

impl Outcome {
    /// Its stable name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Recovered => "recovered",
            Self::Exited => "exited",
            Self::Unfinished => "unfinished",
        }
    }
}
