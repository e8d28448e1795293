//! The JSON form of a process: who it is, and where it belongs.

use std::{borrow::Cow, path::Path};

use serde::Serialize;

use super::view::{date, text};
use crate::model::{self, Engine, WallClock};

#[derive(Clone, Serialize)]
pub(in crate::output) struct Process<'a> {
    pid: u32,
    comm: Cow<'a, str>,
    exe: Option<Cow<'a, str>>,
    cmdline: Option<Vec<Cow<'a, str>>>,
    start_time: String,
    unit: Option<&'a str>,
    container: Option<&'a str>,
    container_runtime: Option<&'static str>,
    pod: Option<Pod<'a>>,
    user_slice: Option<&'a str>,
    ns_pid: Option<u32>,
}

#[derive(Clone, Serialize)]
struct Pod<'a> {
    uid: &'a str,
    name: Option<&'a str>,
}

pub(in crate::output) fn process<'a>(
    process: &'a model::Process,
    clock: &WallClock,
) -> Process<'a> {
    let model::Process { id, comm, exe, cmdline, unit, user_slice, container, pod, ns_pid } =
        process;
    Process {
        pid: id.pid.0,
        comm: text(comm.as_bytes()),
        exe: exe.as_deref().map(Path::to_string_lossy),
        cmdline: cmdline.as_ref().map(|list| list.iter().map(|argument| text(argument)).collect()),
        start_time: date(id.started, clock),
        unit: unit.as_deref(),
        container: container.as_ref().map(|container| container.id.as_str()),
        container_runtime: container
            .as_ref()
            .and_then(|container| container.engine)
            .map(Engine::name),
        pod: pod.as_ref().map(|pod| Pod { uid: &pod.uid, name: pod.name.as_deref() }),
        user_slice: user_slice.as_deref(),
        ns_pid: ns_pid.map(|pid| pid.0),
    }
}
