//! Fact: a process made a socket listen, with which backlog.
//!
//! It says who owns the listener and what the application asked for: the kernel keeps neither
//! (net/socket.c __sys_listen, v6.18, cuts the backlog at somaxconn).

use aya_ebpf::{macros::tracepoint, programs::TracePointContext};
use fdtrace_common::{Door, FdKind, RECORD_LISTEN};

use super::call::{Call, sys_exit_ret};
use crate::{count, listener::ListenerFile, task::Task};

#[tracepoint]
fn listen_exit_tp(ctx: TracePointContext) -> u32 {
    if sys_exit_ret(&ctx) != 0 {
        return 0;
    }
    let task = Task::current();
    let file = ListenerFile::of_first_argument(task);
    if file.kind as u8 == FdKind::Socket as u8 {
        #[expect(clippy::cast_possible_truncation, reason = "the argument is an int")]
        let requested_backlog = task.second_argument() as u32;
        let call = Call { task, file, requested_backlog };
        count::emit(&call.key(Door::Listen, 0), 0, RECORD_LISTEN, call);
    }
    0
}
