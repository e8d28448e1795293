//! System calls in a tight loop.

use std::{
    net::{TcpListener, TcpStream},
    os::fd::{AsRawFd as _, RawFd},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use nix::{
    errno::Errno,
    libc,
    sys::resource::{Resource, getrlimit, setrlimit},
    time::{ClockId, clock_gettime},
};

use super::{BATCH, Done, ready};

pub(super) fn getppid(time: Duration) -> Done {
    let start = Instant::now();
    let mut operations = 0;
    while start.elapsed() < time {
        for _ in 0..BATCH {
            nix::unistd::getppid();
        }
        operations += BATCH;
    }
    Done::new(operations, start.elapsed(), 1)
}

/// A client waits in the queue all the while, as it does when a server has run out.
pub(super) fn refused(time: Duration, threads: u32) -> Result<Done> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let _client = TcpStream::connect(listener.local_addr()?)?;
    let fd = listener.as_raw_fd();
    take_the_rest()?;
    ready()?;
    let start = Instant::now();
    let one = move || {
        let mut operations = 0;
        while start.elapsed() < time {
            for _ in 0..BATCH {
                fail(fd)?;
            }
            operations += BATCH;
        }
        Ok::<_, anyhow::Error>(operations)
    };
    // Threads need descriptors neither to start nor to end.
    let others: Vec<_> = (1..threads).map(|_| thread::spawn(one)).collect();
    let mut operations = one()?;
    for other in others {
        operations += other.join().ok().context("a thread panicked")??;
    }
    Ok(Done::new(operations, start.elapsed(), threads))
}

/// Each failure is the first of its listener, so each is reported.
pub(super) fn latency(time: Duration) -> Result<Done> {
    const PAUSE: Duration = Duration::from_millis(20);
    let failures = (time.as_millis() / PAUSE.as_millis()).max(1);
    let listeners = (0..failures).map(|_| TcpListener::bind("127.0.0.1:0"));
    let listeners = listeners.collect::<Result<Vec<_>, _>>()?;
    let addresses = listeners.iter().map(TcpListener::local_addr).collect::<Result<Vec<_>, _>>()?;
    let _clients = addresses.iter().map(TcpStream::connect).collect::<Result<Vec<_>, _>>()?;
    take_the_rest()?;
    ready()?;
    let start = Instant::now();
    let mut moments = Vec::with_capacity(listeners.len());
    for (listener, address) in listeners.iter().zip(addresses) {
        fail(listener.as_raw_fd())?;
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC)?;
        moments.push((address.port(), u64::try_from(Duration::from(now).as_nanos())?));
        thread::sleep(PAUSE);
    }
    let done = Done::new(u64::try_from(failures)?, start.elapsed(), 1);
    Ok(Done { moments, ..done })
}

/// Lowers our soft limit to what we have open, so that the next descriptor is refused.
fn take_the_rest() -> Result<()> {
    let next = nix::unistd::dup(std::io::stdin())?;
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, u64::try_from(next.as_raw_fd())?, hard)?;
    Ok(())
}

fn fail(listener: RawFd) -> Result<()> {
    // SAFETY: a null address is allowed, and then no length is read.
    let result = unsafe {
        libc::accept4(listener, std::ptr::null_mut(), std::ptr::null_mut(), libc::SOCK_CLOEXEC)
    };
    match Errno::result(result) {
        Err(Errno::EMFILE) => Ok(()),
        other => bail!("accept4 was to fail with EMFILE: {other:?}"),
    }
}
