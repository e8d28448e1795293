//! What the exit code says.

/// How a run ended. The numbers are promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ExitCode {
    /// Stopped as asked, or the reader of its output went away.
    Clean = 0,
    /// Something failed while running, or what was asked for is not there.
    Runtime = 1,
    /// The command line is wrong, or the configuration.
    Usage = 2,
    /// The host cannot be traced.
    Unsupported = 3,
    /// It may not trace the host.
    NotPermitted = 4,
    /// Exhaustion was seen, and `--fail-on-exhaustion` given; or an audit found what `--fail-on`
    /// names.
    Exhaustion = 10,
}

impl From<ExitCode> for std::process::ExitCode {
    fn from(code: ExitCode) -> Self {
        Self::from(code as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_promised() {
        let numbers = [
            (ExitCode::Clean, 0),
            (ExitCode::Runtime, 1),
            (ExitCode::Usage, 2),
            (ExitCode::Unsupported, 3),
            (ExitCode::NotPermitted, 4),
            (ExitCode::Exhaustion, 10),
        ];
        for (code, number) in numbers {
            assert_eq!(code as u8, number);
        }
    }
}
