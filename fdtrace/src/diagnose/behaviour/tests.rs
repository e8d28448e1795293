use super::*;
use crate::{
    diagnose::fixtures::{at, single_failures},
    model::{Comm, Pid, Tid},
};

fn thread(tid: u32, state: ThreadState, cpu: f64) -> Thread {
    Thread {
        tid: Tid(tid),
        comm: Comm::from_bytes(b"worker"),
        state,
        is_steady: true,
        cpu: Some(cpu),
        starved: Some(0.0),
        wchan: None,
        syscall: None,
    }
}

fn acceptor(threads: Vec<Thread>) -> Acceptor {
    Acceptor {
        pid: Pid(7),
        window: Duration::from_millis(100),
        thread_count: threads.len() as u64,
        threads,
        tracer: Some(Pid(9)),
        unknown: Vec::new(),
    }
}

fn of_threads(threads: Vec<Thread>) -> Option<Behaviour> {
    behaviour(&AcceptFacts { acceptor: Some(&acceptor(threads)), ..AcceptFacts::default() })
}

fn of_failures(failures: &[FailureSample]) -> Option<Behaviour> {
    let now = failures.last().unwrap().at;
    behaviour(&AcceptFacts { failures, now, ..AcceptFacts::default() })
}

fn queue(lengths: &[u32]) -> Vec<QueueSample> {
    let sample = |(second, length): (u64, &u32)| QueueSample {
        at: at(1_000 + second * 1_000),
        length: *length,
    };
    (0..).zip(lengths).map(sample).collect()
}

#[test]
fn standing_still() {
    use ThreadState::{Ended, Running, Sleeping, Stopped, Traced, Uninterruptible};
    let stopped = || thread(1, Stopped, 0.0);
    assert_eq!(of_threads(vec![stopped(), stopped()]), Some(Behaviour::Stopped));
    assert_eq!(of_threads(vec![stopped(), thread(2, Ended, 0.0)]), Some(Behaviour::Stopped));
    assert_eq!(of_threads(vec![stopped(), thread(2, Sleeping, 0.0)]), None);
    assert_eq!(of_threads(vec![]), None);

    let traced = Behaviour::Traced { by: Some(Pid(9)) };
    assert_eq!(of_threads(vec![thread(1, Traced, 0.0)]), Some(traced));
    // strace
    assert_eq!(of_threads(vec![thread(1, Traced, 0.02)]), None);
    assert_eq!(of_threads(vec![Thread { is_steady: false, ..thread(1, Traced, 0.0) }]), None);

    let frozen = |name: &str| Thread { wchan: Some(name.into()), ..thread(1, Sleeping, 0.0) };
    assert_eq!(of_threads(vec![frozen("do_freezer_trap")]), Some(Behaviour::Frozen));
    assert_eq!(of_threads(vec![frozen("get_signal")]), Some(Behaviour::Frozen));
    assert_eq!(of_threads(vec![frozen("inet_csk_accept")]), None);

    let blocked = || Thread { wchan: Some("rpc_wait".into()), ..thread(1, Uninterruptible, 0.0) };
    let expected = Behaviour::Blocked {
        tid: Tid(1),
        comm: Comm::from_bytes(b"worker"),
        wchan: Some("rpc_wait".into()),
    };
    assert_eq!(of_threads(vec![blocked()]), Some(expected));
    assert_eq!(of_threads(vec![blocked(), thread(2, Sleeping, 0.0)]), None, "the other may accept");
    assert_eq!(of_threads(vec![Thread { is_steady: false, ..blocked() }]), None);
    assert_eq!(of_threads(vec![thread(1, Running, 0.4)]), None);
}

#[test]
fn one_thread_on_a_core() {
    use ThreadState::{Running, Sleeping};
    let expected =
        Behaviour::CpuBound { tid: Tid(1), comm: Comm::from_bytes(b"worker"), cpu: 0.97 };
    let busy = || thread(1, Running, 0.97);
    assert_eq!(of_threads(vec![busy(), thread(2, Sleeping, 0.1)]), Some(expected));
    assert_eq!(of_threads(vec![busy(), thread(2, Running, 0.9)]), None, "it uses several");
    assert_eq!(of_threads(vec![thread(1, Running, 0.8)]), None);
    assert_eq!(of_threads(vec![Thread { cpu: None, ..busy() }]), None);
    let mut some = acceptor(vec![busy()]);
    some.thread_count = 2000;
    let facts = AcceptFacts { acceptor: Some(&some), ..AcceptFacts::default() };
    assert_eq!(behaviour(&facts), None, "not all were looked at");
}

#[test]
fn a_busy_loop() {
    let storm =
        [FailureSample { at: at(1_000), count: 1 }, FailureSample { at: at(2_000), count: 80_001 }];
    let per_second = 80_000.0;
    assert_eq!(of_failures(&storm), Some(Behaviour::BusyLoop { per_second, cpu: None }));
    let with = |cpu| {
        let acceptor = acceptor(vec![thread(1, ThreadState::Running, cpu)]);
        let (failures, now) = (&storm[..], at(2_000));
        behaviour(&AcceptFacts {
            acceptor: Some(&acceptor),
            failures,
            now,
            ..AcceptFacts::default()
        })
    };
    assert_eq!(with(0.99), Some(Behaviour::BusyLoop { per_second, cpu: Some(0.99) }));
    assert_eq!(with(0.05), None);
    assert_eq!(of_failures(&storm[..1]), None);
    let over = AcceptFacts { failures: &storm, now: at(3_000), ..AcceptFacts::default() };
    assert_eq!(behaviour(&over), None, "it was one");
    let moment = [storm[0], FailureSample { at: at(1_050), count: 400 }];
    assert_eq!(of_failures(&moment), None, "too short to tell");
}

#[test]
fn backing_off() {
    // As net/http does, and as records show it: the first failures share one.
    let mut records = vec![FailureSample { at: at(1_000), count: 1 }];
    for (millis, count) in
        [(1_155, 6), (1_315, 7), (1_635, 8), (2_275, 9), (3_275, 10), (4_276, 11)]
    {
        records.push(FailureSample { at: at(millis), count });
    }
    let longest = |found: Option<Behaviour>| match found {
        Some(Behaviour::BackingOff { longest }) => longest.as_millis(),
        other => panic!("{other:?}"),
    };
    assert_eq!(
        longest(of_failures(&single_failures(&[5, 10, 20, 40, 80, 160, 320, 640, 1_000, 1_000]))),
        1_000
    );
    assert_eq!(longest(of_failures(&records)), 1_001);
    assert_eq!(longest(of_failures(&single_failures(&[100, 160, 320, 640]))), 640);
    let pause = Some(Behaviour::Pausing { pause: Duration::from_millis(1_010) });
    assert_eq!(of_failures(&single_failures(&[1_000, 1_010, 1_005, 1_001])), pause);
    for none in [
        &[1_000, 1_000, 1_000][..],
        &[5, 900, 20, 700],
        &[20, 20, 21, 20],
        &[5_000, 5_000, 5_000, 5_000],
        &[0, 0, 0, 0],
    ] {
        assert_eq!(of_failures(&single_failures(none)), None, "{none:?}");
    }
}

#[test]
fn a_queue_that_stays_empty_though_accept_fails() {
    let failures = single_failures(&[700, 150, 900, 1_200]);
    let now = failures.last().unwrap().at;
    let with = |lengths: &[u32], is_alone| {
        let queue = queue(lengths);
        behaviour(&AcceptFacts {
            failures: &failures,
            queue: &queue,
            now,
            is_alone,
            acceptor: None,
        })
    };
    assert_eq!(with(&[0, 0, 0], Some(true)), Some(Behaviour::DrainsWhileFailing));
    assert_eq!(with(&[0, 0, 0], Some(false)), None, "another acceptor takes them");
    assert_eq!(with(&[0, 0, 0], None), None);
    assert_eq!(with(&[0, 1, 0], Some(true)), None);
    assert_eq!(with(&[0, 0], Some(true)), None);
}

#[test]
fn giving_up() {
    let failures = [FailureSample { at: at(500), count: 3 }];
    let sleeping = acceptor(vec![thread(1, ThreadState::Sleeping, 0.0)]);
    let with = |lengths: &[u32], now, acceptor| {
        let queue = queue(lengths);
        let facts = AcceptFacts {
            acceptor,
            failures: &failures,
            queue: &queue,
            now: at(now),
            is_alone: None,
        };
        behaviour(&facts)
    };
    let gave_up = Some(Behaviour::GaveUp { silent: Duration::from_secs(20) });
    assert_eq!(with(&[1, 4, 9], 20_500, Some(&sleeping)), gave_up);
    assert_eq!(with(&[129, 129, 129], 20_500, None), gave_up);
    assert_eq!(with(&[9, 4, 9], 20_500, Some(&sleeping)), None, "somebody accepts");
    assert_eq!(with(&[0, 0, 0], 20_500, Some(&sleeping)), None, "nobody waits");
    assert_eq!(with(&[1, 4, 9], 5_000, Some(&sleeping)), None, "it may pause");
    let working = acceptor(vec![thread(1, ThreadState::Running, 0.6)]);
    assert_eq!(with(&[1, 4, 9], 20_500, Some(&working)), None);
}
