//! Reading the machine's console: everything on it is shown, results and the exit code are kept.

use std::io::{BufRead, BufReader, Read};

use crate::counts::Counts;

/// What /init writes at the end, before the exit code.
const EXIT: &str = "FDTRACE-VM-EXIT ";
/// What the task writes before a line that is for whoever booted the machine, and not shown.
pub(crate) const RESULT: &str = "FDTRACE-VM-RESULT ";

/// What was read from the console.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    /// `None`: the machine went off before its task had ended.
    pub(crate) exit_code: Option<i32>,
    pub(crate) counts: Counts,
    /// The lines that the task marked as results.
    pub(crate) results: Vec<String>,
    /// The emulator met a breakpoint that the kernel had already taken away, and the kernel fell over
    /// it. The kernel sets them while it patches its own code (arch/x86/kernel/alternative.c
    /// text_poke_bp_batch), and on a host whose CPUs are busy the emulator's CPUs may see the old
    /// bytes for too long.
    pub(crate) lost_breakpoint: bool,
}

/// How the kernel says so.
const STRAY_BREAKPOINT: &str = "Oops: int3:";

/// Shows and reads the console until it tells the exit code, or until its end.
pub(crate) fn follow(console: impl Read) -> Seen {
    let mut console = BufReader::new(console);
    let mut seen = Seen::default();
    let mut bytes = Vec::new();
    // An unreadable console has ended: what is missing then is the exit code.
    while console.read_until(b'\n', &mut bytes).is_ok_and(|length| length > 0) {
        let text = String::from_utf8_lossy(&bytes);
        let line = text.trim_end_matches(['\r', '\n']);
        if let Some(result) = line.strip_prefix(RESULT) {
            seen.results.push(result.to_owned());
            bytes.clear();
            continue;
        }
        println!("{line}");
        if let Some(code) = line.strip_prefix(EXIT) {
            seen.exit_code = code.trim().parse().ok();
            break;
        }
        seen.lost_breakpoint |= line.contains(STRAY_BREAKPOINT);
        if let Some(counts) = Counts::from_line(line) {
            seen.counts += counts;
        }
        bytes.clear();
    }
    seen
}

#[cfg(test)]
mod tests {
    use super::{Counts, Seen, follow};

    #[test]
    fn results_and_the_exit_code_are_kept() {
        let text = "\u{fffd}boot\r\ntest result: ok. 2 passed; 0 failed; 1 ignored; 0 measured\r\n\
                    FDTRACE-VM-RESULT {}\r\n\r\nFDTRACE-VM-EXIT 0\r\n";
        let counts = Counts { passed: 2, failed: 0, skipped: 1 };
        let results = vec!["{}".to_owned()];
        let seen = Seen { exit_code: Some(0), counts, results, lost_breakpoint: false };
        assert_eq!(follow(text.as_bytes()), seen);
    }

    #[test]
    fn a_machine_that_fell_over_has_no_exit_code() {
        let text = "echo FDTRACE-VM-EXIT 0\r\nKernel panic\r\n";
        assert_eq!(follow(text.as_bytes()), Seen::default());
        let text = "[    2.18] Oops: int3: 0000 [#1] PREEMPT SMP NOPTI\r\nKernel panic\r\n";
        assert_eq!(follow(text.as_bytes()), Seen { lost_breakpoint: true, ..Seen::default() });
    }
}
