mod go;
mod host;

use super::{fixtures::*, *};
use crate::model::{
    Cause, Certainty, ChainEnd, Comm, ConfiguredSysctl, ContainerRuntime, FileFact, Holder,
    LoginLimits, Pid, Place, Program, Role, Runtime, Setting, SettingSource, When,
};

/// The story that fdtrace was written for.
fn story() -> Provenance {
    let mut supervisord = process(812, "supervisord", 1024, 4096);
    supervisord.settings = vec![minfds(1024, Place::BuiltIn(Some(conf(3))))];
    let mut story =
        provenance(vec![process(14807, "dataforwardsrv", 1024, 4096), supervisord, systemd()]);
    story.runtime = Runtime::Go("go1.12.5".into());
    let settings = vec![login(100_000, file("/etc/security/limits.conf:57", 23))];
    story.login = Some(LoginLimits { settings, applies: None });
    story
}

fn conf(line: u32) -> FileFact {
    let Place::File(fact) = file(&format!("/etc/supervisor/supervisord.conf:{line}"), 0) else {
        panic!()
    };
    fact
}

#[test]
fn the_original_story() {
    let story = story();
    let found = diagnosed(&story);
    assert_eq!(found.cause, Cause::RaisedAfterStart);
    assert_eq!(
        found.why,
        "soft nofile limit 1024 (hard 4096), inherited from supervisord[812] (also 1024), which \
         started 23 days before /etc/security/limits.conf:57 was changed to 100000"
    );
    // Whether it was started from a login, nothing says.
    assert_eq!(found.certainty, Certainty::Likely);
    let expected = "whether supervisord[812] descends from a login: only to logins does PAM apply \
                    /etc/security/limits.conf";
    assert_eq!(found.unknown, [expected]);
    assert_eq!(
        commands(&found),
        [
            "prlimit --pid 14807 --nofile=4096:",
            "prlimit --pid 14807 --nofile=100000:100000",
            "prlimit --pid 812 --nofile=100000:100000",
            "sed -i '3a minfds=100000' /etc/supervisor/supervisord.conf",
        ]
    );
    let last = found.remedies.last().unwrap();
    assert_eq!(last.when, When::ForGood);
    assert_eq!(
        last.text,
        "write minfds=100000 to /etc/supervisor/supervisord.conf, section [supervisord], then \
         restart supervisord[812] itself, and web with it: it sets limits only when it starts, and \
         neither \"supervisorctl reload\" nor \"update\" does"
    );
    let facts: Vec<&str> = found.evidence.iter().map(|evidence| evidence.fact).collect();
    assert_eq!(
        facts,
        [
            "soft_limit",
            "hard_limit",
            "ancestor",
            "ancestor_started",
            "configured_limit",
            "configuration_changed",
            "started_before_change",
        ]
    );
}

#[test]
fn a_login_s_limit_is_no_service_s() {
    let mut story = story();
    story.login.as_mut().unwrap().applies = Some(false);
    let found = diagnosed(&story);
    assert_eq!(found.cause, Cause::SoftLimitLow);
    assert_eq!(
        found.why,
        "soft nofile limit 1024 (hard 4096), inherited from supervisord[812] (also 1024): the \
         built-in minfds, for /etc/supervisor/supervisord.conf sets none; \
         /etc/security/limits.conf:57 says 100000, but PAM applies that to logins, not to \
         services; it is built with Go 1.12.5, and only since 1.19 does Go raise it to the hard one"
    );
}

#[test]
fn minfds_that_was_raised_later() {
    let mut supervisord = process(812, "supervisord", 1024, 1024);
    supervisord.unit = Some(unit("supervisor.service"));
    supervisord.settings = vec![minfds(100_000, file("/etc/supervisor/supervisord.conf:7", 2))];
    let mut late = provenance(vec![process(14807, "web", 1024, 1024), supervisord, systemd()]);
    let found = diagnosed(&late);
    assert_eq!((found.cause, found.certainty), (Cause::RaisedAfterStart, Certainty::Certain));
    assert_eq!(
        found.why,
        "nofile limit 1024 (soft and hard), inherited from supervisord[812] (also 1024), which \
         started 2 days before minfds in /etc/supervisor/supervisord.conf:7 was changed to 100000"
    );
    assert_eq!(
        commands(&found),
        [
            "prlimit --pid 14807 --nofile=100000:100000",
            "prlimit --pid 812 --nofile=100000:100000",
            "systemctl daemon-reload && systemctl restart supervisor.service",
        ]
    );
    // Moved into place with an old date: a file was changed, whether this line, nobody knows.
    late.chain[1].settings[0].place =
        file_at("/etc/supervisor/supervisord.conf:7", Some(day(0)), Some(day(2)));
    let found = diagnosed(&late);
    assert_eq!((found.cause, found.certainty), (Cause::RaisedAfterStart, Certainty::Likely));
    // Changed before the start, and yet not in force: somebody lowered it, who is unknown.
    late.chain[1].settings[0].place = file("/etc/supervisor/supervisord.conf:7", 0);
    let found = diagnosed(&late);
    assert_eq!((found.cause, found.certainty), (Cause::HardLimitLow, Certainty::Likely));
    assert_eq!(
        found.why,
        "nofile limit 1024 (soft and hard), inherited from supervisord[812] (also 1024); its \
         parent systemd[1] has 1073741816: it was lowered when it started, or the parent's was \
         raised later; minfds in /etc/supervisor/supervisord.conf:7 says 100000, and no date tells \
         why that is not in force"
    );
    // Within the error of the dates.
    let second = day(0) + std::time::Duration::from_secs(1);
    late.chain[1].settings[0].place = file_at("/x:7", Some(second), Some(second));
    assert_eq!(diagnosed(&late).cause, Cause::HardLimitLow);
}

#[test]
fn minfds_is_the_limit() {
    let mut supervisord = process(812, "supervisord", 1024, 1024);
    supervisord.settings = vec![minfds(1024, file("/etc/supervisord.conf:7", 0))];
    let low = provenance(vec![process(14807, "web", 1024, 1024), supervisord, systemd()]);
    let found = diagnosed(&low);
    assert_eq!((found.cause, found.certainty), (Cause::HardLimitLow, Certainty::Certain));
    assert_eq!(
        found.why,
        "nofile limit 1024 (soft and hard), inherited from supervisord[812] (also 1024): minfds in \
         /etc/supervisord.conf:7"
    );
    assert_eq!(commands(&found)[2], "sed -i '7s|.*|minfds=65536|' /etc/supervisord.conf");
    // It cannot raise its hard limit, and would not start.
    let mut unprivileged = low.clone();
    unprivileged.chain[1].may_raise_hard = Some(false);
    let keep = diagnosed(&unprivileged).remedies.pop().unwrap().text;
    assert!(keep.starts_with("give supervisord[812] a limit of 65536 where it is"), "{keep}");
    // Lower than what it inherited, it plays no part.
    let mut inherited = low;
    inherited.chain[1].settings = vec![minfds(100, file("/etc/supervisord.conf:7", 0))];
    let found = diagnosed(&inherited);
    assert!(!found.why.contains("minfds"), "{}", found.why);
    assert_eq!(found.certainty, Certainty::Likely);
}

#[test]
fn units() {
    let mut web = process(700, "web", 1024, 524_288);
    web.unit = Some(unit("web.service"));
    let built_in = Setting {
        source: SettingSource::UnitDefault(unit("web.service")),
        soft: Some(limit(1024)),
        hard: Some(limit(524_288)),
        place: Place::BuiltIn(None),
    };
    web.settings = vec![built_in];
    let mut default = provenance(vec![web, systemd()]);
    let found = diagnosed(&default);
    assert_eq!((found.cause, found.certainty), (Cause::SoftLimitLow, Certainty::Certain));
    assert_eq!(found.why, "soft nofile limit 1024 (hard 524288): the built-in DefaultLimitNOFILE=");
    assert_eq!(
        commands(&found),
        [
            "prlimit --pid 700 --nofile=65536:",
            "mkdir -p /etc/systemd/system/web.service.d && printf \
             '[Service]\\nLimitNOFILE=65536:524288\\n' > \
             /etc/systemd/system/web.service.d/nofile.conf && systemctl daemon-reload && systemctl \
             restart web.service",
        ]
    );

    let own = "/etc/systemd/system/web.service.d/override.conf:2";
    default.chain[0] = Ancestor {
        settings: vec![of_unit("web.service", 4096, file(own, 0))],
        ..process(700, "web", 4096, 4096)
    };
    let found = diagnosed(&default);
    assert_eq!((found.cause, found.certainty), (Cause::HardLimitLow, Certainty::Certain));
    assert_eq!(
        commands(&found)[1],
        "sed -i '2s|.*|LimitNOFILE=65536|' /etc/systemd/system/web.service.d/override.conf && \
         systemctl daemon-reload && systemctl restart web.service"
    );
    // A drop-in of a package is not touched: ours has a later name.
    let package = "/usr/lib/systemd/system/web.service.d/override.conf:2";
    default.chain[0].settings = vec![of_unit("web.service", 4096, file(package, 0))];
    let found = diagnosed(&default);
    assert!(commands(&found)[1].contains("/web.service.d/zz-nofile.conf"), "{found:#?}");

    default.chain[0].settings = vec![of_unit("web.service", 100_000, file(own, 5))];
    let found = diagnosed(&default);
    assert_eq!((found.cause, found.certainty), (Cause::RaisedAfterStart, Certainty::Certain));
    assert_eq!(
        found.why,
        "nofile limit 4096 (soft and hard); it started 5 days before LimitNOFILE= in \
         /etc/systemd/system/web.service.d/override.conf:2 was changed to 100000"
    );
    assert_eq!(commands(&found)[1], "systemctl daemon-reload && systemctl restart web.service");
}

#[test]
fn containers() {
    let id = "4f1c0d6f2f5a4e7c9b8a7d6e5f4c3b2a1908f7e6d5c4b3a29180706050403020";
    let source = |runtime| SettingSource::Container { runtime, id: id.into() };
    let mut init = process(900, "tini", 1024, 4096);
    init.container = Some(id.into());
    init.settings = vec![Setting {
        source: source(ContainerRuntime::Docker),
        soft: Some(limit(1024)),
        hard: Some(limit(4096)),
        place: file("/var/lib/docker/containers/x/hostconfig.json", 0),
    }];
    let mut shim = process(880, "containerd-shim", 1024, 524_288);
    shim.settings = vec![of_unit(
        "containerd.service",
        1024,
        file("/lib/systemd/system/containerd.service:9", 0),
    )];
    let mut web = process(950, "web", 1024, 4096);
    web.container = Some(id.into());
    let mut docker = provenance(vec![web, init, shim, systemd()]);
    let found = diagnosed(&docker);
    assert_eq!((found.cause, found.certainty), (Cause::SoftLimitLow, Certainty::Certain));
    let keep = &found.remedies.last().unwrap().text;
    assert!(keep.contains("create the container 4f1c0d6f2f5a anew with --ulimit"), "{keep}");

    // Kubernetes: no setting of its own, and the shim is older than containerd's new limit.
    docker.chain[1].settings.clear();
    for process in &mut docker.chain[..3] {
        process.limits = Some(FdLimits { soft: limit(1024), hard: limit(1024) });
    }
    docker.chain[2].settings = vec![of_unit(
        "containerd.service",
        1_048_576,
        file("/etc/systemd/system/containerd.service.d/a.conf:2", 3),
    )];
    let found = diagnosed(&docker);
    assert_eq!(found.cause, Cause::RaisedAfterStart);
    assert!(found.why.contains("inherited from containerd-shim[880] (also 1024)"), "{}", found.why);
    assert!(found.remedies.last().unwrap().text.contains("create the container anew"));

    // Docker's default was raised since the container was made.
    let default = |limit: u64| {
        let runtime = ContainerRuntime::Docker;
        let source = SettingSource::ContainerDefault { runtime, id: id.into() };
        setting(source, limit, file("/etc/docker/daemon.json:3", 3))
    };
    let own = setting(source(ContainerRuntime::Docker), 1024, file("/run/x/config.json", 0));
    docker.chain[1].settings = vec![own, default(9000)];
    let found = diagnosed(&docker);
    assert_eq!(found.cause, Cause::RaisedAfterStart);
    assert!(
        found.why.contains("the default nofile ulimit of containers in /etc/docker/daemon.json:3")
    );
    docker.chain[1].settings[1] = default(100);
    assert_eq!(diagnosed(&docker).cause, Cause::HardLimitLow);
}

#[test]
fn logins() {
    let mut shell = process(500, "bash", 1024, 1_048_576);
    shell.settings = vec![login(4096, file("/etc/security/limits.d/a.conf:1", 4))];
    let mut sshd = process(490, "sshd", 1024, 1_048_576);
    sshd.role = Role::Sshd;
    let late = provenance(vec![process(600, "web", 1024, 1_048_576), shell, sshd]);
    let found = diagnosed(&late);
    // The limit is also sshd's, but it is the login that would have set it.
    assert_eq!((found.cause, found.certainty), (Cause::RaisedAfterStart, Certainty::Certain));
    let keep = &found.remedies.last().unwrap().text;
    assert_eq!(keep, "log in again, and start bash[500] from there, and web[600] with it");

    let mut by_hand = late.clone();
    by_hand.chain[1].settings.clear();
    by_hand.chain[2].limits = None;
    let found = diagnosed(&by_hand);
    assert_eq!(found.cause, Cause::SoftLimitLow);
    let keep = &found.remedies.last().unwrap().text;
    assert!(keep.starts_with("run \"ulimit -n 65536\" in the shell"), "{keep}");
}

#[test]
fn programs_with_settings_of_their_own() {
    let mut worker = process(700, "nginx", 64, 64);
    let source = SettingSource::Own { program: Program::Nginx };
    worker.settings = vec![setting(source, 64, file("/etc/nginx/nginx.conf:3", 0))];
    let mut nginx = provenance(vec![worker, process(699, "nginx", 1024, 4096)]);
    nginx.runtime = Runtime::Program(Program::Nginx);
    let found = diagnosed(&nginx);
    assert_eq!((found.cause, found.certainty), (Cause::OwnSetting, Certainty::Certain));
    assert_eq!(
        found.why,
        "nofile limit 64 (soft and hard), which nginx[700] sets itself: worker_rlimit_nofile in \
         /etc/nginx/nginx.conf:3"
    );
    assert_eq!(
        commands(&found)[1],
        "sed -i '3s|.*|worker_rlimit_nofile 65536;|' /etc/nginx/nginx.conf && kill -HUP 699 && kill -QUIT 700"
    );
    // It sets none: then what it inherits can be changed in its own file all the same.
    nginx.chain[0].settings[0].soft = None;
    nginx.chain[0].settings[0].hard = None;
    nginx.chain[0].settings[0].place = Place::BuiltIn(Some(conf(1)));
    let found = diagnosed(&nginx);
    assert_eq!(found.cause, Cause::HardLimitLow);
    assert!(commands(&found)[1].starts_with("sed -i '1i worker_rlimit_nofile 65536;'"));

    let mut redis = process(800, "redis-server", 10_032, 10_032);
    let source = SettingSource::Own { program: Program::Redis };
    redis.settings = vec![setting(source, 10_032, Place::BuiltIn(Some(conf(1))))];
    let redis = provenance(vec![redis, systemd()]);
    let found = diagnosed(&redis);
    assert_eq!((found.cause, found.certainty), (Cause::OwnSetting, Certainty::Likely));
}

/// What Redis may not raise by itself is not raised by its configuration either.
#[test]
fn redis_under_a_low_hard_limit() {
    let mut own = process(800, "redis-server", 64, 64);
    own.may_raise_hard = Some(false);
    own.cmdline = Some(vec![b"redis-server 127.0.0.1:6380".to_vec()]);
    let source = SettingSource::Own { program: Program::Redis };
    let unset = Setting { soft: None, hard: None, ..setting(source, 0, Place::BuiltIn(None)) };
    own.settings = vec![unset];
    let mut redis = provenance(vec![own, systemd()]);
    redis.runtime = Runtime::Program(Program::Redis);
    let found = diagnosed(&redis);
    assert_eq!(
        found.why,
        "nofile limit 64 (soft and hard), which it was given, or has set itself by maxclients: its \
         configuration was not found"
    );
    let expected =
        ["prlimit --pid 800 --nofile=65536:65536", "redis-cli -p 6380 config set maxclients 65504"];
    assert_eq!(commands(&found), expected);
    let keep = &found.remedies.last().unwrap().text;
    assert_eq!(
        keep,
        "set \"maxclients 65504\" in its configuration, then restart it, with a hard limit of at \
         least 65536: it needs 32 descriptors beside those of its clients"
    );
    // Who started it gave it that, which no maxclients changes.
    let unit = of_unit("redis.service", 64, file("/etc/systemd/system/redis.service:5", 0));
    redis.chain[0].settings.push(unit);
    let found = diagnosed(&redis);
    assert_eq!((found.cause, found.certainty), (Cause::HardLimitLow, Certainty::Certain));
    let keep = &found.remedies.last().unwrap().text;
    assert!(keep.contains("LimitNOFILE=65536"), "{keep}");
    redis.chain[0].settings.pop();

    // Within its hard limit it raises the soft one to what maxclients needs, and both commands keep
    // to what the first one gives.
    redis.chain[0].limits = Some(FdLimits { soft: limit(64), hard: limit(1024) });
    let found = diagnosed(&redis);
    assert_eq!(found.cause, Cause::SoftLimitLow);
    assert_eq!(commands(&found)[2], "redis-cli -p 6380 config set maxclients 992");
    let keep = &found.remedies.last().unwrap().text;
    assert!(keep.starts_with("set \"maxclients 992\" in its configuration"), "{keep}");
    // A port of a container is none of the host's.
    redis.chain[0].container = Some("4f1c0d6f2f5a".into());
    assert_eq!(commands(&diagnosed(&redis)).len(), 2);
}

#[test]
fn runtimes() {
    let why = |runtime: Runtime| {
        let mut own = provenance(vec![process(600, "web", 1024, 4096)]);
        own.runtime = runtime;
        diagnosed(&own).why
    };
    let base = "soft nofile limit 1024 (hard 4096)";
    for (runtime, end) in [
        (Runtime::Other, ""),
        (Runtime::Python, "; Python leaves it as it is"),
        (
            Runtime::Go("go1.18".into()),
            "; it is built with Go 1.18, and only since 1.19 does Go raise it to the hard one",
        ),
        (
            Runtime::Go("go1.22.1".into()),
            "; Go 1.22.1 raises it to the hard one at start, so it was lowered, or the hard one \
             raised, after that",
        ),
        (
            Runtime::Java { raises: false },
            "; -XX:-MaxFDLimit keeps Java from raising it to the hard one",
        ),
    ] {
        assert_eq!(why(runtime), format!("{base}{end}"));
    }
}
