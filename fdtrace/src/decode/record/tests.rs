//! Records byte by byte.

use super::*;

fn failure(bytes: &[u8]) -> Result<FailureEvent, DecodeError> {
    match record(bytes)? {
        Event::Failure(event) => Ok(event),
        other => panic!("{other:?}"),
    }
}

/// A record of nginx failing on 127.0.0.1:80, as bytes, each field given by its offset in
/// the wire type, so that the decoder is held against the wire and not against itself.
fn sample() -> Vec<u8> {
    use std::mem::offset_of;
    let mut bytes = vec![0; FailureRecord::SIZE];
    let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
    let key = offset_of!(FailureRecord, key);
    put(key + offset_of!(wire::FailureKey, start_boottime_ns), &7_000_000_000_u64.to_ne_bytes());
    put(key + offset_of!(wire::FailureKey, inode), &4242_u64.to_ne_bytes());
    put(key + offset_of!(wire::FailureKey, tgid), &99_u32.to_ne_bytes());
    put(key + offset_of!(wire::FailureKey, errno), &24_u16.to_ne_bytes());
    put(key + offset_of!(wire::FailureKey, door), &[wire::Door::Accept4 as u8]);
    put(key + offset_of!(wire::FailureKey, fd_kind), &[wire::FdKind::Socket as u8]);
    put(offset_of!(FailureRecord, boot_ns), &9_000_000_000_u64.to_ne_bytes());
    put(offset_of!(FailureRecord, soft_limit), &1024_u64.to_ne_bytes());
    put(offset_of!(FailureRecord, hard_limit), &u64::MAX.to_ne_bytes());
    put(offset_of!(FailureRecord, cgroup_id), &11_u64.to_ne_bytes());
    put(offset_of!(FailureRecord, kind), &RECORD_FAILURE.to_ne_bytes());
    put(offset_of!(FailureRecord, slot), &3_u32.to_ne_bytes());
    put(offset_of!(FailureRecord, tid), &101_u32.to_ne_bytes());
    put(offset_of!(FailureRecord, valid), &0x3f_u32.to_ne_bytes());
    put(offset_of!(FailureRecord, comm), b"nginx\0junk");
    let listener = offset_of!(FailureRecord, listener);
    put(listener + offset_of!(wire::ListenerFacts, address), &[127, 0, 0, 1]);
    put(listener + offset_of!(wire::ListenerFacts, netns), &4_026_531_840_u32.to_ne_bytes());
    put(listener + offset_of!(wire::ListenerFacts, queue_length), &61_u32.to_ne_bytes());
    put(listener + offset_of!(wire::ListenerFacts, queue_limit), &128_u32.to_ne_bytes());
    put(listener + offset_of!(wire::ListenerFacts, family), &AF_INET.to_ne_bytes());
    put(listener + offset_of!(wire::ListenerFacts, port), &80_u16.to_ne_bytes());
    bytes
}

fn with(offset: usize, value: &[u8]) -> Vec<u8> {
    let mut bytes = sample();
    bytes[offset..offset + value.len()].copy_from_slice(value);
    bytes
}

#[test]
fn every_field_comes_from_its_place() {
    assert_eq!(
        failure(&sample()).unwrap(),
        FailureEvent {
            key: KeyId { slot: 3, inode: 4242 },
            at: BootTime::from_nanos(9_000_000_000),
            caller: Some(Caller {
                process: ProcessId { pid: Pid(99), started: BootTime::from_nanos(7_000_000_000) },
                tid: Tid(101),
                comm: Comm::from_bytes(b"nginx"),
                cgroup: 11,
            }),
            door: Door::Accept4,
            failure: Failure::Errno(Errno::EMFILE),
            target: Target::Listener(Listener {
                netns: Some(4_026_531_840),
                address: ListenerAddress::Inet {
                    ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
                    port: 80,
                    dual_stack: Some(false),
                },
            }),
            queue: Some(AcceptQueue { length: 61, limit: 128 }),
            limits: Some(FdLimits { soft: Limit::Of(1024), hard: Limit::Unlimited }),
            met: None,
        }
    );
}

#[test]
fn clear_valid_bits_are_unknown_and_never_zero() {
    let event = failure(&with(std::mem::offset_of!(FailureRecord, valid), &[0; 4])).unwrap();
    assert_eq!(event.queue, None);
    assert_eq!(event.limits, None);
    let listener = Listener { netns: None, address: ListenerAddress::Other(AF_INET) };
    assert_eq!(event.target, Target::Listener(listener));
}

#[test]
fn a_refused_segment_has_no_caller() {
    let mut bytes = with(std::mem::offset_of!(wire::FailureKey, door), &[wire::Door::Ack as u8]);
    let reason = std::mem::offset_of!(wire::FailureKey, errno);
    for (refusal, want) in [
        (Refusal::AcceptQueueFull, Failure::AcceptQueueFull { syn_queue_full: false }),
        (Refusal::BothQueuesFull, Failure::AcceptQueueFull { syn_queue_full: true }),
        (Refusal::SynQueueFull, Failure::SynQueueFull),
        (Refusal::SynCookieSent, Failure::SynCookieSent),
    ] {
        bytes[reason..reason + 2].copy_from_slice(&(refusal as u16).to_ne_bytes());
        let event = failure(&bytes).unwrap();
        assert_eq!((event.caller, event.door, event.failure), (None, Door::Ack, want));
    }
    bytes[reason..reason + 2].copy_from_slice(&0_u16.to_ne_bytes());
    assert_eq!(record(&bytes), Err(DecodeError::Value { field: "errno", value: 0 }));
}

#[test]
fn a_limit_that_the_errno_does_not_tell_is_told() {
    let known = std::mem::offset_of!(FailureRecord, valid);
    let mut bytes = with(known, &valid::LIMIT.to_ne_bytes());
    let limit = std::mem::offset_of!(FailureRecord, limit);
    bytes[limit..limit + 8].copy_from_slice(&512_u64.to_ne_bytes());
    assert_eq!(failure(&bytes).unwrap().met, Some(Met::Descriptors(512)));
    let reason = std::mem::offset_of!(wire::FailureKey, errno);
    for (code, errno, met) in [
        (Refusal::InotifyInstances, Errno::EMFILE, Met::InotifyInstances),
        (Refusal::PipePages, Errno::ENFILE, Met::PipePages),
        (Refusal::IoUringTable, Errno::ENFILE, Met::IoUringTable),
    ] {
        bytes[reason..reason + 2].copy_from_slice(&(code as u16).to_ne_bytes());
        let event = failure(&bytes).unwrap();
        assert_eq!((event.failure, event.met), (Failure::Errno(errno), Some(met)));
    }
}

#[test]
fn every_call_that_creates_a_descriptor_has_a_name() {
    let door = std::mem::offset_of!(wire::FailureKey, door);
    for (index, call) in fdtrace_common::FD_CALLS.iter().enumerate() {
        let value = FdCall::FIRST_DOOR + u8::try_from(index).unwrap();
        assert_eq!(failure(&with(door, &[value])).unwrap().door, Door::Call(call.name));
        assert_eq!(FdCall::door(call.name), value);
    }
    let next = FdCall::FIRST_DOOR + u8::try_from(fdtrace_common::FD_CALLS.len()).unwrap();
    assert!(failure(&with(door, &[next])).is_err());
    let accept = failure(&with(door, &[wire::Door::IoUringAccept as u8])).unwrap();
    assert_eq!(accept.door, Door::IoUringAccept);
}

#[test]
fn a_listen_says_who_asked_for_how_much() {
    let mut bytes = with(std::mem::offset_of!(FailureRecord, kind), &RECORD_LISTEN.to_ne_bytes());
    let requested = std::mem::offset_of!(FailureRecord, number);
    bytes[requested..requested + 4].copy_from_slice(&511_u32.to_ne_bytes());
    let Event::Listen(event) = record(&bytes).unwrap() else { panic!() };
    assert_eq!((event.inode, event.requested), (4242, 511));
    assert_eq!(event.queue, Some(AcceptQueue { length: 61, limit: 128 }));
    assert_eq!(event.caller.process.pid, Pid(99));
}

#[test]
fn an_accept_says_how_many_descriptors_are_in_use() {
    let mut bytes = with(std::mem::offset_of!(FailureRecord, kind), &RECORD_GAUGE.to_ne_bytes());
    let number = std::mem::offset_of!(FailureRecord, number);
    bytes[number..number + 4].copy_from_slice(&832_u32.to_ne_bytes());
    let Event::Gauge(event) = record(&bytes).unwrap() else { panic!() };
    assert_eq!((event.inode, event.fd, event.caller.process.pid), (4242, 832, Pid(99)));
    assert_eq!(event.limits, Some(FdLimits { soft: Limit::Of(1024), hard: Limit::Unlimited }));
    assert_eq!(event.target.listener().unwrap().address.port(), Some(80));
}

#[test]
fn unix_names_end_where_they_end() {
    let listener = std::mem::offset_of!(FailureRecord, listener);
    let name = |text: &[u8], len: u16| {
        let mut bytes = with(
            listener + std::mem::offset_of!(wire::ListenerFacts, family),
            &AF_UNIX.to_ne_bytes(),
        );
        let path = listener + std::mem::offset_of!(wire::ListenerFacts, path);
        bytes[path..path + text.len()].copy_from_slice(text);
        let at = listener + std::mem::offset_of!(wire::ListenerFacts, path_len);
        bytes[at..at + 2].copy_from_slice(&len.to_ne_bytes());
        match failure(&bytes).unwrap().target {
            Target::Listener(Listener { address: ListenerAddress::Unix(name), .. }) => name,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(name(b"/run/x.sock\0", 12), UnixName::Path(b"/run/x.sock".to_vec()));
    assert_eq!(name(b"\0abstract", 9), UnixName::Abstract(b"abstract".to_vec()));
    assert_eq!(name(b"", 0), UnixName::Unnamed);
    assert_eq!(name(&[b'a'; 108], 108), UnixName::Path(vec![b'a'; 108]));
    assert_eq!(name(&[b'a'; 108], u16::MAX), UnixName::Path(vec![b'a'; 108]));
}

#[test]
fn any_bytes_give_an_event_or_an_error() {
    let whole = sample();
    for end in 0..whole.len() {
        let want = DecodeError::Length { got: end, want: FailureRecord::SIZE };
        assert_eq!(record(&whole[..end]), Err(want));
    }
    for at in 0..whole.len() {
        for value in [0, 1, 0x7f, 0xff] {
            let _ = record(&with(at, &[value]));
        }
    }
    let door = std::mem::offset_of!(wire::FailureKey, door);
    let unknown = DecodeError::Value { field: "door", value: 31 };
    assert_eq!(record(&with(door, &[31])), Err(unknown));
}
