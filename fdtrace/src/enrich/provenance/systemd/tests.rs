use std::{fs, os::unix::fs::symlink};

use tempfile::TempDir;

use super::*;

fn tree(files: &[(&str, &str)]) -> TempDir {
    let dir = TempDir::new().unwrap();
    for (path, text) in files {
        let path = dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        match text.strip_prefix("-> ") {
            Some(target) => symlink(target, path).unwrap(),
            None => fs::write(path, text).unwrap(),
        }
    }
    dir
}

fn named(name: &str, manager: Manager) -> Unit {
    Unit { name: name.to_owned(), manager }
}

/// What the files say: limit, file and line; the last one `None` for what is built in.
#[track_caller]
fn check(name: &str, files: &[(&str, &str)], expected: Option<(u64, u64, &str, u32)>) {
    let dir = tree(files);
    let root = Root::open(dir.path()).unwrap();
    let facts = unit(&root, &named(name, Manager::System), None);
    let found = facts.settings.first().map(|setting| {
        let (path, line) = match &setting.place {
            Place::File(file) => (file.path.to_str().unwrap().to_owned(), file.line.unwrap()),
            _ => (String::new(), 0),
        };
        let number = |limit: Option<Limit>| limit.unwrap().number().unwrap_or(u64::MAX);
        (number(setting.soft), number(setting.hard), path, line)
    });
    let found = found.as_ref().map(|(soft, hard, path, line)| (*soft, *hard, path.as_str(), *line));
    assert_eq!(found, expected, "{files:?} {:?}", facts.unknown);
}

const LIB: &str = "usr/lib/systemd/system/web.service";

#[test]
fn the_unit_file() {
    let text = "[Unit]\nLimitNOFILE=1\n[Service]\nExecStart=/bin/web\nLimitNOFILE = 4096\n";
    let expected = Some((4096, 4096, "/usr/lib/systemd/system/web.service", 5));
    check("web.service", &[(LIB, text)], expected);
    // That of the administrator hides the whole file of the package.
    let own = ("etc/systemd/system/web.service", "[Service]\nLimitNOFILE=9\n");
    let expected = Some((9, 9, "/etc/systemd/system/web.service", 2));
    check("web.service", &[(LIB, text), own], expected);
    check("web.service", &[], None);
}

#[test]
fn values() {
    for (lines, expected) in [
        ("LimitNOFILE=1024:4096", Some((1024, 4096, 2))),
        ("LimitNOFILE=infinity", Some((u64::MAX, u64::MAX, 2))),
        ("LimitNOFILE=1024:infinity", Some((1024, u64::MAX, 2))),
        ("LimitNOFILE=1\nLimitNOFILE=2", Some((2, 2, 3))),
        // Ignored: src/shared/conf-parser.c config_parse_rlimit().
        ("LimitNOFILE=1\nLimitNOFILE=", Some((1, 1, 2))),
        ("LimitNOFILE=1\nLimitNOFILE=64K", Some((1, 1, 2))),
        ("LimitNOFILE=1\nLimitNOFILE=9:8", Some((1, 1, 2))),
        ("#LimitNOFILE=7\n;LimitNOFILE=7\nlimitnofile=7", None),
        ("ExecStart=/bin/sh \\\nLimitNOFILE=7", None),
        ("ExecStart=/bin/sh \\\n# x\n  y\nLimitNOFILE=7", Some((7, 7, 5))),
    ] {
        let path = "/usr/lib/systemd/system/web.service";
        let expected = expected.map(|(soft, hard, line)| (soft, hard, path, line));
        let expected = expected.or(Some((1024, 524_288, "", 0)));
        check("web.service", &[(LIB, &format!("[Service]\n{lines}\n"))], expected);
    }
}

#[test]
fn drop_ins_by_name() {
    let base = (LIB, "[Service]\nLimitNOFILE=1\n");
    let of = |text: &'static str| text;
    let ten = ("usr/lib/systemd/system/web.service.d/10-x.conf", of("[Service]\nLimitNOFILE=10\n"));
    let twenty = ("run/systemd/system/web.service.d/20-x.conf", of("[Service]\nLimitNOFILE=20\n"));
    let path = "/run/systemd/system/web.service.d/20-x.conf";
    check("web.service", &[base, ten, twenty], Some((20, 20, path, 2)));
    // The name decides, not the directory.
    let etc = ("etc/systemd/system/web.service.d/15-x.conf", of("[Service]\nLimitNOFILE=15\n"));
    check("web.service", &[base, ten, twenty, etc], Some((20, 20, path, 2)));
    // The same name in /etc replaces or masks it.
    let masked = ("etc/systemd/system/web.service.d/20-x.conf", "-> /dev/null");
    let path = "/etc/systemd/system/web.service.d/15-x.conf";
    check("web.service", &[base, ten, twenty, etc, masked], Some((15, 15, path, 2)));
    let empty = ("etc/systemd/system/web.service.d/20-x.conf", "");
    check("web.service", &[base, ten, twenty, etc, empty], Some((15, 15, path, 2)));
    let not_conf = ("etc/systemd/system/web.service.d/99-x.txt", of("[Service]\nLimitNOFILE=99\n"));
    check("web.service", &[base, not_conf], Some((1, 1, "/usr/lib/systemd/system/web.service", 2)));
}

#[test]
fn prefixes_templates_and_every_service() {
    assert_eq!(names("a.service"), ["a.service"]);
    assert_eq!(names("a-b-c.service"), ["a-b-c.service", "a-b-.service", "a-.service"]);
    let expected = ["a-b@c.service", "a-b@.service", "a-@c.service", "a-@.service"];
    assert_eq!(names("a-b@c.service"), expected);
    assert_eq!(names("-a.service"), ["-a.service"]);
    assert_eq!(names("a--.service"), ["a--.service", "a-.service"]);

    let text = "[Service]\nLimitNOFILE=1\n";
    let template = ("usr/lib/systemd/system/pg@.service", text);
    let path = "/usr/lib/systemd/system/pg@.service";
    check("pg@15-main.service", &[template], Some((1, 1, path, 2)));
    let instance = ("etc/systemd/system/pg@15-main.service.d/a.conf", "[Service]\nLimitNOFILE=2\n");
    let path = "/etc/systemd/system/pg@15-main.service.d/a.conf";
    check("pg@15-main.service", &[template, instance], Some((2, 2, path, 2)));

    let own = ("usr/lib/systemd/system/data-in.service", "[Service]\n");
    let prefix = ("etc/systemd/system/data-.service.d/a.conf", "[Service]\nLimitNOFILE=3\n");
    let path = "/etc/systemd/system/data-.service.d/a.conf";
    check("data-in.service", &[own, prefix], Some((3, 3, path, 2)));
    // Not the template of anything: `data-.service` is no template.
    let every = ("etc/systemd/system/service.d/b.conf", "[Service]\nLimitNOFILE=4\n");
    let path = "/etc/systemd/system/service.d/b.conf";
    check("data-in.service", &[own, prefix, every], Some((4, 4, path, 2)));
    let same_name = ("etc/systemd/system/service.d/a.conf", "[Service]\nLimitNOFILE=4\n");
    let path = "/etc/systemd/system/data-.service.d/a.conf";
    check("data-in.service", &[own, prefix, same_name], Some((3, 3, path, 2)));
}

#[test]
fn links_and_masks() {
    let linked = [
        ("opt/web/web.service", "[Service]\nLimitNOFILE=5\n"),
        ("etc/systemd/system/web.service", "-> /opt/web/web.service"),
    ];
    check("web.service", &linked, Some((5, 5, "/etc/systemd/system/web.service", 2)));
    let masked =
        [(LIB, "[Service]\nLimitNOFILE=5\n"), ("etc/systemd/system/web.service", "-> /dev/null")];
    check("web.service", &masked, None);
    let transient = [("run/systemd/transient/run-u7.service", "[Service]\nLimitNOFILE=6:7\n")];
    check("run-u7.service", &transient, Some((6, 7, "/run/systemd/transient/run-u7.service", 2)));
}

#[test]
fn defaults_of_the_manager() {
    let own = (LIB, "[Service]\n");
    let conf = (
        "etc/systemd/system.conf",
        "[Manager]\n#DefaultLimitNOFILE=1\nDefaultLimitNOFILE=100:200\n",
    );
    check("web.service", &[own, conf], Some((100, 200, "/etc/systemd/system.conf", 3)));
    let drop_in = ("usr/lib/systemd/system.conf.d/a.conf", "[Manager]\nDefaultLimitNOFILE=300\n");
    let path = "/usr/lib/systemd/system.conf.d/a.conf";
    check("web.service", &[own, conf, drop_in], Some((300, 300, path, 2)));
    check("web.service", &[own], Some((1024, 524_288, "", 0)));
}

#[test]
fn units_of_a_user() {
    let dir = tree(&[
        ("home/a/.config/systemd/user/web.service", "[Service]\nLimitNOFILE=8\n"),
        ("etc/systemd/user/other.service", "[Service]\n"),
        ("etc/systemd/user.conf", "[Manager]\nDefaultLimitNOFILE=9\n"),
    ]);
    let root = Root::open(dir.path()).unwrap();
    let of = |name| unit(&root, &named(name, Manager::User(1000)), Some(Path::new("/home/a")));
    assert_eq!(of("web.service").settings[0].soft, Some(Limit::Of(8)));
    assert_eq!(of("other.service").settings[0].soft, Some(Limit::Of(9)));
    fs::remove_file(dir.path().join("etc/systemd/user.conf")).unwrap();
    // A user's manager passes on what it has.
    assert!(of("other.service").settings.is_empty());
}

#[test]
fn sessions_of_services() {
    let dir = tree(&[(LIB, "[Service]\nPAMName=login\n")]);
    let root = Root::open(dir.path()).unwrap();
    let facts = unit(&root, &named("web.service", Manager::System), None);
    assert_eq!(facts.pam_name.as_deref(), Some("login"));
}

/// Debian's own unit files.
#[test]
fn real_units() {
    let root = Root::open(Path::new("/")).unwrap();
    if root.exists(Path::new("/usr/lib/systemd/system/redis-server.service")) {
        let facts = unit(&root, &named("redis-server.service", Manager::System), None);
        assert_eq!(facts.settings[0].soft, Some(Limit::Of(65535)), "{facts:?}");
    }
}
