//! How many tests passed, failed and were skipped, read from what cargo's test programs print.

use std::fmt;
use std::ops::AddAssign;

/// A sum over test programs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) skipped: u64,
}

impl Counts {
    /// Reads `test result: ok. 3 passed; 0 failed; 1 ignored; …`; `None` for any other line.
    pub(crate) fn from_line(line: &str) -> Option<Self> {
        let (_, result) = line.split_once("test result: ")?;
        let number_before = |word: &str| {
            let (before, _) = result.split_once(word)?;
            before.trim_end().rsplit(' ').next()?.parse().ok()
        };
        Some(Self {
            passed: number_before(" passed;")?,
            failed: number_before(" failed;")?,
            skipped: number_before(" ignored;")?,
        })
    }

    /// One check that is not a test program's: it failed.
    pub(crate) const FAILED: Self = Self { passed: 0, failed: 1, skipped: 0 };
    /// One check that is not a test program's: it passed.
    pub(crate) const PASSED: Self = Self { passed: 1, failed: 0, skipped: 0 };
    /// One check that could not be made here.
    pub(crate) const SKIPPED: Self = Self { passed: 0, failed: 0, skipped: 1 };
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

#[cfg(test)]
mod tests {
    use super::Counts;

    #[test]
    fn result_lines_are_read() {
        let line = "test result: FAILED. 12 passed; 3 failed; 1 ignored; 0 measured; 4 filtered \
                    out; finished in 0.31s";
        let counts = Counts::from_line(line).unwrap();
        assert_eq!(counts, Counts { passed: 12, failed: 3, skipped: 1 });
        assert_eq!(counts.to_string(), "12 passed, 3 failed, 1 skipped");
    }

    #[test]
    fn a_colour_does_not_hide_a_result() {
        let line = "test result: \x1b[32mok\x1b[m. 2 passed; 0 failed; 0 ignored; 0 measured";
        assert_eq!(Counts::from_line(line).unwrap().passed, 2);
    }

    #[test]
    fn other_lines_are_not_results() {
        assert_eq!(Counts::from_line("test a::b ... ok"), None);
        assert_eq!(Counts::from_line("test result: ok."), None);
    }
}
