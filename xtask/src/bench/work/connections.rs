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
    sys::socket::{setsockopt, sockopt},
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
        let server = scope.spawn(|| {
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
