//! The limit that a `run` script of runit or s6 sets before it becomes the service.

use std::path::Path;

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
    let found = text.text.lines().enumerate().filter_map(|(at, line)| Some((at, of_line(line)?)));
    let source = SettingSource::RunScript;
    Some(match found.last() {
        Some((at, (soft, hard))) => Setting { source, soft, hard, place: Place::File(text.at(at)) },
        None => Setting { source, soft: None, hard: None, place: unset(&text) },
    })
}

fn unset(text: &Text) -> Place {
    Place::BuiltIn(Some(text.fact.clone()))
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
