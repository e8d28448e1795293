//! limits.conf and limits.d: what PAM gives to a login of a user.
//!
//! As modules/pam_limits/pam_limits.c of Linux-PAM reads them: all files in order, and of the
//! lines that match the more specific domain wins, of equal ones the last.

use std::path::{Path, PathBuf};

use super::{
    root::{Root, Text},
    users::User,
};
use crate::model::{FileFact, Limit, Place, Setting, SettingSource};

/// The soft and the hard limit that a login gets, a setting each where other lines give them.
///
/// Nothing where the files give none: then a login inherits.
pub(super) fn login_limits(
    root: &Root,
    user: &User,
    nr_open: Option<u64>,
    unknown: &mut Vec<String>,
) -> Vec<Setting> {
    let mut found = Found::default();
    for path in files(root, unknown) {
        match root.read(&path) {
            Ok(Some(text)) => {
                if found.read(&text, user, nr_open) == Read::Exempt {
                    return Vec::new();
                }
            }
            Ok(None) => {}
            Err(error) => unknown.push(error),
        }
    }
    found.settings(user)
}

/// Whether a PAM service (`sshd`, `login`, …) applies limits; `None` where nobody can say.
pub(super) fn applies(root: &Root, service: &str) -> Option<bool> {
    includes_limits(root, service, 4)
}

fn includes_limits(root: &Root, service: &str, depth: u32) -> Option<bool> {
    // A name with a slash would leave the directory.
    if depth == 0 || service.contains('/') {
        return None;
    }
    let dirs = ["/etc/pam.d", "/usr/lib/pam.d", "/usr/etc/pam.d"];
    let text = dirs.iter().find_map(|dir| root.read(&Path::new(dir).join(service)).ok()?)?;
    let mut answer = Some(false);
    for line in text.text.lines().filter(|line| !line.starts_with('#')) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let included = match words[..] {
            ["@include", name, ..] => name,
            [kind, "include" | "substack", name, ..] if kind.ends_with("session") => name,
            [kind, ..] if kind.ends_with("session") => {
                let is_limits = |word: &&str| word.rsplit('/').next() == Some("pam_limits.so");
                if words.iter().any(is_limits) {
                    return Some(true);
                }
                continue;
            }
            _ => continue,
        };
        match includes_limits(root, included, depth - 1) {
            Some(true) => return Some(true),
            Some(false) => {}
            None => answer = None,
        }
    }
    answer
}

fn files(root: &Root, unknown: &mut Vec<String>) -> Vec<PathBuf> {
    let mut files = vec![PathBuf::from("/etc/security/limits.conf")];
    let dir = Path::new("/etc/security/limits.d");
    match root.list(dir) {
        Ok(names) => {
            let wanted = names.iter().filter(|name| {
                Path::new(name).extension().is_some_and(|extension| extension == "conf")
            });
            files.extend(wanted.map(|name| dir.join(name)));
        }
        Err(error) => unknown.push(error),
    }
    files
}

/// How specific a line is; less is more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Domain {
    User,
    Group,
    Everybody,
}

#[derive(Debug)]
struct Line {
    domain: Domain,
    limit: Limit,
    file: FileFact,
}

#[derive(Debug, Default)]
struct Found {
    soft: Option<Line>,
    hard: Option<Line>,
}

#[derive(Debug, PartialEq, Eq)]
enum Read {
    Done,
    /// `DOMAIN -`: this user has no limits.
    Exempt,
}

impl Found {
    fn read(&mut self, text: &Text, user: &User, nr_open: Option<u64>) -> Read {
        for (at, line) in text.text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or(line);
            let words: Vec<&str> = line.split_ascii_whitespace().collect();
            match words[..] {
                [domain, "-"] if domain != "*" && domain_of(domain, user).is_some() => {
                    return Read::Exempt;
                }
                [domain, kind, item, value, ..] if item.eq_ignore_ascii_case("nofile") => {
                    let Some(domain) = domain_of(domain, user) else { continue };
                    let Some(limit) = limit(&value.to_lowercase(), nr_open) else { continue };
                    let (is_soft, is_hard) = match &*kind.to_lowercase() {
                        "soft" => (true, false),
                        "hard" => (false, true),
                        "-" => (true, true),
                        _ => continue,
                    };
                    let line = || Line { domain, limit, file: text.at(at) };
                    let wins =
                        |old: &Option<Line>| old.as_ref().is_none_or(|old| domain <= old.domain);
                    if is_soft && wins(&self.soft) {
                        self.soft = Some(line());
                    }
                    if is_hard && wins(&self.hard) {
                        self.hard = Some(line());
                    }
                }
                _ => {}
            }
        }
        Read::Done
    }

    fn settings(self, user: &User) -> Vec<Setting> {
        let name = user.name.clone().unwrap_or_else(|| user.uid.to_string());
        let source = SettingSource::Login { user: name };
        let setting = |soft, hard, file| Setting {
            source: source.clone(),
            soft,
            hard,
            place: Place::File(file),
        };
        match (self.soft, self.hard) {
            (Some(soft), Some(hard)) if soft.file == hard.file => {
                vec![setting(Some(soft.limit), Some(hard.limit), soft.file)]
            }
            (soft, hard) => {
                let soft = soft.map(|line| setting(Some(line.limit), None, line.file));
                let hard = hard.map(|line| setting(None, Some(line.limit), line.file));
                soft.into_iter().chain(hard).collect()
            }
        }
    }
}

/// How a domain names the user, if it does.
fn domain_of(domain: &str, user: &User) -> Option<Domain> {
    if user.name.as_deref() == Some(domain) {
        return Some(Domain::User);
    }
    if let Some(group) = domain.strip_prefix('@') {
        let is_in = match range(group) {
            Some(range) if range.is_one() => {
                user.groups.iter().any(|(_, number)| range.contains(*number))
            }
            // Ranges ask for the first group only.
            Some(range) => user.gid.is_some_and(|gid| range.contains(gid)),
            None => user.groups.iter().any(|(name, _)| name == group),
        };
        return is_in.then_some(Domain::Group);
    }
    // `%` is for maxlogins only.
    if domain == "*" {
        return Some(Domain::Everybody);
    }
    range(domain)?.contains(user.uid).then_some(Domain::User)
}

/// `MIN:MAX`, `MIN:`, `:ONE`.
struct Range {
    min: u32,
    max: u32,
}

impl Range {
    fn contains(&self, number: u32) -> bool {
        (self.min..=self.max).contains(&number)
    }

    fn is_one(&self) -> bool {
        self.min == self.max
    }
}

fn range(text: &str) -> Option<Range> {
    let (min, max) = text.split_once(':')?;
    match (min, max) {
        ("", one) => one.parse().ok().map(|one| Range { min: one, max: one }),
        (min, "") => Some(Range { min: min.parse().ok()?, max: u32::MAX }),
        (min, max) => Some(Range { min: min.parse().ok()?, max: max.parse().ok()? }),
    }
}

/// "Unlimited" is nr_open: the kernel takes nothing higher.
fn limit(value: &str, nr_open: Option<u64>) -> Option<Limit> {
    match value {
        "-" | "-1" | "unlimited" | "infinity" => Some(nr_open.map_or(Limit::Unlimited, Limit::Of)),
        // strtoull(3): digits, and what follows is ignored.
        number => {
            let end = number.bytes().position(|byte| !byte.is_ascii_digit());
            number[..end.unwrap_or(number.len())].parse().ok().map(Limit::Of)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::*;

    fn ann() -> User {
        User {
            uid: 1000,
            gid: Some(100),
            name: Some("ann".into()),
            home: None,
            groups: vec![("users".into(), 100), ("www".into(), 33)],
        }
    }

    fn tree(files: &[(&str, &str)]) -> TempDir {
        let dir = TempDir::new().unwrap();
        for (path, text) in files {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        dir
    }

    /// `SOFT@FILE:LINE HARD@FILE:LINE`.
    fn found(files: &[(&str, &str)]) -> String {
        let dir = tree(files);
        let root = Root::open(dir.path()).unwrap();
        let mut unknown = Vec::new();
        let settings = login_limits(&root, &ann(), Some(1_048_576), &mut unknown);
        assert!(unknown.is_empty(), "{unknown:?}");
        let mut parts = Vec::new();
        for setting in settings {
            let Place::File(file) = &setting.place else { panic!() };
            let name = file.path.file_name().unwrap().to_str().unwrap();
            let at = format!("{name}:{}", file.line.unwrap());
            let part = |kind: &str, limit: Limit| format!("{kind} {limit} {at}");
            parts.extend(setting.soft.map(|limit| part("soft", limit)));
            parts.extend(setting.hard.map(|limit| part("hard", limit)));
        }
        parts.join(", ")
    }

    fn of(text: &str) -> String {
        found(&[("etc/security/limits.conf", text)])
    }

    #[test]
    fn domains() {
        for (line, matches) in [
            ("ann soft nofile 7", true),
            ("bob soft nofile 7", false),
            ("@www soft nofile 7", true),
            ("@wheel soft nofile 7", false),
            ("@:33 soft nofile 7", true),
            ("@:34 soft nofile 7", false),
            ("@100: soft nofile 7", true),
            ("@101: soft nofile 7", false),
            ("@33:33 soft nofile 7", true),
            ("* soft nofile 7", true),
            ("% soft nofile 7", false),
            ("%www soft nofile 7", false),
            ("1000: soft nofile 7", true),
            (":1000 soft nofile 7", true),
            (":999 soft nofile 7", false),
            ("500:2000 soft nofile 7", true),
            ("500:999 soft nofile 7", false),
            ("1000 soft nofile 7", false),
            ("root soft nofile 7", false),
            ("# ann soft nofile 7", false),
            ("ann soft nproc 7", false),
            ("ann SOFT NoFile 7 # x", true),
            ("ann both nofile 7", false),
            ("ann soft nofile", false),
            ("ann soft nofile x", false),
        ] {
            let expected = if matches { "soft 7 limits.conf:1" } else { "" };
            assert_eq!(of(line), expected, "{line}");
        }
    }

    #[test]
    fn values() {
        assert_eq!(of("ann - nofile 7"), "soft 7 limits.conf:1, hard 7 limits.conf:1");
        for all in ["unlimited", "infinity", "-1", "-"] {
            assert_eq!(of(&format!("ann hard nofile {all}")), "hard 1048576 limits.conf:1");
        }
        let both = "* soft nofile 5\n* hard nofile 6\n";
        assert_eq!(of(both), "soft 5 limits.conf:1, hard 6 limits.conf:2");
    }

    #[test]
    fn precedence() {
        assert_eq!(of("ann soft nofile 1\n* soft nofile 2\n"), "soft 1 limits.conf:1");
        assert_eq!(of("@www soft nofile 1\n* soft nofile 2\n"), "soft 1 limits.conf:1");
        assert_eq!(of("@www soft nofile 1\nann soft nofile 2\n"), "soft 2 limits.conf:2");
        assert_eq!(of("ann soft nofile 1\nann soft nofile 2\n"), "soft 2 limits.conf:2");
        let conf = ("etc/security/limits.conf", "* soft nofile 1\n");
        let second = ("etc/security/limits.d/20-b.conf", "* soft nofile 3\n");
        let first = ("etc/security/limits.d/10-a.conf", "* soft nofile 2\n");
        let other = ("etc/security/limits.d/30-c.txt", "* soft nofile 4\n");
        assert_eq!(found(&[conf, first, second, other]), "soft 3 20-b.conf:1");
        let specific = ("etc/security/limits.conf", "ann soft nofile 1\n");
        assert_eq!(found(&[specific, first, second]), "soft 1 limits.conf:1");
    }

    #[test]
    fn exempt() {
        assert_eq!(of("* soft nofile 1\nann -\n"), "");
        assert_eq!(of("* soft nofile 1\n@www -\n"), "");
        assert_eq!(of("* soft nofile 1\nbob -\n* -\n"), "soft 1 limits.conf:1");
        assert_eq!(found(&[]), "");
    }

    #[test]
    fn services_of_pam() {
        let dir = tree(&[
            ("etc/pam.d/sshd", "auth x\n@include common-session\nsession required pam_limits.so\n"),
            ("etc/pam.d/common-session", "session optional pam_umask.so\n"),
            ("etc/pam.d/cron", "@include common-session\n# session required pam_limits.so\n"),
            ("etc/pam.d/su", "session include su-l\n"),
            ("etc/pam.d/su-l", "-session\trequired\t/lib/security/pam_limits.so conf=/x\n"),
            ("etc/pam.d/odd", "session include missing\n"),
            ("etc/pam.d/loop", "@include loop\n"),
        ]);
        let root = Root::open(dir.path()).unwrap();
        for (service, expected) in [
            ("sshd", Some(true)),
            ("cron", Some(false)),
            ("su", Some(true)),
            ("odd", None),
            ("loop", None),
            ("none", None),
            ("../pam.d/sshd", None),
        ] {
            assert_eq!(applies(&root, service), expected, "{service}");
        }
    }

    /// Debian's own file: nothing but comments.
    #[test]
    fn real_files() {
        let root = Root::open(Path::new("/")).unwrap();
        let mut unknown = Vec::new();
        login_limits(&root, &ann(), None, &mut unknown);
        assert!(unknown.is_empty(), "{unknown:?}");
    }
}
