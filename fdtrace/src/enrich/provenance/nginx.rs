//! nginx's `worker_rlimit_nofile`, which each worker sets for itself when it starts, so that a
//! reload is enough (src/os/unix/ngx_process_cycle.c ngx_worker_process_init).

use std::path::{Path, PathBuf};

use super::{
    glob,
    program::{Found, read},
    root::{Root, Text},
};
use crate::model::{Ancestor, FileFact, Place};

const DEFAULT_FILE: &str = "/etc/nginx/nginx.conf";
const DIRECTIVE: &str = "worker_rlimit_nofile";
const MOST_FILES: usize = 64;

/// The command of a master process, which it keeps in its title.
pub(super) fn master_title(process: &Ancestor) -> Option<String> {
    let title = process.cmdline.as_ref()?.join(&b' ');
    let title = String::from_utf8_lossy(&title).into_owned();
    title.strip_prefix("nginx: master process ").map(str::to_owned)
}

/// The limit, or the file where it would be set.
pub(super) fn limit(root: &Root, command: &str, unknown: &mut Vec<String>) -> Found {
    if let Some((_, directives)) = command.split_once(" -g ")
        && let Some(value) = words(directives).into_iter().find_map(|words| value(&words))
    {
        return Some((Some(value), Place::CommandLine));
    }
    let parts: Vec<&str> = command.split_whitespace().collect();
    let after = |flag: &str| {
        let at = parts.iter().position(|part| *part == flag)?;
        parts.get(at + 1).copied()
    };
    let prefix = Path::new(after("-p").unwrap_or("/"));
    let path = match after("-c") {
        Some(path) => prefix.join(path),
        // Where the prefix is given, the file below it is as it was compiled: not known here.
        None if after("-p").is_some() => prefix.join("conf/nginx.conf"),
        None => PathBuf::from(DEFAULT_FILE),
    };
    if !path.is_absolute() {
        unknown.push(format!("the directory of nginx's {} is unknown", path.display()));
        return None;
    }
    let Some(main) = read(root, &path, unknown) else {
        unknown.push(format!("found no configuration of nginx at {}", path.display()));
        return None;
    };
    let fact = main.fact.clone();
    let mut budget = MOST_FILES;
    match in_file(root, &main, path.parent().unwrap_or(Path::new("/")), &mut budget, unknown) {
        Some((value, file)) => Some((Some(value), Place::File(file))),
        None => Some((None, Place::BuiltIn(Some(fact)))),
    }
}

fn in_file(
    root: &Root,
    text: &Text,
    dir: &Path,
    budget: &mut usize,
    unknown: &mut Vec<String>,
) -> Option<(u64, FileFact)> {
    for Statement { line, words } in statements(&text.text) {
        if let Some(value) = value(&words) {
            return Some((value, text.at(line)));
        }
        if let [include, pattern] = &words[..]
            && include == "include"
        {
            for path in glob::files(root, &dir.join(pattern)) {
                *budget = budget.checked_sub(1)?;
                let found = read(root, &path, unknown)
                    .and_then(|text| in_file(root, &text, dir, budget, unknown));
                if found.is_some() {
                    return found;
                }
            }
        }
    }
    None
}

fn value(words: &[String]) -> Option<u64> {
    match words {
        [name, value] if name == DIRECTIVE => value.parse().ok(),
        _ => None,
    }
}

fn words(text: &str) -> Vec<Vec<String>> {
    statements(text).into_iter().map(|statement| statement.words).collect()
}

/// A directive outside of all blocks.
struct Statement {
    /// From 0.
    line: usize,
    words: Vec<String>,
}

fn statements(text: &str) -> Vec<Statement> {
    let mut found = Vec::new();
    let mut words: Vec<String> = Vec::new();
    let mut word = String::new();
    let mut depth = 0_usize;
    let mut line = 0;
    let mut quote = None;
    let mut is_comment = false;
    for letter in text.chars() {
        match letter {
            '\n' => {
                line += 1;
                is_comment = false;
                if quote.is_none() && !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
            }
            _ if is_comment => {}
            _ if quote == Some(letter) => quote = None,
            _ if quote.is_some() => word.push(letter),
            '"' | '\'' if word.is_empty() => quote = Some(letter),
            '#' if word.is_empty() => is_comment = true,
            _ if letter.is_whitespace() => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
            }
            ';' | '{' | '}' => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                let words = std::mem::take(&mut words);
                match letter {
                    '{' => depth += 1,
                    '}' => depth = depth.saturating_sub(1),
                    _ if depth == 0 && !words.is_empty() => found.push(Statement { line, words }),
                    _ => {}
                }
            }
            _ => word.push(letter),
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[track_caller]
    fn check(command: &str, files: &[(&str, &str)], expected: Option<&str>) {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let root = Root::open(dir.path()).unwrap();
        let found = limit(&root, command, &mut Vec::new()).map(|(value, place)| {
            let place = match place {
                Place::File(file) => format!("{}:{}", file.path.display(), file.line.unwrap()),
                Place::CommandLine => "given".into(),
                Place::BuiltIn(file) => format!("not in {}", file.unwrap().path.display()),
            };
            value.map_or(place.clone(), |value| format!("{value} {place}"))
        });
        assert_eq!(found.as_deref(), expected, "{command}");
    }

    #[test]
    fn configurations() {
        let main = "user www;\n# worker_rlimit_nofile 1;\nevents { worker_connections 768; }\n\
                    worker_rlimit_nofile\n  4096;\n";
        let path = "etc/nginx/nginx.conf";
        check("nginx", &[(path, main)], Some("4096 /etc/nginx/nginx.conf:5"));
        check("/usr/sbin/nginx -c /a.conf", &[("a.conf", main)], Some("4096 /a.conf:5"));
        check("nginx -p /srv/ -c a.conf", &[("srv/a.conf", main)], Some("4096 /srv/a.conf:5"));
        let inside = "http { worker_rlimit_nofile 7; }\n";
        check("nginx", &[(path, inside)], Some("not in /etc/nginx/nginx.conf"));
        let quoted = "env 'A=;worker_rlimit_nofile 7;';\n";
        check("nginx", &[(path, quoted)], Some("not in /etc/nginx/nginx.conf"));
        check("nginx", &[], None);
        let given = "nginx -g daemon off; worker_rlimit_nofile 64;";
        check(given, &[(path, main)], Some("64 given"));
    }

    #[test]
    fn included_files() {
        let main = ("etc/nginx/nginx.conf", "include modules/*.conf;\nhttp { include x.conf; }\n");
        let module = ("etc/nginx/modules/b.conf", "load_module x;\nworker_rlimit_nofile 9;\n");
        let other = ("etc/nginx/x.conf", "worker_rlimit_nofile 8;\n");
        check("nginx", &[main, module, other], Some("9 /etc/nginx/modules/b.conf:2"));
        let endless = ("etc/nginx/nginx.conf", "include nginx.conf;");
        check("nginx", &[endless], Some("not in /etc/nginx/nginx.conf"));
    }
}
