//! Connections that work: what a healthy server does.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};
use nix::{
    libc,
    sched::{CpuSet, sched_setaffinity},
    sys::socket::{setsockopt, sockopt},
    unistd::Pid,
};

use super::{Done, ready, repeat};

pub(super) fn one_thread(time: Duration) -> Result<Done> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    ready()?;
    repeat(time, || {
        for _ in 0..16 {
            let client = connect(address)?;
            drop(listener.accept()?);
            drop(client);
        }
        Ok(16)
    })
}

pub(super) fn two_threads(time: Duration) -> Result<Done> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let is_over = AtomicBool::new(false);
    ready()?;
    thread::scope(|scope| {
        // Whether the scheduler has them share a CPU makes more difference than anything measured.
        stay_on(0)?;
        let server = scope.spawn(|| {
            let _ = stay_on(1);
            while !is_over.load(Ordering::Relaxed) {
                let _ = listener.accept();
            }
        });
        let done = repeat(time, || {
            for _ in 0..16 {
                // The server closes what it accepted. Without waiting for it we would fill its
                // queue, and measure retransmission.
                let mut client = connect(address)?;
                client.read_exact(&mut [0]).err().context("the server says nothing")?;
            }
            Ok(16)
        });
        is_over.store(true, Ordering::Relaxed);
        // It may wait for one more.
        let _last = connect(address);
        server.join().ok().context("the server panicked")?;
        done
    })
}

/// Keeps this thread on a CPU, where there is one of that number.
fn stay_on(cpu: usize) -> Result<()> {
    let mut cpus = CpuSet::new();
    if cpu < thread::available_parallelism()?.get() {
        cpus.set(cpu)?;
        sched_setaffinity(Pid::from_raw(0), &cpus)?;
    }
    Ok(())
}

/// By one thread, so that no scheduler's choice is measured.
pub(super) fn traffic(time: Duration) -> Result<Done> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut client = TcpStream::connect(listener.local_addr()?)?;
    let (mut server, _) = listener.accept()?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let mut byte = [0; 1];
    ready()?;
    repeat(time, || {
        for _ in 0..64 {
            client.write_all(&byte)?;
            server.read_exact(&mut byte)?;
            server.write_all(&byte)?;
            client.read_exact(&mut byte)?;
        }
        Ok(64)
    })
}

/// A connection that is reset when it is closed: TIME_WAIT would use up the ports within seconds.
fn connect(to: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect(to)?;
    setsockopt(&stream, sockopt::Linger, &libc::linger { l_onoff: 1, l_linger: 0 })?;
    Ok(stream)
}
