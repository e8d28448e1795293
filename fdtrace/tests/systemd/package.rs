//! The Debian package, installed by dpkg on a machine whose first process is systemd.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    Test,
    service::{PLACE, PROGRAM, get, property},
    unit::systemctl,
};

pub(crate) const TESTS: &[Test] = &[("the_package_starts_its_unit_and_takes_it_away", package)];

/// Where the machine has it, as `cargo xtask dist` makes it.
const PACKAGE: &str = "/srv/fdtrace.deb";
const CONFIG: &str = "/etc/fdtrace/fdtrace.toml";
const ENABLED: &str = "/etc/systemd/system/multi-user.target.wants/fdtrace.service";

/// The machine without the program that the other tests run, until this is dropped; and with a
/// drop-in, for nothing starts what units of a whole system wait for.
struct Bare {
    program: PathBuf,
    drop_in: PathBuf,
}

impl Bare {
    fn new() -> Self {
        let this =
            Self { program: "/srv/fdtrace-before".into(), drop_in: format!("{PLACE}.d").into() };
        fs::copy(PROGRAM, &this.program).unwrap();
        fs::remove_file(PROGRAM).unwrap();
        fs::create_dir_all(&this.drop_in).unwrap();
        let text = "[Unit]\nDefaultDependencies=no\n";
        fs::write(this.drop_in.join("test.conf"), text).unwrap();
        // What earlier tests left.
        for dir in ["/etc/fdtrace", "/var/log/fdtrace", "/var/log/private/fdtrace"] {
            let _ = fs::remove_dir_all(dir);
            let _ = fs::remove_file(dir);
        }
        this
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        let _ = Command::new("dpkg").args(["--purge", "fdtrace"]).status();
        fs::copy(&self.program, PROGRAM).unwrap();
        fs::remove_dir_all(&self.drop_in).unwrap();
        systemctl(&["daemon-reload"]);
    }
}

/// The machine has the libraries, but knows of no package that they are from.
#[track_caller]
fn dpkg(action: &str, what: &str) {
    let output = Command::new("dpkg").args(["--force-depends", action, what]).output().unwrap();
    let said = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap()).concat();
    println!("    dpkg {action} {what}: {}", output.status);
    assert!(output.status.success(), "{said}");
}

/// Every file and directory with fdtrace's name, but dpkg's own.
fn named() -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let mut dirs = ["/etc", "/run", "/usr", "/var"].map(PathBuf::from).to_vec();
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten().filter_map(Result::ok) {
            let path = entry.path();
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                dirs.push(path.clone());
            }
            if path.to_string_lossy().contains("fdtrace") && !path.starts_with("/var/lib/dpkg") {
                found.insert(path);
            }
        }
    }
    // The manager's own: units that are there, invocations.
    found.retain(|path| !path.starts_with("/run/systemd"));
    found
}

#[track_caller]
fn assert_runs() -> String {
    assert_eq!(property("ActiveState"), "active");
    assert_eq!(get("/healthz").trim(), "ok");
    let main_pid = property("MainPID");
    let program = fs::read_link(format!("/proc/{main_pid}/exe")).unwrap();
    assert_eq!(program, Path::new(PROGRAM));
    main_pid
}

fn package() {
    let _bare = Bare::new();
    let before = named();
    dpkg("--install", PACKAGE);
    let first = assert_runs();
    assert!(Path::new(ENABLED).is_symlink(), "it starts with the system");
    assert_eq!(systemctl(&["is-enabled", "fdtrace.service"]).trim(), "enabled");
    let installed = named();
    println!("    {} files and directories", installed.difference(&before).count());

    // The next version, over what its administrator wrote: restarted, and that is kept.
    let ours = format!("{}\n# ours\n", fs::read_to_string(CONFIG).unwrap());
    fs::write(CONFIG, &ours).unwrap();
    dpkg("--install", PACKAGE);
    assert_ne!(assert_runs(), first, "another process runs it");
    assert_eq!(fs::read_to_string(CONFIG).unwrap(), ours);

    dpkg("--remove", "fdtrace");
    assert_eq!(property("ActiveState"), "inactive");
    assert!(!Path::new(PROGRAM).exists() && Path::new(CONFIG).exists());
    assert!(std::net::TcpStream::connect(("127.0.0.1", 9435)).is_err(), "nobody answers");

    dpkg("--purge", "fdtrace");
    let after = named();
    let left: Vec<_> = after.difference(&before).collect();
    assert!(left.is_empty(), "{left:?}");
}
