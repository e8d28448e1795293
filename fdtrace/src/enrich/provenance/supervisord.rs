//! supervisord's `minfds`, and the section of the program under it.
//!
//! supervisord raises its limits to `minfds` where they are lower, and never lowers them
//! (supervisor/options.py set_rlimits_or_exit, 4.2.5). It does so at its first start only: neither
//! `supervisorctl reload` nor `update` does it again (supervisord.py main).

use std::{
    ffi::OsStr,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use super::{
    glob,
    role::base,
    root::{Root, Text},
};
use crate::model::{FileFact, Limit, Place, Setting, SettingSource};

/// `minfds` where nothing sets it.
const DEFAULT: u64 = 1024;
/// More included files than this are not read.
const MOST_FILES: usize = 128;

/// Reads the configuration of a supervisord by its arguments and working directory. `child` is the
/// command line of the program under it.
pub(super) fn minfds(
    root: &Root,
    arguments: &[Vec<u8>],
    cwd: Option<&Path>,
    child: Option<&[Vec<u8>]>,
    unknown: &mut Vec<String>,
) -> Option<Setting> {
    let given = option(arguments, b'a', "minfds");
    let main = match find(root, arguments, cwd) {
        Ok(path) => read(root, &path, unknown),
        Err(error) => {
            unknown.push(error);
            None
        }
    };
    let files = main.map(|main| with_included(root, main, unknown)).unwrap_or_default();
    let program = child.and_then(|child| program(&files, child));
    let source = SettingSource::Minfds { program };
    let setting = |value, place| {
        let limit = Some(Limit::Of(value));
        Some(Setting { source, soft: limit, hard: limit, place })
    };
    if let Some(given) = given {
        let value = str::from_utf8(&given).ok()?.trim().parse().ok()?;
        return setting(value, Place::CommandLine);
    }
    let main = files.first()?;
    let found = files.iter().rev().find_map(|file| {
        let all = options(&file.text);
        let last = all.iter().rev().find(|option| {
            option.section == "supervisord" && option.key.eq_ignore_ascii_case("minfds")
        })?;
        Some((last.value.clone(), file.at(last.line)))
    });
    let Some((value, file)) = found else {
        return setting(DEFAULT, Place::BuiltIn(Some(section_line(main))));
    };
    if let Ok(value) = value.parse() {
        return setting(value, Place::File(file));
    }
    let place = file.path.display();
    unknown.push(format!("minfds in {place} is no number: {value:?}"));
    None
}

/// Where a line for `minfds` would go.
fn section_line(main: &Text) -> FileFact {
    let line = main.text.lines().position(|line| line.trim_end() == "[supervisord]");
    line.map_or_else(|| main.fact.clone(), |line| main.at(line))
}

/// An option of getopt(3), short or long.
fn option(arguments: &[Vec<u8>], short: u8, long: &str) -> Option<Vec<u8>> {
    let mut found = None;
    let mut rest = arguments.iter().skip(1);
    while let Some(argument) = rest.next() {
        if let Some(name) = argument.strip_prefix(b"--") {
            let (name, value) = match name.iter().position(|byte| *byte == b'=') {
                Some(at) => (&name[..at], Some(name[at + 1..].to_vec())),
                None => (name, None),
            };
            // Python's getopt takes every prefix that only one option has; three letters suffice
            // for the two that are asked for here.
            if name.len() >= 3 && long.as_bytes().starts_with(name) {
                found = value.or_else(|| rest.next().cloned());
            }
        } else if let Some(flags) = argument.strip_prefix(b"-")
            && flags.first() == Some(&short)
        {
            found = if flags.len() > 1 { Some(flags[1..].to_vec()) } else { rest.next().cloned() };
        }
    }
    found
}

/// The configuration file: the one named, or the first of those it searches.
fn find(root: &Root, arguments: &[Vec<u8>], cwd: Option<&Path>) -> Result<PathBuf, String> {
    let absolute = |path: &Path| match cwd {
        _ if path.is_absolute() => Some(path.to_owned()),
        Some(cwd) => Some(cwd.join(path)),
        None => None,
    };
    if let Some(given) = option(arguments, b'c', "configuration") {
        let path = PathBuf::from(OsStr::from_bytes(&given));
        return absolute(&path)
            .ok_or_else(|| "could not read the working directory of supervisord".to_owned());
    }
    // supervisor/options.py Options.__init__.
    let script = arguments.iter().take(2).find(|argument| base(argument) == b"supervisord");
    let above_script = script
        .and_then(|script| Path::new(OsStr::from_bytes(script)).parent()?.parent())
        .map(Path::to_owned);
    let here = |name: &str| above_script.as_ref().map(|dir| dir.join(name));
    let candidates = [
        here("etc/supervisord.conf"),
        here("supervisord.conf"),
        Some("supervisord.conf".into()),
        Some("etc/supervisord.conf".into()),
        Some("/etc/supervisord.conf".into()),
        Some("/etc/supervisor/supervisord.conf".into()),
    ];
    let mut absolute = candidates.into_iter().flatten().filter_map(|path| absolute(&path));
    absolute
        .find(|path| root.exists(path))
        .ok_or_else(|| "found no configuration file of supervisord".to_owned())
}

fn with_included(root: &Root, main: Text, unknown: &mut Vec<String>) -> Vec<Text> {
    let dir = main.fact.path.parent().unwrap_or(Path::new("/")).to_owned();
    let patterns: Vec<PathBuf> = options(&main.text)
        .iter()
        .filter(|option| option.section == "include" && option.key == "files")
        .flat_map(|option| option.value.split_whitespace())
        .map(|pattern| dir.join(pattern.replace("%(here)s", &dir.to_string_lossy())))
        .collect();
    let mut files = vec![main];
    for pattern in patterns {
        for path in glob::files(root, &pattern) {
            if files.len() < MOST_FILES {
                files.extend(read(root, &path, unknown));
            }
        }
    }
    files
}

/// The name of the one `[program:NAME]` whose command the child runs.
fn program(files: &[Text], child: &[Vec<u8>]) -> Option<String> {
    let command = child.join(&b' ');
    let script = child.iter().skip(1).map(Vec::as_slice).collect::<Vec<_>>().join(&b' ');
    let mut names = Vec::new();
    for file in files {
        for option in options(&file.text) {
            let Some(name) = option.section.strip_prefix("program:") else { continue };
            if option.key != "command" {
                continue;
            }
            let words: Vec<&str> = option.value.split_whitespace().collect();
            let whole = words.join(" ").replace(['"', '\''], "");
            let of = |command: &[u8]| !whole.is_empty() && command == whole.as_bytes();
            // A script is started by its interpreter, and a name by where PATH led.
            let by_name = || {
                let (first, rest) = whole.split_once(' ').unwrap_or((&whole, ""));
                let started = command.split(|byte| *byte == b' ').next().unwrap_or_default();
                base(first.as_bytes()) == base(started) && script == rest.as_bytes()
            };
            if of(&command) || of(&script) || by_name() {
                names.push(name.to_owned());
            }
        }
    }
    names.dedup();
    match &names[..] {
        [name] => Some(name.clone()),
        _ => None,
    }
}

/// `KEY = VALUE` of an ini file.
struct IniOption {
    section: String,
    key: String,
    value: String,
    /// From 0.
    line: usize,
}

/// As Python's RawConfigParser reads it with `;` and `#` for comments at the end of lines: keys in
/// small letters, `=` or `:`, indented lines belong to the value before.
fn options(text: &str) -> Vec<IniOption> {
    let mut found: Vec<IniOption> = Vec::new();
    let mut section = String::new();
    let mut is_open = false;
    for (line, text) in text.lines().enumerate() {
        if text.starts_with([';', '#']) {
            continue;
        }
        let content = without_comment(text);
        if content.trim().is_empty() {
            continue;
        }
        if text.starts_with([' ', '\t']) {
            if let Some(last) = found.last_mut().filter(|_| is_open) {
                if !last.value.is_empty() {
                    last.value.push(' ');
                }
                last.value.push_str(content.trim());
            }
        } else if let Some(name) = content.trim().strip_prefix('[') {
            name.split(']').next().unwrap_or(name).clone_into(&mut section);
            is_open = false;
        } else if let Some(at) = content.find(['=', ':']) {
            let (key, value) = (content[..at].trim().to_lowercase(), content[at + 1..].trim());
            found.push(IniOption { section: section.clone(), key, value: value.to_owned(), line });
            is_open = true;
        }
    }
    found
}

/// A comment at the end of a line starts after white space.
fn without_comment(line: &str) -> &str {
    let bytes = line.as_bytes();
    let starts = |at: usize| {
        matches!(bytes[at], b';' | b'#') && (at == 0 || bytes[at - 1].is_ascii_whitespace())
    };
    (0..bytes.len()).find(|at| starts(*at)).map_or(line, |at| &line[..at])
}

fn read(root: &Root, path: &Path, unknown: &mut Vec<String>) -> Option<Text> {
    match root.read(path) {
        Ok(Some(text)) => Some(text),
        Ok(None) => {
            unknown.push(format!("could not read {}: no such file", path.display()));
            None
        }
        Err(error) => {
            unknown.push(error);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::*;

    fn arguments(text: &str) -> Vec<Vec<u8>> {
        text.split(' ').map(|part| part.as_bytes().to_vec()).collect()
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

    /// The value, and file and line or what else says it.
    fn found(files: &[(&str, &str)], command: &str, child: &str) -> Option<(u64, String, String)> {
        let dir = tree(files);
        let root = Root::open(dir.path()).unwrap();
        let child = arguments(child);
        let mut unknown = Vec::new();
        let cwd = Some(Path::new("/srv"));
        let found = minfds(&root, &arguments(command), cwd, Some(&child), &mut unknown);
        let Some(setting) = found else {
            assert!(!unknown.is_empty(), "a reason");
            return None;
        };
        let place = match &setting.place {
            Place::File(file) => format!("{}:{}", file.path.display(), file.line.unwrap()),
            Place::CommandLine => "command line".into(),
            Place::BuiltIn(Some(file)) => format!("built in, {}", file.path.display()),
            Place::BuiltIn(None) => "built in".into(),
        };
        let SettingSource::Minfds { program } = setting.source else { panic!() };
        Some((setting.soft.unwrap().number().unwrap(), place, program.unwrap_or_default()))
    }

    #[test]
    fn where_it_is_found() {
        let text = "[supervisord]\nminfds = 4096 ; enough\n";
        let cases = [
            ("etc/my.conf", "supervisord -c /etc/my.conf", "/etc/my.conf:2"),
            ("etc/my.conf", "supervisord -n -c/etc/my.conf", "/etc/my.conf:2"),
            (
                "etc/my.conf",
                "python3 /usr/bin/supervisord --configuration /etc/my.conf",
                "/etc/my.conf:2",
            ),
            ("etc/my.conf", "supervisord --configuration=/etc/my.conf", "/etc/my.conf:2"),
            ("etc/my.conf", "supervisord --conf=/etc/my.conf", "/etc/my.conf:2"),
            ("srv/my.conf", "supervisord -c my.conf", "/srv/my.conf:2"),
            ("srv/supervisord.conf", "supervisord", "/srv/supervisord.conf:2"),
            ("etc/supervisord.conf", "supervisord", "/etc/supervisord.conf:2"),
            (
                "etc/supervisor/supervisord.conf",
                "supervisord",
                "/etc/supervisor/supervisord.conf:2",
            ),
            (
                "opt/x/etc/supervisord.conf",
                "python /opt/x/bin/supervisord -n",
                "/opt/x/etc/supervisord.conf:2",
            ),
        ];
        for (path, command, place) in cases {
            let expected = Some((4096, place.to_owned(), String::new()));
            assert_eq!(found(&[(path, text)], command, "x"), expected, "{command}");
        }
        assert_eq!(found(&[("etc/my.conf", text)], "supervisord -c /etc/other.conf", "x"), None);
        assert_eq!(found(&[], "supervisord", "x"), None);
    }

    #[test]
    fn what_it_says() {
        let of = |text: &str| {
            let found = found(&[("c", text)], "supervisord -c /c", "x");
            found.map(|(value, place, _)| format!("{value} {place}"))
        };
        let built_in = Some("1024 built in, /c".to_owned());
        assert_eq!(of("[supervisord]\n"), built_in);
        assert_eq!(of("[supervisord]\n;minfds=7\n#minfds=7\n"), built_in);
        assert_eq!(of("[other]\nminfds=7\n[supervisord]\n"), built_in);
        assert_eq!(of("[supervisord]\nMinFDs: 7\n"), Some("7 /c:2".into()));
        assert_eq!(of("[supervisord]\nminfds=7\nminfds=8\n"), Some("8 /c:3".into()));
        assert_eq!(of("[supervisord]\nminfds=%(ENV_X)s\n"), None);
        let given = found(&[("c", "[supervisord]\nminfds=7\n")], "supervisord -c /c -a 9", "x");
        assert_eq!(given, Some((9, "command line".into(), String::new())));
    }

    #[test]
    fn included_files_and_programs() {
        let main =
            "[supervisord]\nminfds=7\n[include]\nfiles = conf.d/*.conf\n  %(here)s/x.ini ; y\n";
        let web = "[program:web]\ncommand=/srv/web --port 80\n";
        let api = "[program:api]\ncommand = /srv/web\n   --port 81\n[supervisord]\nminfds=9\n";
        let files =
            [("etc/s/main.conf", main), ("etc/s/conf.d/web.conf", web), ("etc/s/x.ini", api)];
        let of = |child| found(&files, "supervisord -c /etc/s/main.conf", child);
        let expected = |program: &str| Some((9, "/etc/s/x.ini:5".to_owned(), program.to_owned()));
        assert_eq!(of("/srv/web --port 80"), expected("web"));
        assert_eq!(of("/srv/web --port 81"), expected("api"));
        assert_eq!(of("/bin/sh /srv/web --port 81"), expected("api"));
        assert_eq!(of("/srv/web --port 82"), expected(""));
    }
}
