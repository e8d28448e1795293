//! How many file descriptors a process may have, and has.

use std::fmt;

/// A resource limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// So many.
    Of(u64),
    /// `RLIM_INFINITY`.
    Unlimited,
}

impl Limit {
    /// From the kernel's `rlim_t`.
    #[must_use]
    pub const fn from_rlim(value: u64) -> Self {
        if value == u64::MAX { Self::Unlimited } else { Self::Of(value) }
    }

    /// The number, where there is one.
    #[must_use]
    pub const fn number(self) -> Option<u64> {
        match self {
            Self::Of(number) => Some(number),
            Self::Unlimited => None,
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Of(number) => write!(f, "{number}"),
            Self::Unlimited => f.write_str("unlimited"),
        }
    }
}

/// `RLIMIT_NOFILE` of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FdLimits {
    /// The one that is enforced.
    pub soft: Limit,
    /// How far the process may raise the soft one itself.
    pub hard: Limit,
}

/// Use beside limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FdUsage {
    /// Open descriptors; `None` where nobody could say.
    pub open: Option<u64>,
    /// The limits; `None` where nobody could say.
    pub limits: Option<FdLimits>,
}

impl FdUsage {
    /// Whether every descriptor below the soft limit is in use; `None` where unknown.
    #[must_use]
    pub fn is_at_limit(&self) -> Option<bool> {
        match (self.open?, self.limits?.soft) {
            (open, Limit::Of(soft)) => Some(open >= soft),
            (_, Limit::Unlimited) => Some(false),
        }
    }
}
