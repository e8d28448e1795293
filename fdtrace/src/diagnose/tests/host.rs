//! Limits of the whole host, and what is said where little is known.

use super::*;

#[test]
fn nr_open() {
    let mut low = provenance(vec![process(600, "web", 4096, 4096)]);
    low.system.nr_open.value = Some(2048);
    let found = diagnosed(&low);
    assert_eq!((found.cause, found.certainty), (Cause::NrOpen, Certainty::Certain));
    assert!(found.why.starts_with("fs.nr_open is 2048, lower than"), "{}", found.why);
    assert_eq!(commands(&found)[0], "sysctl -w fs.nr_open=4096");

    low.system.nr_open.value = Some(4096);
    let found = diagnosed(&low);
    assert_eq!(found.cause, Cause::NrOpen);
    assert_eq!(
        commands(&found),
        [
            "sysctl -w fs.nr_open=8192",
            "prlimit --pid 600 --nofile=8192:8192",
            "echo 'fs.nr_open = 8192' >> /etc/sysctl.d/90-file-limits.conf",
        ]
    );
    low.system.nr_open.configured = Some(ConfiguredSysctl { value: 4096, file: conf(9) });
    let expected = "sed -i '9s|.*|fs.nr_open = 8192|' /etc/supervisor/supervisord.conf";
    assert_eq!(commands(&diagnosed(&low))[2], expected);
    assert!(limits(&facts(&low, Failed::Nothing)).iter().all(|one| one.cause != Cause::NrOpen));
    low.system.nr_open.value = None;
    assert_eq!(diagnosed(&low).cause, Cause::HardLimitLow);
}

#[test]
fn file_max_or_memory() {
    let enfile = |handles: Option<u64>, at_failure: Option<u64>, above: Option<bool>| {
        let mut own = process(600, "web", 1024, 1024);
        own.above_file_max = above;
        let mut own = provenance(vec![own]);
        own.system.file_handles = handles;
        let facts =
            LimitFacts { file_handles_at_failure: at_failure, ..facts(&own, Failed::Handle) };
        let found = limits(&facts);
        found.first().map(|one| (one.cause, one.certainty))
    };
    let (certain, likely) = (Certainty::Certain, Certainty::Likely);
    for (handles, at_failure, above, expected) in [
        (Some(100_000), None, Some(false), Some((Cause::FileMax, certain))),
        (Some(2000), Some(99_500), Some(false), Some((Cause::FileMax, certain))),
        (Some(60_000), None, Some(false), Some((Cause::FileMax, likely))),
        (Some(60_000), Some(60_000), Some(false), Some((Cause::SocketAllocation, likely))),
        (Some(2000), None, Some(false), Some((Cause::SocketAllocation, likely))),
        (Some(100_000), None, Some(true), Some((Cause::SocketAllocation, likely))),
        (None, None, Some(false), Some((Cause::FileMax, likely))),
        (None, None, None, Some((Cause::FileMax, likely))),
        (None, None, Some(true), Some((Cause::SocketAllocation, likely))),
    ] {
        assert_eq!(enfile(handles, at_failure, above), expected, "{handles:?} {at_failure:?}");
    }
}

#[test]
fn inotify_and_io_uring() {
    let own = provenance(vec![process(600, "web", 1024, 1024)]);
    let of = |instances: Option<u64>, open| {
        let held = instances.map(|count| held(count, true));
        let facts =
            LimitFacts { held: held.as_ref(), open, ..facts(&own, Failed::InotifyInstance) };
        let found = limits(&facts);
        (found[0].cause, found[0].certainty)
    };
    assert_eq!(of(Some(128), Some(50)), (Cause::InotifyInstances, Certainty::Certain));
    assert_eq!(of(Some(90), Some(50)), (Cause::InotifyInstances, Certainty::Likely));
    assert_eq!(of(None, None), (Cause::InotifyInstances, Certainty::Likely));
    assert_eq!(of(Some(90), Some(1024)).0, Cause::HardLimitLow, "it needs a descriptor too");
    let found = limits(&facts(&own, Failed::DirectDescriptor));
    assert_eq!((found[0].cause, found[0].certainty), (Cause::IoUringTable, Certainty::Likely));
    assert!(found[0].unknown[0].contains("memory for a socket"), "{:?}", found[0].unknown);
    let found = limits(&facts(&own, Failed::DirectFile));
    assert_eq!((found[0].cause, found[0].certainty), (Cause::IoUringTable, Certainty::Certain));
}

fn held(count: u64, is_complete: bool) -> UserHoldings {
    let holder =
        |pid, name: &[u8], count| Holder { pid: Pid(pid), comm: Comm::from_bytes(name), count };
    let holders = vec![holder(4711, b"code", 90), holder(600, b"web", 30)];
    UserHoldings { uid: 1000, count, is_complete, holders, holder_count: 6 }
}

#[test]
fn who_holds_what_a_user_has_only_so_many_of() {
    let own = provenance(vec![process(600, "web", 1024, 1024)]);
    let of = |failed, held: &UserHoldings| {
        let facts = LimitFacts { held: Some(held), ..facts(&own, failed) };
        limits(&facts).remove(0)
    };
    let found = of(Failed::InotifyInstance, &held(128, true));
    assert_eq!(
        found.why,
        "inotify_init of web[600] failed: user 1000 has as many inotify instances as \
         fs.inotify.max_user_instances (128) allows, and its limit of descriptors is not in \
         question. Of 128 inotify instances found, code[4711] has 90, web[600] 30, 4 other \
         processes the rest"
    );
    assert_eq!(commands(&found)[0], "sysctl -w fs.inotify.max_user_instances=1024");
    let found = of(Failed::InotifyInstance, &held(90, false));
    assert_eq!(found.certainty, Certainty::Likely);
    assert!(found.unknown[0].ends_with("at least 90 inotify instances"), "{:?}", found.unknown);
    let found = of(Failed::Pipe, &held(4, true));
    assert_eq!((found.cause, found.certainty), (Cause::PipePages, Certainty::Certain));
    assert_eq!(
        found.why,
        "pipe of web[600] failed: user 1000 has as many pages of pipes as fs.pipe-user-pages-hard \
         (64) allows, and file handles of the host are not in question. Of 4 pipes (mostly of 16 \
         pages) found, code[4711] has 90, web[600] 30, 4 other processes the rest"
    );
    assert_eq!(commands(&found)[0], "sysctl -w fs.pipe-user-pages-hard=65536");
}

#[test]
fn nothing_failed() {
    let of = |soft, hard| {
        let own = provenance(vec![process(600, "web", soft, hard)]);
        limits(&facts(&own, Failed::Nothing)).first().map(|found| found.cause)
    };
    assert_eq!(of(1024, 524_288), Some(Cause::SoftLimitLow));
    assert_eq!(of(1024, 1024), Some(Cause::HardLimitLow));
    assert_eq!(of(65_536, 65_536), None);
    assert_eq!(of(65_536, 100_000), None);
    assert_eq!(of(4096, 524_288), Some(Cause::SoftLimitLow));
    assert_eq!(of(1_048_576, 1_048_576), None);
}

#[test]
fn nothing_is_claimed_of_what_was_not_read() {
    // The process is gone, and the failure told its limits.
    let mut gone = provenance(Vec::new());
    gone.chain_end = ChainEnd::Unreadable("could not read /proc/7/stat: no such file".into());
    gone.unknown = vec!["could not read /proc/7/stat: no such file".into()];
    assert!(limits(&facts(&gone, Failed::Descriptor)).is_empty());
    for (hard, cause) in [(4096, Cause::SoftLimitLow), (1024, Cause::HardLimitLow)] {
        let at_failure = FdLimits { soft: limit(1024), hard: limit(hard) };
        let facts =
            LimitFacts { limits_at_failure: Some(at_failure), ..facts(&gone, Failed::Descriptor) };
        let found = limits(&facts).remove(0);
        assert_eq!((found.cause, found.certainty), (cause, Certainty::Likely));
        assert!(found.remedies.is_empty(), "{found:#?}");
        assert!(found.unknown.contains(&gone.unknown[0]));
    }

    // Dates, the parent's limits and its files are unknown.
    let mut parent = process(812, "supervisord", 1024, 1024);
    parent.limits = None;
    let mut own = provenance(vec![process(600, "web", 1024, 1024), parent]);
    own.chain_end = ChainEnd::Unreadable("could not read /proc/1/stat: permission denied".into());
    let found = diagnosed(&own);
    assert_eq!((found.cause, found.certainty), (Cause::HardLimitLow, Certainty::Likely));
    assert!(!found.why.contains("inherited"), "{}", found.why);
    let mut undated = process(812, "supervisord", 1024, 1024);
    undated.started_at = None;
    undated.settings = vec![minfds(4096, file("/etc/supervisord.conf:7", 3))];
    own.chain[1] = undated;
    let found = diagnosed(&own);
    assert_eq!(found.cause, Cause::HardLimitLow);
    assert!(found.why.contains("no date tells why"), "{}", found.why);
}
