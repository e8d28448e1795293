//! From files to what an operator reads.

use fdtrace::{
    diagnose::Failed,
    model::{Cause, Certainty, ChainEnd, Diagnosis, Role, Runtime, Value},
};

use crate::{
    diagnosed, limits,
    tree::{Process, Tree},
};

const CONF: &str = "etc/supervisor/supervisord.conf";
const PROGRAM: &str =
    "[supervisord]\nnodaemon=true\n[program:forward]\ncommand=/srv/dataforwardsrv 9088\n";
const SERVICE: &str = "/system.slice/supervisor.service";

#[track_caller]
pub(crate) fn check(found: &Diagnosis, cause: Cause, certainty: Certainty, parts: &[&str]) {
    assert_eq!((found.cause, found.certainty), (cause, certainty), "{found:#?}");
    for part in parts {
        assert!(found.why.contains(part), "{part:?} is not in {:?}", found.why);
    }
}

pub(crate) fn commands(found: &Diagnosis) -> Vec<&str> {
    found.remedies.iter().filter_map(|remedy| remedy.command.as_deref()).collect()
}

/// limits.conf was raised 23 days after supervisord had been started, from nobody knows where.
#[test]
fn limits_conf_was_raised_later() {
    let tree = Tree::new();
    tree.systemd();
    tree.supervised("1024", "4096", "/");
    tree.write(CONF, PROGRAM);
    tree.changed("etc/security/limits.conf", "# x\nroot - nofile 100000\n", 23);
    let provenance = tree.read(14807);
    assert_eq!(provenance.chain.len(), 3, "{provenance:#?}");
    assert_eq!(provenance.chain[1].role, Role::Supervisord);
    let found = diagnosed(&provenance);
    check(
        &found,
        Cause::RaisedAfterStart,
        Certainty::Likely,
        &[
            "soft nofile limit 1024 (hard 4096), inherited from supervisord[812] (also 1024), which \
         started ",
            " before /etc/security/limits.conf:2 was changed to 100000",
        ],
    );
    assert!(found.why.contains("22 days") || found.why.contains("23 days"), "{}", found.why);
    assert_eq!(commands(&found)[0], "prlimit --pid 14807 --nofile=4096:");
    let expected = "sed -i '1a minfds=100000' /etc/supervisor/supervisord.conf";
    assert_eq!(*commands(&found).last().unwrap(), expected);
    assert!(found.remedies.last().unwrap().text.contains(", and forward with it"));
}

/// The same from a login of root's.
#[test]
fn limits_conf_of_a_login() {
    let tree = Tree::new();
    tree.systemd();
    tree.supervised("1024", "4096", "/user.slice/user-0.slice/session-3.scope");
    tree.write(CONF, PROGRAM);
    tree.changed("etc/security/limits.d/files.conf", "root - nofile 100000\n", 23);
    // Whether PAM gives limits to logins here cannot be read.
    let found = diagnosed(&tree.read(14807));
    check(&found, Cause::RaisedAfterStart, Certainty::Likely, &[]);
    // It does not.
    tree.write("etc/pam.d/sshd", "session required pam_umask.so\n");
    assert_eq!(diagnosed(&tree.read(14807)).cause, Cause::SoftLimitLow);
    tree.write("etc/pam.d/login", "session required pam_limits.so\n");
    check(
        &diagnosed(&tree.read(14807)),
        Cause::RaisedAfterStart,
        Certainty::Certain,
        &["before /etc/security/limits.d/files.conf:1 was changed to 100000"],
    );
}

/// The same, but supervisord is a service: limits.conf has nothing to do with it.
#[test]
fn limits_conf_and_a_service() {
    let tree = Tree::new();
    tree.systemd();
    tree.supervised("1024", "524288", SERVICE);
    tree.write(CONF, PROGRAM);
    tree.write("usr/lib/systemd/system/supervisor.service", "[Service]\nExecStart=x\n");
    tree.changed("etc/security/limits.conf", "root - nofile 100000\n", 23);
    let found = diagnosed(&tree.read(14807));
    check(
        &found,
        Cause::SoftLimitLow,
        Certainty::Certain,
        &[
            "the built-in minfds, for /etc/supervisor/supervisord.conf sets none",
            "/etc/security/limits.conf:1 says 100000, but PAM applies that to logins",
        ],
    );
    let expected = "sed -i '1a minfds=65536' /etc/supervisor/supervisord.conf && systemctl \
                    daemon-reload && systemctl restart supervisor.service";
    assert_eq!(*commands(&found).last().unwrap(), expected);
}

#[test]
fn minfds_was_raised_later() {
    let conf = format!("{PROGRAM}[supervisord]\nminfds = 100000\n");
    let tree = Tree::new();
    tree.systemd();
    tree.supervised("1024", "1024", SERVICE);
    tree.write("usr/lib/systemd/system/supervisor.service", "[Service]\nExecStart=x\n");
    tree.changed(CONF, &conf, 2);
    let found = diagnosed(&tree.read(14807));
    check(
        &found,
        Cause::RaisedAfterStart,
        Certainty::Certain,
        &["before minfds in /etc/supervisor/supervisord.conf:6 was changed to 100000"],
    );
    let expected = "systemctl daemon-reload && systemctl restart supervisor.service";
    assert_eq!(*commands(&found).last().unwrap(), expected);
    // It was so at the start, and yet is not in force: no claim who lowered it.
    let tree = Tree::of_tomorrow();
    tree.systemd();
    tree.supervised("1024", "1024", "/");
    tree.write(CONF, &conf);
    check(
        &diagnosed(&tree.read(14807)),
        Cause::HardLimitLow,
        Certainty::Likely,
        &["says 100000, and no date tells why that is not in force"],
    );
}

#[test]
fn units() {
    let web = Process {
        pid: 700,
        parent: 1,
        command: "/srv/web",
        limits: ("1024", "1024"),
        cgroup: "/system.slice/web.service",
    };
    let unit = "usr/lib/systemd/system/web.service";
    let drop_in = "etc/systemd/system/web.service.d/override.conf";
    let tree = Tree::new();
    tree.systemd();
    tree.process(&web);
    tree.write(unit, "[Service]\nLimitNOFILE=1024\n");
    check(
        &diagnosed(&tree.read(700)),
        Cause::HardLimitLow,
        Certainty::Certain,
        &[": LimitNOFILE= in /usr/lib/systemd/system/web.service:2"],
    );
    tree.changed(drop_in, "[Service]\nLimitNOFILE=65536\n", 5);
    let found = diagnosed(&tree.read(700));
    check(
        &found,
        Cause::RaisedAfterStart,
        Certainty::Certain,
        &[
            "nofile limit 1024 (soft and hard); it started ",
            " before LimitNOFILE= in /etc/systemd/system/web.service.d/override.conf:2 was changed to \
         65536",
        ],
    );
    assert_eq!(
        commands(&found),
        [
            "prlimit --pid 700 --nofile=65536:65536",
            "systemctl daemon-reload && systemctl restart web.service",
        ]
    );
    // A child of the unit's first process inherits it too.
    tree.process(&Process { pid: 701, parent: 700, ..web });
    check(
        &diagnosed(&tree.read(701)),
        Cause::RaisedAfterStart,
        Certainty::Certain,
        &["inherited from web[700] (also 1024), which started"],
    );
}

const ID: &str = "4f1c0d6f2f5a4e7c9b8a7d6e5f4c3b2a1908f7e6d5c4b3a29180706050403020";

#[test]
fn containers() {
    let tree = Tree::new();
    tree.systemd();
    tree.process(&Process {
        pid: 880,
        parent: 1,
        command: "/usr/bin/containerd-shim-runc-v2 -id x",
        // The unit gives it 1024:524288, and Go raises that.
        limits: ("524288", "524288"),
        cgroup: "/system.slice/containerd.service",
    });
    tree.built_with_go(880, "go1.23.6");
    let cgroup = format!("/system.slice/docker-{ID}.scope");
    let web = Process {
        pid: 900,
        parent: 880,
        command: "/web",
        limits: ("1024", "2048"),
        cgroup: &cgroup,
    };
    tree.process(&web);
    tree.write("usr/lib/systemd/system/containerd.service", "[Service]\nLimitNOFILE=1024:524288\n");
    tree.write(
        &format!("run/containerd/io.containerd.runtime.v2.task/moby/{ID}/config.json"),
        r#"{"process":{"rlimits":[{"type":"RLIMIT_NOFILE","hard":2048,"soft":1024}]}}"#,
    );
    tree.write(
        &format!("var/lib/docker/containers/{ID}/hostconfig.json"),
        r#"{"Ulimits":[{"Name":"nofile","Hard":2048,"Soft":1024}]}"#,
    );
    let found = diagnosed(&tree.read(900));
    check(&found, Cause::SoftLimitLow, Certainty::Certain, &["the container's nofile ulimit in"]);
    assert!(found.remedies.last().unwrap().text.contains("--ulimit nofile=65536:65536"));

    // Given nothing, it has what its shim has; containerd was given more since.
    tree.remove(&format!("var/lib/docker/containers/{ID}"));
    tree.write(
        &format!("run/containerd/io.containerd.runtime.v2.task/moby/{ID}/config.json"),
        r#"{"process":{}}"#,
    );
    tree.remove("proc/900");
    tree.process(&Process { limits: ("1024", "524288"), ..web });
    let found = diagnosed(&tree.read(900));
    check(
        &found,
        Cause::SoftLimitLow,
        Certainty::Certain,
        &[
            "soft nofile limit 1024 (hard 524288), inherited from containerd-shim[880]: \
             LimitNOFILE= in /usr/lib/systemd/system/containerd.service:2",
            "; containerd-shim[880] has 524288: Go raises its own limit only, and starts others \
             with the one it got",
        ],
    );
    let runtime = found.evidence.iter().find(|evidence| evidence.fact == "ancestor_runtime");
    assert_eq!(runtime.unwrap().value, Value::Text("Go 1.23.6".into()));
    // An older Go would have given on what it raised.
    tree.built_with_go(880, "go1.19.8");
    let found = diagnosed(&tree.read(900));
    assert!(!found.why.contains("inherited"), "{}", found.why);
    tree.built_with_go(880, "go1.23.6");
    tree.changed(
        "etc/systemd/system/containerd.service.d/a.conf",
        "[Service]\nLimitNOFILE=65536\n",
        3,
    );
    let found = diagnosed(&tree.read(900));
    check(
        &found,
        Cause::RaisedAfterStart,
        Certainty::Certain,
        &[
            "inherited from containerd-shim[880], which started ",
            " was changed to 65536; containerd-shim[880] has 524288: Go raises",
        ],
    );
    assert!(found.remedies.last().unwrap().text.contains("create the container anew"));

    // The container's configuration is not there to read.
    tree.remove("run/containerd");
    assert!(
        tree.read(900)
            .unknown
            .iter()
            .any(|what| what.contains("found no configuration of container"))
    );
}

/// Each fact in turn cannot be read: the rest is said, nothing is invented, and the reason is told.
#[test]
fn missing_facts() {
    let full = || {
        let tree = Tree::new();
        tree.systemd();
        tree.supervised("1024", "4096", SERVICE);
        tree.write(CONF, PROGRAM);
        tree.write("usr/lib/systemd/system/supervisor.service", "[Service]\nExecStart=x\n");
        tree
    };
    for (path, unknown) in [
        ("proc/stat", "the date of the boot"),
        ("proc/812/limits", "/proc/812/limits"),
        ("proc/812/status", "/proc/812/status"),
        ("proc/812", "/proc/812/stat"),
        ("proc/14807/cgroup", "/proc/14807/cgroup"),
        ("proc/sys/fs/nr_open", "/proc/sys/fs/nr_open"),
        (CONF, "/etc/supervisor/supervisord.conf"),
        ("etc/passwd", "user 0 is not in /etc/passwd"),
    ] {
        let tree = full();
        tree.remove(path);
        let provenance = tree.read(14807);
        assert!(
            provenance.unknown.iter().any(|what| what.contains(unknown)),
            "{path}: {:#?}",
            provenance.unknown
        );
        let found = diagnosed(&provenance);
        assert_eq!(found.cause, Cause::SoftLimitLow, "{path}");
        assert!(found.unknown.iter().any(|what| what.contains(unknown)), "{path}");
        assert_eq!(commands(&found)[0], "prlimit --pid 14807 --nofile=4096:", "{path}");
    }
    // The process itself is gone.
    let tree = full();
    tree.remove("proc/14807");
    let provenance = tree.read(14807);
    assert!(provenance.chain.is_empty());
    assert!(matches!(provenance.chain_end, ChainEnd::Unreadable(_)));
    assert!(limits(&provenance, Failed::Descriptor).is_empty());
    // The whole tree is.
    let gone = fdtrace::enrich::provenance::read(&tree.path().join("none"), fdtrace::model::Pid(1));
    assert_eq!((gone.chain.len(), gone.runtime), (0, Runtime::Unknown));
    assert_eq!(gone.unknown.len(), 1);
}

/// A chain that never ends, and files that are no files.
#[test]
fn hostile_trees() {
    let tree = Tree::new();
    for pid in 1..=40 {
        let parent = if pid == 40 { 1 } else { pid + 1 };
        let limits = ("1024", "1024");
        tree.process(&Process { pid, parent, command: "/bin/sh", limits, cgroup: "/" });
    }
    let provenance = tree.read(1);
    assert_eq!((provenance.chain.len(), provenance.chain_end), (32, ChainEnd::TooLong));

    let tree = Tree::new();
    tree.systemd();
    tree.supervised("1024", "4096", "/");
    tree.write(&format!("{CONF}/x"), "");
    let provenance = tree.read(14807);
    let expected = "could not read /etc/supervisor/supervisord.conf: not a regular file";
    assert!(provenance.unknown.iter().any(|what| what == expected), "{:#?}", provenance.unknown);
}
