//! A failed call, a refused segment, a listen(2), or an accept close to a limit.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bytes::Buf as _;
use fdtrace_common::{
    self as wire, FailureRecord, FdCall, RECORD_FAILURE, RECORD_GAUGE, RECORD_LISTEN, Refusal,
    valid,
};

use super::{AF_INET, AF_INET6, AF_UNIX, DecodeError};
use crate::model::{
    AcceptQueue, BootTime, Caller, Comm, Door, Errno, Event, Failure, FailureEvent, FdLimits,
    GaugeEvent, KeyId, Limit, ListenEvent, Listener, ListenerAddress, Met, Pid, ProcessId, Target,
    Tid, UnixName,
};

/// Decodes a [`FailureRecord`].
pub fn record(mut bytes: &[u8]) -> Result<Event, DecodeError> {
    if bytes.len() != FailureRecord::SIZE {
        return Err(DecodeError::Length { got: bytes.len(), want: FailureRecord::SIZE });
    }
    // The length is that of the record, so no read below can run out.
    let started = BootTime::from_nanos(bytes.get_u64_ne());
    let inode = bytes.get_u64_ne();
    let pid = Pid(bytes.get_u32_ne());
    let reason = bytes.get_u16_ne();
    let door_number = bytes.get_u8();
    let fd_kind = bytes.get_u8();
    let at = BootTime::from_nanos(bytes.get_u64_ne());
    let soft = Limit::from_rlim(bytes.get_u64_ne());
    let hard = Limit::from_rlim(bytes.get_u64_ne());
    let cgroup = bytes.get_u64_ne();
    let limit = bytes.get_u64_ne();
    let kind = bytes.get_u32_ne();
    let slot = bytes.get_u32_ne();
    let tid = Tid(bytes.get_u32_ne());
    let known = bytes.get_u32_ne();
    let mut comm = [0; wire::COMM_LEN];
    bytes.copy_to_slice(&mut comm);
    let facts = Facts::read(&mut bytes, known);
    let number = bytes.get_u32_ne();

    let process = ProcessId { pid, started };
    let caller = Caller { process, tid, comm: Comm::from_bytes(&comm), cgroup };
    let limits = (known & valid::LIMITS != 0).then_some(FdLimits { soft, hard });
    match kind {
        RECORD_FAILURE => {}
        RECORD_LISTEN => {
            let (listener, queue) = (facts.listener(), facts.queue());
            let requested = number;
            return Ok(Event::Listen(ListenEvent { inode, caller, listener, queue, requested }));
        }
        RECORD_GAUGE => {
            let target = target(fd_kind, &facts)?;
            let gauge = GaugeEvent { caller, inode, target, limits, fd: number };
            return Ok(Event::Gauge(gauge));
        }
        other => return Err(DecodeError::Value { field: "kind", value: other.into() }),
    }
    let door = door(door_number)?;
    Ok(Event::Failure(FailureEvent {
        key: KeyId { slot, inode },
        at,
        caller: (!matches!(door, Door::Syn | Door::Ack)).then_some(caller),
        door,
        failure: reason_of(reason)?,
        met: met(reason).or((known & valid::LIMIT != 0).then_some(Met::Descriptors(limit))),
        queue: facts.queue(),
        target: target(fd_kind, &facts)?,
        limits,
    }))
}

fn door(value: u8) -> Result<Door, DecodeError> {
    Ok(match value {
        door if door == wire::Door::Accept as u8 => Door::Accept,
        door if door == wire::Door::Accept4 as u8 => Door::Accept4,
        door if door == wire::Door::Socket as u8 => Door::Socket,
        door if door == wire::Door::Socketpair as u8 => Door::Socketpair,
        door if door == wire::Door::Syn as u8 => Door::Syn,
        door if door == wire::Door::Ack as u8 => Door::Ack,
        door if door == wire::Door::IoUringAccept as u8 => Door::IoUringAccept,
        door if door == wire::Door::IoUringAcceptDirect as u8 => Door::IoUringAcceptDirect,
        door if door == wire::Door::IoUring as u8 => Door::IoUring,
        door if door == wire::Door::Other as u8 => Door::Other,
        other => match FdCall::by_door(other) {
            Some(call) => Door::Call(call.name),
            None => return Err(DecodeError::Value { field: "door", value: other.into() }),
        },
    })
}

/// A limit that the errno alone does not tell.
fn met(reason: u16) -> Option<Met> {
    match reason {
        refusal if refusal == Refusal::InotifyInstances as u16 => Some(Met::InotifyInstances),
        refusal if refusal == Refusal::PipePages as u16 => Some(Met::PipePages),
        refusal if refusal == Refusal::IoUringTable as u16 => Some(Met::IoUringTable),
        _ => None,
    }
}

fn reason_of(value: u16) -> Result<Failure, DecodeError> {
    Ok(match value {
        errno @ 1..=4095 => Failure::Errno(Errno(errno)),
        refusal if refusal == Refusal::InotifyInstances as u16 => Failure::Errno(Errno::EMFILE),
        refusal if refusal == Refusal::PipePages as u16 => Failure::Errno(Errno::ENFILE),
        refusal if refusal == Refusal::IoUringTable as u16 => Failure::Errno(Errno::ENFILE),
        refusal if refusal == Refusal::AcceptQueueFull as u16 => {
            Failure::AcceptQueueFull { syn_queue_full: false }
        }
        refusal if refusal == Refusal::BothQueuesFull as u16 => {
            Failure::AcceptQueueFull { syn_queue_full: true }
        }
        refusal if refusal == Refusal::SynQueueFull as u16 => Failure::SynQueueFull,
        refusal if refusal == Refusal::SynCookieSent as u16 => Failure::SynCookieSent,
        other => return Err(DecodeError::Value { field: "errno", value: other.into() }),
    })
}

fn target(fd_kind: u8, facts: &Facts) -> Result<Target, DecodeError> {
    Ok(match fd_kind {
        kind if kind == wire::FdKind::None as u8 => Target::None,
        kind if kind == wire::FdKind::Socket as u8 => Target::Listener(facts.listener()),
        kind if kind == wire::FdKind::NotSocket as u8 => Target::NotSocket,
        kind if kind == wire::FdKind::NotOpen as u8 => Target::NotOpen,
        kind if kind == wire::FdKind::Unread as u8 => Target::Unread,
        other => return Err(DecodeError::Value { field: "fd_kind", value: other.into() }),
    })
}

/// [`wire::ListenerFacts`], read field by field.
struct Facts {
    known: u32,
    address: [u8; 16],
    netns: u32,
    queue: AcceptQueue,
    family: u16,
    port: u16,
    path_len: u16,
    v6only: u8,
    path: [u8; wire::SUN_PATH_LEN],
}

impl Facts {
    fn read(bytes: &mut &[u8], known: u32) -> Self {
        let mut address = [0; 16];
        bytes.copy_to_slice(&mut address);
        let netns = bytes.get_u32_ne();
        let queue = AcceptQueue { length: bytes.get_u32_ne(), limit: bytes.get_u32_ne() };
        let family = bytes.get_u16_ne();
        let port = bytes.get_u16_ne();
        let _protocol = bytes.get_u16_ne();
        let path_len = bytes.get_u16_ne();
        let _state = bytes.get_u8();
        let v6only = bytes.get_u8();
        bytes.advance(2);
        let mut path = [0; wire::SUN_PATH_LEN];
        bytes.copy_to_slice(&mut path);
        Self { known, address, netns, queue, family, port, path_len, v6only, path }
    }

    fn has(&self, bit: u32) -> bool {
        self.known & bit != 0
    }

    fn queue(&self) -> Option<AcceptQueue> {
        self.has(valid::QUEUE).then_some(self.queue)
    }

    fn listener(&self) -> Listener {
        let address = match self.family {
            AF_INET if self.has(valid::ADDRESS) => {
                let [a, b, c, d, ..] = self.address;
                ListenerAddress::Inet {
                    ip: IpAddr::V4(Ipv4Addr::new(a, b, c, d)),
                    port: self.port,
                    dual_stack: Some(false),
                }
            }
            AF_INET6 if self.has(valid::ADDRESS) => ListenerAddress::Inet {
                ip: IpAddr::V6(Ipv6Addr::from(self.address)),
                port: self.port,
                dual_stack: self.has(valid::V6ONLY).then_some(self.v6only == 0),
            },
            AF_UNIX => ListenerAddress::Unix(self.unix_name()),
            family => ListenerAddress::Other(family),
        };
        Listener { netns: self.has(valid::NETNS).then_some(self.netns), address }
    }

    fn unix_name(&self) -> UnixName {
        if !self.has(valid::PATH) {
            return UnixName::Unknown;
        }
        let name = &self.path[..usize::from(self.path_len).min(wire::SUN_PATH_LEN)];
        match name {
            [] => UnixName::Unnamed,
            [0, rest @ ..] => UnixName::Abstract(rest.to_vec()),
            // A path ends at its NUL; a path of 108 bytes has none (unix(7)).
            path => {
                let end = path.iter().position(|byte| *byte == 0).unwrap_or(path.len());
                UnixName::Path(path[..end].to_vec())
            }
        }
    }
}

#[cfg(test)]
mod tests;
