//! The limit that a script sets: the `run` script of runit or s6 before it becomes the service, or one
//! that starts a program and stays its parent.

use std::{
    ffi::OsStr,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use super::root::{Root, Text};
use crate::model::{Limit, Place, Setting, SettingSource};

/// Reads `run` in the directory of the supervisor. A script that sets nothing is told too: it is
/// where a limit would be set.
pub(super) fn setting(root: &Root, dir: &Path, unknown: &mut Vec<String>) -> Option<Setting> {
    let text = match root.read(&dir.join("run")) {
        Ok(text) => text?,
        Err(error) => {
            unknown.push(error);
            return None;
        }
    };
    let nowhere = || Setting {
        source: SettingSource::RunScript,
        soft: None,
        hard: None,
        place: Place::BuiltIn(Some(text.fact.clone())),
    };
    Some(last(&text).unwrap_or_else(nowhere))
}

/// What a shell was given to run. One that sets nothing is not told: a shell need not be what starts
/// the program with less.
pub(super) fn of_shell(
    root: &Root,
    arguments: &[Vec<u8>],
    cwd: Option<&Path>,
    unknown: &mut Vec<String>,
) -> Option<Setting> {
    let mut rest = arguments.iter().skip(1);
    let first = rest.find(|argument| !is_option(argument) || takes_command(argument))?;
    if takes_command(first) {
        let text = String::from_utf8_lossy(rest.next()?);
        let (soft, hard) = text.lines().filter_map(of_line).next_back()?;
        let place = Place::CommandLine;
        return Some(Setting { source: SettingSource::RunScript, soft, hard, place });
    }
    let path = PathBuf::from(OsStr::from_bytes(first));
    let path = if path.is_absolute() { path } else { cwd?.join(path) };
    // What it was handed on a descriptor is no script that can be found again.
    if path.starts_with("/dev") || path.starts_with("/proc") {
        return None;
    }
    match root.read(&path) {
        Ok(text) => last(&text?),
        Err(error) => {
            unknown.push(error);
            None
        }
    }
}

fn is_option(argument: &[u8]) -> bool {
    argument.first().is_some_and(|byte| b"-+".contains(byte))
}

/// `-c`, `-ec`: what follows is no file.
fn takes_command(argument: &[u8]) -> bool {
    argument.starts_with(b"-") && !argument.starts_with(b"--") && argument.contains(&b'c')
}

/// The last line of a script that sets a limit.
fn last(text: &Text) -> Option<Setting> {
    let found = text.text.lines().enumerate().filter_map(|(at, line)| Some((at, of_line(line)?)));
    let (at, (soft, hard)) = found.last()?;
    let place = Place::File(text.at(at));
    Some(Setting { source: SettingSource::RunScript, soft, hard, place })
}

/// `ulimit -n N` of a shell, `chpst -o N`, `softlimit -o N`: the latter two set the soft limit.
fn of_line(line: &str) -> Option<(Option<Limit>, Option<Limit>)> {
    let line = line.split('#').next().unwrap_or(line);
    let words: Vec<&str> = line.split([' ', '\t', ';', '&', '|']).collect();
    let mut rest = words.iter().skip_while(|word| !is_tool(word));
    let tool = *rest.next()?;
    if tool == "ulimit" {
        let mut kinds = String::new();
        for word in rest {
            if let Some(flags) = word.strip_prefix('-') {
                kinds.push_str(flags);
            } else if kinds.contains('n') {
                let limit = Some(limit(word)?);
                return match (kinds.contains('S'), kinds.contains('H')) {
                    (true, false) => Some((limit, None)),
                    (false, true) => Some((None, limit)),
                    _ => Some((limit, limit)),
                };
            }
        }
        return None;
    }
    let mut rest = rest.skip_while(|word| !word.starts_with("-o"));
    let value = rest.next()?.strip_prefix("-o")?;
    let value = if value.is_empty() { rest.next()? } else { value };
    Some((Some(limit(value)?), None))
}

fn is_tool(word: &str) -> bool {
    let name = word.rsplit('/').next().unwrap_or(word);
    matches!(name, "ulimit" | "chpst" | "softlimit" | "s6-softlimit")
}

fn limit(text: &str) -> Option<Limit> {
    if text == "unlimited" { Some(Limit::Unlimited) } else { text.parse().ok().map(Limit::Of) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let of = |line: &str| of_line(line);
        let limit = |soft: u64, hard: u64| {
            let some = |value: u64| (value > 0).then_some(Limit::Of(value));
            Some((some(soft), some(hard)))
        };
        for (line, expected) in [
            ("ulimit -n 4096", limit(4096, 4096)),
            ("ulimit -Sn 4096 && exec x", limit(4096, 0)),
            ("ulimit -H -n 4096; exec x", limit(0, 4096)),
            ("exec chpst -u www -o 4096 ./x", limit(4096, 0)),
            ("exec /usr/bin/softlimit -o4096 x", limit(4096, 0)),
            ("ulimit -c 4096", None),
            ("# ulimit -n 4096", None),
            ("ulimit -n $LIMIT", None),
            ("exec x -o 4096", None),
            ("", None),
        ] {
            assert_eq!(of(line), expected, "{line}");
        }
    }

    #[test]
    fn shells() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::open(dir.path()).unwrap();
        std::fs::write(dir.path().join("start"), "#!/bin/sh\nulimit -n 7\nx\n").unwrap();
        std::fs::write(dir.path().join("plain"), "#!/bin/sh\nx\n").unwrap();
        let of = |line: &str, cwd: Option<&str>| {
            let arguments: Vec<_> = line.split(' ').map(|word| word.replace('_', " ")).collect();
            let arguments: Vec<_> = arguments.into_iter().map(String::into_bytes).collect();
            let mut unknown = Vec::new();
            let found = of_shell(&root, &arguments, cwd.map(Path::new), &mut unknown)?;
            assert_eq!((found.soft, unknown.len()), (Some(Limit::Of(7)), 0), "{line}");
            Some(found.place)
        };
        for (line, cwd) in [
            ("/bin/sh /start", None),
            ("sh start", Some("/")),
            ("bash -e ./start a b", Some("/")),
            ("bash --norc -e start", Some("/")),
        ] {
            let Some(Place::File(file)) = of(line, cwd) else { panic!("{line}") };
            assert!(file.path.ends_with("start"), "{line}");
            assert_eq!(file.line, Some(2));
        }
        assert_eq!(of("sh -c ulimit_-n_7;_exec_x", None), Some(Place::CommandLine));
        assert_eq!(of("bash -ec ulimit_-n_7", None), Some(Place::CommandLine));
        for line in ["sh", "-bash", "sh -c", "sh -c start", "sh start", "sh /none", "sh /plain"] {
            assert_eq!(of(line, None), None, "{line}");
        }
    }

    #[test]
    fn scripts() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::open(dir.path()).unwrap();
        let mut unknown = Vec::new();
        assert_eq!(setting(&root, Path::new("/"), &mut unknown), None);
        std::fs::write(dir.path().join("run"), "#!/bin/sh\nulimit -n 7\nexec x\n").unwrap();
        let found = setting(&root, Path::new("/"), &mut unknown).unwrap();
        assert_eq!(found.soft, Some(Limit::Of(7)));
        let Place::File(file) = found.place else { panic!() };
        assert_eq!((file.path.to_str(), file.line), (Some("/run"), Some(2)));
        std::fs::write(dir.path().join("run"), "#!/bin/sh\nexec x\n").unwrap();
        let found = setting(&root, Path::new("/"), &mut unknown).unwrap();
        assert!(matches!(found, Setting { soft: None, place: Place::BuiltIn(Some(_)), .. }));
    }
}
