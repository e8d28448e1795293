//! What the threads of a process do: two looks at `/proc/PID/task`, a moment apart, on a thread of
//! its own.

mod look;
mod parse;

use std::{
    collections::HashMap,
    io,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use self::look::{First, Second};
use super::{
    task_dir::TaskDir,
    worker::{self, Worker},
};
use crate::model::{Acceptor, Pid, ProcessId, Thread, ThreadState, Tid};

/// Long enough that a thread's share of a core is told to a few percent: the kernel adds up what a
/// running thread used every 1 to 10 ms (kernel/sched, CONFIG_HZ).
pub const WINDOW: Duration = Duration::from_millis(100);

/// Looks at the threads of a process now and once more after `window`: mostly [`WINDOW`].
///
/// `proc_root` is `/proc` but for tests and containers. The answer is an error where the process is
/// gone (`NotFound`) or nobody may look.
pub fn start(
    proc_root: PathBuf,
    process: ProcessId,
    window: Duration,
) -> io::Result<Worker<Acceptor>> {
    worker::spawn("fdtrace-threads", move |is_cancelled| {
        let dir = TaskDir::open(&proc_root, process)?;
        let tids = look::threads(&dir)?;
        let (thread_count, before, began) =
            (tids.count, look::first(&dir, &tids.kept), Instant::now());
        thread::sleep(window);
        if is_cancelled() {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let window = began.elapsed();
        let after = look::second(&dir, &tids.kept);
        Ok(acceptor(process.pid, window, thread_count, &before, after, look::tracer(&dir)))
    })
}

fn acceptor(
    pid: Pid,
    window: Duration,
    thread_count: u64,
    before: &HashMap<Tid, First>,
    after: Vec<Second>,
    tracer: io::Result<Option<Pid>>,
) -> Acceptor {
    let mut unknown = Vec::new();
    let mut threads: Vec<Thread> = Vec::new();
    for Second { tid, stat, times, wchan, syscall } in after {
        let first = before.get(&tid);
        let share = |of: fn(parse::Times) -> Duration| {
            let grown = of(times?).checked_sub(of(first?.times?))?;
            Some((grown.as_secs_f64() / window.as_secs_f64()).min(1.0))
        };
        let state = ThreadState::from_letter(stat.state);
        threads.push(Thread {
            tid,
            comm: stat.comm,
            state,
            is_steady: first.is_some_and(|first| ThreadState::from_letter(first.state) == state),
            cpu: share(|times| times.ran),
            starved: times
                .and_then(|times| times.waited)
                .and_then(|_| share(|times| times.waited.unwrap_or_default())),
            wchan,
            syscall,
        });
    }
    threads.sort_by(|a, b| {
        let cpu = |thread: &Thread| thread.cpu.unwrap_or(-1.0);
        cpu(b).total_cmp(&cpu(a)).then(a.tid.cmp(&b.tid))
    });
    if u64::try_from(threads.len()).is_ok_and(|seen| seen < thread_count) {
        let seen = threads.len();
        unknown.push(format!("what {} of {thread_count} threads do", thread_count - seen as u64));
    }
    if threads.iter().all(|thread| thread.cpu.is_none()) {
        unknown.push("how much of a core the threads use".to_owned());
    }
    let tracer = tracer.unwrap_or_else(|error| {
        unknown.push(format!("whether somebody traces it: {error}"));
        None
    });
    Acceptor { pid, window, thread_count, threads, tracer, unknown }
}
