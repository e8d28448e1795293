//! From files to what an operator reads.

use fdtrace::{
    diagnose::Failed,
    model::{Cause, Certainty, ChainEnd, Diagnosis, Role, Runtime, When},
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
fn check(found: &Diagnosis, cause: Cause, certainty: Certainty, parts: &[&str]) {
    assert_eq!((found.cause, found.certainty), (cause, certainty), "{found:#?}");
    for part in parts {
        assert!(found.why.contains(part), "{part:?} is not in {:?}", found.why);
    }
}

fn commands(found: &Diagnosis) -> Vec<&str> {
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
        limits: ("1024", "524288"),
        cgroup: "/system.slice/containerd.service",
    });
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
        &["inherited from containerd-shim[880] (also 1024)"],
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

#[test]
fn run_scripts() {
    for (init, supervisor, role, restart) in [
        ("/sbin/runit", "runsv web", Role::Runsv, "sv restart /srv"),
        ("/bin/s6-svscan", "s6-supervise web", Role::S6Supervise, "s6-svc -r /srv"),
    ] {
        let many = ("4096", "4096");
        let of =
            |pid, parent, command, limits| Process { pid, parent, command, limits, cgroup: "/" };
        let tree = Tree::new();
        tree.process(&of(1, 0, init, many));
        tree.process(&of(50, 1, supervisor, many));
        tree.process(&of(51, 50, "/srv/web", ("512", "512")));
        tree.write("srv/run", "#!/bin/sh\nulimit -n 512\nexec /srv/web\n");
        let provenance = tree.read(51);
        assert_eq!(provenance.chain[1].role, role);
        let found = diagnosed(&provenance);
        let place = "the script's limit in /srv/run:2";
        check(&found, Cause::HardLimitLow, Certainty::Certain, &[place]);
        let expected = format!(r"sed -i '2s/\b512\b/65536/' /srv/run && {restart}");
        assert_eq!(*commands(&found).last().unwrap(), expected);

        // The script was raised, and its supervisor has not run it again.
        tree.changed("srv/run", "#!/bin/sh\nulimit -n 3000\nexec /srv/web\n", 3);
        let found = diagnosed(&tree.read(51));
        let raised = "before the script's limit in /srv/run:2 was changed to 3000";
        check(&found, Cause::RaisedAfterStart, Certainty::Certain, &[raised]);
        assert_eq!(*commands(&found).last().unwrap(), restart);
    }
}

/// pm2 has no setting for limits: its daemon hands down its own, and comes back with what the shell
/// has that starts it.
#[test]
fn below_pm2() {
    let tree = Tree::new();
    tree.systemd();
    let low = ("1024", "1024");
    let of = |pid, parent, command| Process { pid, parent, command, limits: low, cgroup: "/" };
    // Its title is one argument, and its name what fits of that.
    tree.process(&of(300, 1, "/usr/bin/node"));
    tree.write("proc/300/cmdline", "PM2 v5.3.0: God Daemon (/root/.pm2)\0");
    tree.write("proc/300/comm", "PM2 v5.3.0: God\n");
    tree.process(&of(301, 300, "/usr/bin/node /srv/web.js"));
    let provenance = tree.read(301);
    assert_eq!((provenance.chain[1].role, &provenance.runtime), (Role::Pm2, &Runtime::Node));
    let found = diagnosed(&provenance);
    check(
        &found,
        Cause::HardLimitLow,
        Certainty::Likely,
        &["nofile limit 1024 (soft and hard), inherited from PM2 v5.3.0: God[300] (also 1024)"],
    );
    let name = "PM2 v5.3.0: God[300]";
    let [own, daemon, keep] = &found.remedies[..] else { panic!("{found:#?}") };
    let command = own.command.as_deref();
    assert_eq!(command, Some("prlimit --pid 301 --nofile=65536:65536"));
    // An app that is started again has what its daemon has then.
    assert!(daemon.text.starts_with(&format!("raise the limits of {name} too")), "{daemon:?}");
    let command = daemon.command.as_deref();
    assert_eq!(command, Some("prlimit --pid 300 --nofile=65536:65536"));
    let expected =
        format!("stop {name} with \"pm2 kill\" and start it again after \"ulimit -n 65536\"");
    assert_eq!((keep.when, &*keep.text, &keep.command), (When::ForGood, &*expected, &None));
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

/// A shell that was started by sshd, whose session is not in any cgroup.
#[test]
fn below_sshd() {
    let tree = Tree::new();
    let limits = ("1024", "4096");
    let of = |pid, parent, command| Process { pid, parent, command, limits, cgroup: "/" };
    tree.process(&of(1, 0, "/sbin/init"));
    tree.process(&of(40, 1, "/usr/sbin/sshd"));
    tree.process(&of(41, 40, "/usr/sbin/sshd"));
    tree.process(&of(42, 41, "/bin/bash"));
    tree.process(&of(43, 42, "/srv/web"));
    tree.write("etc/pam.d/sshd", "@include common-session\nsession required pam_limits.so\n");
    tree.write("etc/pam.d/common-session", "");
    tree.changed("etc/security/limits.conf", "* soft nofile 4096\n", 9);
    let found = diagnosed(&tree.read(43));
    check(&found, Cause::RaisedAfterStart, Certainty::Certain, &["inherited from bash[42]"]);
    let keep = &found.remedies.last().unwrap().text;
    assert_eq!(keep, "log in again, and start bash[42] from there, and web[43] with it");
}

/// A job of cron's, as Debian starts it: cron's child opens the session, and a shell runs the line.
#[test]
fn below_cron() {
    let tree = Tree::new();
    tree.systemd();
    let of = |pid, parent, command, limits| Process {
        pid,
        parent,
        command,
        limits,
        cgroup: "/system.slice/cron.service",
    };
    let low = ("1024", "4096");
    tree.process(&of(600, 1, "/usr/sbin/cron -f", low));
    tree.process(&of(601, 600, "/usr/sbin/cron -f", low));
    tree.process(&of(602, 601, "/bin/sh -c web", low));
    tree.process(&of(603, 602, "/srv/web", low));
    tree.write("usr/lib/systemd/system/cron.service", "[Service]\nLimitNOFILE=1024:4096\n");
    // PAM gives nothing: its unit is what cron and its jobs have their limit from.
    tree.write("etc/pam.d/cron", "session required pam_env.so\n");
    let provenance = tree.read(603);
    assert_eq!(provenance.chain[2].role, Role::Cron);
    let found = diagnosed(&provenance);
    check(
        &found,
        Cause::SoftLimitLow,
        Certainty::Certain,
        &[
            "inherited from cron[600] (also 1024)",
            ": LimitNOFILE= in /usr/lib/systemd/system/cron.service:2",
        ],
    );
    let keep = &found.remedies.last().unwrap().text;
    assert_eq!(
        keep,
        "set LimitNOFILE=65536 for cron.service (systemctl edit cron.service), then systemctl \
         daemon-reload && systemctl restart cron.service, and end web[603], or wait for its end: \
         cron gives its next run the new limit"
    );

    // limits.conf was raised while the job ran: no restart of cron is needed.
    tree.write("etc/pam.d/cron", "session required pam_limits.so\n");
    tree.changed("etc/security/limits.conf", "root soft nofile 4096\n", 9);
    let found = diagnosed(&tree.read(603));
    check(
        &found,
        Cause::RaisedAfterStart,
        Certainty::Certain,
        &["inherited from sh[602] (also 1024)", "before /etc/security/limits.conf:1 was changed"],
    );
    let again = "end web[603], or wait for its end: cron gives its next run the new limit";
    assert_eq!(found.remedies.last().unwrap().text, again);

    // It says what the job has.
    let tree = Tree::of_tomorrow();
    tree.systemd();
    for (pid, parent, command) in
        [(600, 1, "/usr/sbin/cron -f"), (602, 600, "/bin/sh -c web"), (603, 602, "/srv/web")]
    {
        tree.process(&of(pid, parent, command, low));
    }
    tree.write("etc/pam.d/cron", "session required pam_limits.so\n");
    tree.write("etc/security/limits.conf", "root soft nofile 1024\n");
    let found = diagnosed(&tree.read(603));
    let given = ": nofile of root in /etc/security/limits.conf:1";
    check(&found, Cause::SoftLimitLow, Certainty::Certain, &[given]);
    let keep = &found.remedies.last().unwrap().text;
    assert!(keep.ends_with(&format!("limits.conf:1, then {again}")), "{keep}");
}
