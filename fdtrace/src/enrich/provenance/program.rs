//! What a process is made of, and the settings of programs that set their own limit.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
};

use super::{
    go_version::go_version,
    nginx,
    root::{Root, Text},
};
use crate::model::{
    Ancestor, FdLimits, FileFact, Limit, Place, Program, Runtime, Setting, SettingSource,
};

/// Tells by the executable's name, and for any other by what the Go linker leaves in it.
pub(super) fn runtime(host: &Root, process: &Ancestor) -> Runtime {
    use std::os::unix::ffi::OsStrExt;
    let Some(exe) = &process.exe else { return Runtime::Unknown };
    let name = exe.file_name().map_or(&b""[..], OsStrExt::as_bytes);
    // What the kernel adds to the name of a file that was replaced.
    let name = name.strip_suffix(b" (deleted)").unwrap_or(name);
    match name {
        b"java" => {
            let arguments = process.cmdline.as_deref().unwrap_or_default();
            Runtime::Java { raises: !arguments.iter().any(|one| one == b"-XX:-MaxFDLimit") }
        }
        b"node" | b"nodejs" => Runtime::Node,
        b"nginx" => Runtime::Program(Program::Nginx),
        // Debian's redis-server is a link to one of its tools.
        b"redis-server" | b"redis-check-rdb" | b"valkey-server" => Runtime::Program(Program::Redis),
        b"haproxy" => Runtime::Program(Program::Haproxy),
        b"mysqld" | b"mariadbd" => Runtime::Program(Program::Mysql),
        b"postgres" => Runtime::Postgres,
        _ if name.starts_with(b"python") || name.starts_with(b"pypy") => Runtime::Python,
        _ => match executable(host, process) {
            Ok(file) => go_version(&file).map_or(Runtime::Other, Runtime::Go),
            Err(_) => Runtime::Unknown,
        },
    }
}

/// The Go that an ancestor was built with, where that matters to who descends from it.
pub(super) fn go_above(host: &Root, process: &Ancestor, own: FdLimits) -> Option<String> {
    let limits = process.limits?;
    let may_have_raised = limits.soft == limits.hard && limits.soft != own.soft;
    may_have_raised.then(|| go_version(&executable(host, process).ok()?)).flatten()
}

/// By its own number: the file that runs, also where another has its name now.
fn executable(host: &Root, process: &Ancestor) -> io::Result<File> {
    let pid = process.id.pid.to_string();
    File::open(host.path().join("proc").join(pid).join("exe"))
}

/// What a program's own configuration says. `root` is the process's own; `parent` is the master of
/// a worker.
pub(super) fn setting(
    root: &Root,
    program: Program,
    process: &Ancestor,
    parent: Option<&Ancestor>,
    cwd: Option<&Path>,
    unknown: &mut Vec<String>,
) -> Option<Setting> {
    let arguments = process.cmdline.as_deref().unwrap_or_default();
    let (limit, place) = match program {
        Program::Nginx => {
            let is_master = |process: &&Ancestor| nginx::master_title(process).is_some();
            let master = Some(process).into_iter().chain(parent).find(is_master)?;
            nginx::limit(root, &nginx::master_title(master)?, unknown)?
        }
        Program::Redis => redis(root, arguments, cwd, unknown)?,
        Program::Haproxy => haproxy(root, arguments, cwd, unknown)?,
        Program::Mysql => mysql(root, arguments, unknown)?,
    };
    let limit = limit.map(Limit::Of);
    Some(Setting { source: SettingSource::Own { program }, soft: limit, hard: limit, place })
}

/// A limit, where one is set, and the place of it or where it would be set.
pub(super) type Found = Option<(Option<u64>, Place)>;

/// src/server.c adjustOpenFilesLimit: so many descriptors beside the clients'.
const REDIS_RESERVED: u64 = 32;
const REDIS_MAXCLIENTS: u64 = 10_000;

/// redis-server replaces its arguments by `redis-server ADDRESS:PORT`. A file is only believed
/// where it was named, or where it has that port.
fn redis(
    root: &Root,
    arguments: &[Vec<u8>],
    cwd: Option<&Path>,
    unknown: &mut Vec<String>,
) -> Found {
    let line = String::from_utf8_lossy(&arguments.join(&b' ')).into_owned();
    let words: Vec<&str> = line.split(' ').collect();
    let after = |flag: &str| {
        let at = words.iter().position(|word| *word == flag)?;
        words.get(at + 1)?.parse::<u64>().ok()
    };
    if let Some(clients) = after("--maxclients") {
        return Some((clients.checked_add(REDIS_RESERVED), Place::CommandLine));
    }
    let title_port = words.get(1).and_then(|word| word.rsplit(':').next()?.parse::<u64>().ok());
    let named =
        words.get(1).filter(|word| Path::new(word).extension().is_some_and(|e| e == "conf"));
    let text = if let Some(named) = named {
        read(root, &absolute(cwd, named)?, unknown)
    } else {
        let port = after("--port").or(title_port);
        let usual = ["/etc/redis/redis.conf", "/etc/redis.conf", "/etc/valkey/valkey.conf"];
        usual.iter().filter(|_| port.is_some()).find_map(|path| {
            let text = read(root, Path::new(path), unknown)?;
            let own = last_word(&text, "port").map_or(6379, |(port, _)| port);
            (Some(own) == port).then_some(text)
        })
    };
    let Some(text) = text else {
        unknown.push("found no configuration of redis-server: its arguments name none".into());
        // It has one all the same, and sets its own limit.
        return Some((None, Place::BuiltIn(None)));
    };
    match last_word(&text, "maxclients") {
        Some((clients, file)) => Some((clients.checked_add(REDIS_RESERVED), Place::File(file))),
        None => Some((Some(REDIS_MAXCLIENTS + REDIS_RESERVED), Place::BuiltIn(Some(text.fact)))),
    }
}

/// `KEY NUMBER` on a line of its own, the last one.
fn last_word(text: &Text, key: &str) -> Option<(u64, FileFact)> {
    let lines: Vec<&str> = text.text.lines().collect();
    lines.iter().enumerate().rev().find_map(|(at, line)| {
        let mut words = line.split_whitespace();
        (words.next()? == key).then_some(())?;
        Some((words.next()?.trim_matches('"').parse().ok()?, text.at(at)))
    })
}

/// `ulimit-n` of the section `global`; without it HAProxy takes what its maxconn needs.
fn haproxy(
    root: &Root,
    arguments: &[Vec<u8>],
    cwd: Option<&Path>,
    unknown: &mut Vec<String>,
) -> Found {
    let mut found = None;
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        if argument != b"-f" {
            continue;
        }
        let path = absolute(cwd, &String::from_utf8_lossy(rest.next()?))?;
        let Some(text) = read(root, &path, unknown) else { continue };
        let mut is_global = false;
        for (at, line) in text.text.lines().enumerate() {
            let words: Vec<&str> = line.split_whitespace().collect();
            match words[..] {
                ["global", ..] => is_global = true,
                ["defaults" | "frontend" | "backend" | "listen" | "peers" | "userlist", ..] => {
                    is_global = false;
                }
                ["ulimit-n", number, ..] if is_global => {
                    if let Ok(number) = number.parse() {
                        found = Some((Some(number), Place::File(text.at(at))));
                    }
                }
                _ => {}
            }
        }
    }
    found
}

fn mysql(root: &Root, arguments: &[Vec<u8>], unknown: &mut Vec<String>) -> Found {
    let given = arguments.iter().find_map(|argument| {
        let text = String::from_utf8_lossy(argument).replace('_', "-");
        text.strip_prefix("--open-files-limit=")?.parse().ok()
    });
    if let Some(given) = given {
        return Some((Some(given), Place::CommandLine));
    }
    let mut found = None;
    let mut files: Vec<PathBuf> = vec!["/etc/my.cnf".into(), "/etc/mysql/my.cnf".into()];
    let mut next = 0;
    // Files name further ones.
    while let Some(path) = files.get(next).filter(|_| next < 64).cloned() {
        next += 1;
        let Some(text) = read(root, &path, unknown) else { continue };
        let mut is_server = false;
        for (at, line) in text.text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or(line).trim();
            if let Some(dir) = line.strip_prefix("!includedir") {
                let dir = Path::new(dir.trim());
                let names = root.list(dir).unwrap_or_default();
                let is_conf = |name: &&std::ffi::OsString| {
                    Path::new(name).extension().is_some_and(|extension| extension == "cnf")
                };
                files.extend(names.iter().filter(is_conf).map(|name| dir.join(name)));
            } else if let Some(file) = line.strip_prefix("!include") {
                files.push(file.trim().into());
            } else if line.starts_with('[') {
                let section = line.trim_matches(['[', ']']);
                is_server =
                    ["mysqld", "server", "mariadb", "mariadbd", "mysqld_safe"].contains(&section);
            } else if is_server
                && let Some((key, value)) = line.split_once('=')
                && key.trim().replace('_', "-") == "open-files-limit"
                && let Ok(value) = value.trim().parse()
            {
                found = Some((Some(value), Place::File(text.at(at))));
            }
        }
    }
    found
}

fn absolute(cwd: Option<&Path>, path: &str) -> Option<PathBuf> {
    let path = Path::new(path);
    if path.is_absolute() { Some(path.to_owned()) } else { Some(cwd?.join(path)) }
}

pub(super) fn read(root: &Root, path: &Path, unknown: &mut Vec<String>) -> Option<Text> {
    root.read(path).unwrap_or_else(|error| {
        unknown.push(error);
        None
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::model::{BootTime, Comm, Pid, ProcessId, Role};

    fn process(arguments: &[&str], exe: &str) -> Ancestor {
        Ancestor {
            id: ProcessId { pid: Pid(7), started: BootTime::default() },
            comm: Comm::default(),
            exe: Some(exe.into()),
            cmdline: Some(arguments.iter().map(|one| one.as_bytes().to_vec()).collect()),
            started_at: None,
            uid: None,
            limits: None,
            role: Role::Other,
            unit: None,
            container: None,
            may_raise_hard: None,
            above_file_max: None,
            go: None,
            settings: Vec::new(),
        }
    }

    #[track_caller]
    fn check(program: Program, arguments: &[&str], files: &[(&str, &str)], expected: Option<&str>) {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let root = Root::open(dir.path()).unwrap();
        let mut unknown = Vec::new();
        let process = process(arguments, "/x");
        let cwd = Some(Path::new("/srv"));
        let found = setting(&root, program, &process, None, cwd, &mut unknown).map(|setting| {
            let soft = setting.soft.map_or("none".into(), |limit| limit.to_string());
            match setting.place {
                Place::File(file) => {
                    format!("{soft} {}:{}", file.path.display(), file.line.unwrap())
                }
                Place::CommandLine => format!("{soft} given"),
                Place::BuiltIn(Some(file)) => format!("{soft} built in {}", file.path.display()),
                Place::BuiltIn(None) => soft,
            }
        });
        assert_eq!(found.as_deref(), expected, "{arguments:?} {unknown:?}");
    }

    #[test]
    fn redis_by_its_port_or_file() {
        let conf = ("etc/redis/redis.conf", "port 6380\n# maxclients 1\nmaxclients 500\n");
        let is = |arguments: &[&str], expected| check(Program::Redis, arguments, &[conf], expected);
        is(&["redis-server 127.0.0.1:6380"], Some("532 /etc/redis/redis.conf:3"));
        is(&["redis-server *:6380"], Some("532 /etc/redis/redis.conf:3"));
        // Another instance: whose file, nobody knows.
        is(&["redis-server 127.0.0.1:6379"], Some("none"));
        is(&["redis-server unixsocket:/run/redis.sock"], Some("none"));
        is(&["redis-server", "--port", "6379", "--maxclients", "100"], Some("132 given"));
        let own = [("srv/r.conf", "port 1\n")];
        let expected = Some("10032 built in /srv/r.conf");
        check(Program::Redis, &["redis-server", "r.conf"], &own, expected);
    }

    #[test]
    fn haproxy_and_mysql() {
        let cfg =
            ("etc/haproxy.cfg", "global\n  maxconn 5\n  ulimit-n 99\ndefaults\n  ulimit-n 7\n");
        let arguments = ["haproxy", "-Ws", "-f", "/etc/haproxy.cfg"];
        check(Program::Haproxy, &arguments, &[cfg], Some("99 /etc/haproxy.cfg:3"));
        check(Program::Haproxy, &arguments, &[("etc/haproxy.cfg", "global\n")], None);
        let cnf = [
            ("etc/mysql/my.cnf", "[client]\nopen_files_limit=1\n!includedir /etc/mysql/conf.d/\n"),
            ("etc/mysql/conf.d/a.cnf", "[mysqld]\nopen-files-limit = 5000 # x\n"),
        ];
        check(Program::Mysql, &["mysqld"], &cnf, Some("5000 /etc/mysql/conf.d/a.cnf:2"));
        check(Program::Mysql, &["mysqld", "--open_files_limit=9"], &cnf, Some("9 given"));
    }

    #[test]
    fn runtimes() {
        let root = Root::open(Path::new("/")).unwrap();
        let of = |exe: &str, arguments: &[&str]| runtime(&root, &process(arguments, exe));
        assert_eq!(of("/usr/bin/node", &[]), Runtime::Node);
        assert_eq!(of("/usr/bin/node (deleted)", &[]), Runtime::Node);
        assert_eq!(of("/usr/bin/python3.11", &[]), Runtime::Python);
        assert_eq!(of("/usr/sbin/nginx", &[]), Runtime::Program(Program::Nginx));
        assert_eq!(of("/usr/bin/redis-check-rdb", &[]), Runtime::Program(Program::Redis));
        assert_eq!(of("/opt/jdk/bin/java", &["java"]), Runtime::Java { raises: true });
        let limited = ["java", "-XX:-MaxFDLimit"];
        assert_eq!(of("/opt/jdk/bin/java", &limited), Runtime::Java { raises: false });
        let own = Ancestor {
            id: ProcessId { pid: Pid(std::process::id()), started: BootTime::default() },
            ..process(&[], "/x")
        };
        assert_eq!(runtime(&root, &own), Runtime::Other);
        assert_eq!(runtime(&root, &Ancestor { exe: None, ..own }), Runtime::Unknown);
    }
}
