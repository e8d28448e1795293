//! What started a process: a supervisor with a script, pm2, sshd, cron. Each hands down its limits in
//! its own way, and is started again in its own way.

use fdtrace::model::{Cause, Certainty, Role, Runtime, When};

use crate::{
    diagnosed,
    stories::{check, commands},
    tree::{Process, Tree},
};

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
