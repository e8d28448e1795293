//! Phrases that several causes use.

use std::{fmt::Write, time::Duration};

use super::{Bite, Side, limit};
use crate::model::{Ancestor, FileFact, Place, Runtime, Setting, SettingSource};

/// `supervisord[812]`.
pub(super) fn name(process: &Ancestor) -> String {
    format!("{}[{}]", process.comm.to_text(), process.id.pid)
}

/// `/etc/supervisord.conf:12`.
pub(super) fn at(file: &FileFact) -> String {
    let mut text = file.path.display().to_string();
    if let Some(line) = file.line {
        let _ = write!(text, ":{line}");
    }
    text
}

/// `soft nofile limit 1024 (hard 4096)`, `nofile limit 4096 (soft and hard)`.
pub(super) fn the_limit(bite: Bite) -> String {
    match bite.side() {
        Side::Soft => format!("soft nofile limit {} (hard {})", bite.soft, limit(bite.hard)),
        Side::Hard => format!("nofile limit {} (soft and hard)", bite.soft),
    }
}

/// What a setting is called where it is written.
pub(super) fn directive(setting: &Setting) -> String {
    match &setting.source {
        SettingSource::Unit(_) => "LimitNOFILE=".into(),
        SettingSource::UnitDefault(_) => "DefaultLimitNOFILE=".into(),
        SettingSource::Minfds { .. } => "minfds".into(),
        SettingSource::Login { user } => format!("nofile of {user}"),
        SettingSource::Container { .. } => "the container's nofile ulimit".into(),
        SettingSource::ContainerDefault { .. } => "the default nofile ulimit of containers".into(),
        SettingSource::RunScript => "the script's limit".into(),
        SettingSource::Own { program } => program.directive().into(),
    }
}

/// `LimitNOFILE= in /etc/systemd/system/web.service:7`, `minfds, which is not set in FILE`.
pub(super) fn directive_at(setting: &Setting) -> String {
    let name = directive(setting);
    match &setting.place {
        Place::File(file) => format!("{name} in {}", at(file)),
        Place::CommandLine => format!("{name} on its command line"),
        Place::BuiltIn(Some(file)) => {
            format!("the built-in {name}, for {} sets none", file.path.display())
        }
        Place::BuiltIn(None) => format!("the built-in {name}"),
    }
}

/// `23 days`, `5 hours`, `1 minute`: the largest unit that there are two of, or the smallest.
pub(super) fn span(span: Duration) -> String {
    let seconds = span.as_secs();
    let units = [("day", 86_400), ("hour", 3600), ("minute", 60), ("second", 1)];
    let (unit, size) =
        units.into_iter().find(|(_, size)| seconds / size >= 2).unwrap_or(("second", 1));
    let count = seconds / size;
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {unit}{plural}")
}

/// What a runtime does with its soft limit by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Raises {
    /// It raises it to the hard limit when it starts.
    Yes,
    /// It leaves it as it is.
    No,
    /// Nobody knows.
    Unknown,
}

pub(super) fn raises(runtime: &Runtime) -> Raises {
    match runtime {
        // os/rlimit.go since 1.19, syscall/rlimit.go since 1.21.
        Runtime::Go(version) => match go_minor(version) {
            Some(minor) if minor >= 19 => Raises::Yes,
            Some(_) => Raises::No,
            None => Raises::Unknown,
        },
        // os_linux.cpp os::init_2, src/node.cc PlatformInit.
        Runtime::Java { raises: true } | Runtime::Node => Raises::Yes,
        Runtime::Java { raises: false } | Runtime::Python | Runtime::Postgres => Raises::No,
        Runtime::Program(_) | Runtime::Other | Runtime::Unknown => Raises::Unknown,
    }
}

/// Whether a Go program that has raised its soft limit starts others with the one that it got itself
/// (syscall/rlimit.go, syscall/exec_linux.go since 1.21, and in 1.20.4 and 1.19.9). Before, its
/// children got the raised one.
pub(super) fn gives_on_what_it_got(version: &str) -> bool {
    match go_minor(version) {
        Some(19) => go_patch(version) >= 9,
        Some(20) => go_patch(version) >= 4,
        Some(minor) => minor > 20,
        None => false,
    }
}

/// `go1.21.3` → 21.
fn go_minor(version: &str) -> Option<u32> {
    leading_number(version.strip_prefix("go1.")?)
}

/// `go1.21.3` → 3, `go1.21`, `go1.21rc2` → 0.
fn go_patch(version: &str) -> u32 {
    let patch = version.splitn(3, '.').nth(2);
    patch.and_then(leading_number).unwrap_or_default()
}

fn leading_number(text: &str) -> Option<u32> {
    let end = text.bytes().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len());
    text[..end].parse().ok()
}

/// `Go 1.18.3`.
pub(super) fn runtime(runtime: &Runtime) -> Option<String> {
    match runtime {
        Runtime::Go(version) => {
            Some(format!("Go {}", version.strip_prefix("go").unwrap_or(version)))
        }
        Runtime::Java { .. } => Some("Java".into()),
        Runtime::Node => Some("Node.js".into()),
        Runtime::Python => Some("Python".into()),
        Runtime::Postgres => Some("PostgreSQL".into()),
        Runtime::Program(program) => Some(program.name().into()),
        Runtime::Other | Runtime::Unknown => None,
    }
}

/// Quotes an argument for a POSIX shell, if it needs it.
pub(super) fn quoted(argument: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-@:=%+,".contains(&byte);
    if !argument.is_empty() && argument.bytes().all(is_plain) {
        argument.to_owned()
    } else {
        format!("'{}'", argument.replace('\'', "'\\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans() {
        for (seconds, expected) in [
            (0, "0 seconds"),
            (1, "1 second"),
            (119, "119 seconds"),
            (120, "2 minutes"),
            (7199, "119 minutes"),
            (7200, "2 hours"),
            (47 * 3600, "47 hours"),
            (23 * 86_400 + 5, "23 days"),
        ] {
            assert_eq!(span(Duration::from_secs(seconds)), expected);
        }
    }

    #[test]
    fn what_runtimes_do() {
        for (version, expected) in [
            ("go1.18.3", Raises::No),
            ("go1.19", Raises::Yes),
            ("go1.21.3 X:nocoverageredesign", Raises::Yes),
            ("go1.9.7", Raises::No),
            ("devel +abc", Raises::Unknown),
        ] {
            assert_eq!(raises(&Runtime::Go(version.into())), expected, "{version}");
        }
        assert_eq!(raises(&Runtime::Java { raises: false }), Raises::No);
    }

    #[test]
    fn what_go_gives_on() {
        for (version, expected) in [
            ("go1.18.10", false),
            ("go1.19.8", false),
            ("go1.19.9", true),
            ("go1.20", false),
            ("go1.20.3", false),
            ("go1.20.14", true),
            ("go1.21rc2", true),
            ("go1.24.4 X:nocoverageredesign", true),
            ("devel +abc", false),
        ] {
            assert_eq!(gives_on_what_it_got(version), expected, "{version}");
        }
    }

    #[test]
    fn quoting() {
        assert_eq!(quoted("/etc/a-b_c@1.conf"), "/etc/a-b_c@1.conf");
        assert_eq!(quoted("/etc/a b"), "'/etc/a b'");
        assert_eq!(quoted("a'b;$(x)"), "'a'\\''b;$(x)'");
        assert_eq!(quoted(""), "''");
    }
}
