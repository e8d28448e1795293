//! Serving metrics and health, on a thread of its own: it answers also when the trace is stuck.
//!
//! Nothing wakes it while nobody asks. Everybody on this host may connect, so what one of them can
//! take is bounded: connections, bytes of a request, time.

use std::{
    fs,
    future::Future,
    io,
    net::{self, SocketAddr},
    os::unix::{
        fs::{FileTypeExt as _, PermissionsExt as _},
        net as unix,
    },
    path::Path,
    sync::Arc,
    thread,
    time::Duration,
};

use anyhow::{Context as _, anyhow};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, UnixListener},
    sync::{Mutex, Semaphore, mpsc::Sender, oneshot},
    time::{Instant, timeout},
};

use super::{
    health::Health,
    request::{Answer, Asked, Refusal, Request, parse},
};
use crate::{
    cli::MetricsConfig,
    output::{METRICS_TYPE, metrics_text},
    pipeline::Ask,
};

/// Connections at once, of each socket.
const MOST_CONNECTIONS: usize = 16;
/// The most of a request.
const MOST_REQUEST: usize = 8 << 10;
/// So long a connection lasts at most.
const PATIENCE: Duration = Duration::from_secs(5);
/// And so long the trace has for a snapshot.
const ANSWER: Duration = Duration::from_secs(3);

/// A text is good for so long: everybody on this host may ask, as often as they like.
const FRESH: Duration = Duration::from_millis(100);

/// Sockets that listen; nobody accepts yet.
pub(super) struct Sockets {
    tcp: Option<net::TcpListener>,
    unix: Option<unix::UnixListener>,
}

/// What an answer is made of.
#[derive(Clone)]
pub(super) struct Sources {
    health: Health,
    asks: Sender<Ask>,
    most_series: usize,
    last: Arc<Mutex<Option<(Instant, String)>>>,
}

impl Sources {
    pub(super) fn new(health: Health, asks: Sender<Ask>, most_series: usize) -> Self {
        Self { health, asks, most_series, last: Arc::default() }
    }
}

impl Sockets {
    /// Binds what the configuration asks for.
    pub(super) fn bind(config: &MetricsConfig) -> anyhow::Result<Self> {
        let tcp = config.listen.map(bind_tcp).transpose()?;
        let unix = config.socket.as_deref().map(bind_unix).transpose()?;
        Ok(Self { tcp, unix })
    }

    /// Starts to answer.
    pub(super) fn serve(self, sources: Sources) -> io::Result<()> {
        if self.tcp.is_none() && self.unix.is_none() {
            return Ok(());
        }
        // All that takes descriptors is here, where a failure ends the start.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let inside = runtime.enter();
        let tcp = self.tcp.map(TcpListener::from_std).transpose()?;
        let unix = self.unix.map(UnixListener::from_std).transpose()?;
        drop(inside);
        let run = move || runtime.block_on(run(tcp, unix, sources));
        thread::Builder::new().name("fdtrace-metrics".to_owned()).spawn(run).map(|_| ())
    }
}

/// Answers on both, for ever.
async fn run(tcp: Option<TcpListener>, unix: Option<UnixListener>, sources: Sources) {
    let on_tcp = async {
        if let Some(tcp) = &tcp {
            let accept = async || tcp.accept().await.map(|(stream, _)| stream);
            serve(accept, &sources).await;
        }
    };
    let on_unix = async {
        if let Some(unix) = &unix {
            let accept = async || unix.accept().await.map(|(stream, _)| stream);
            serve(accept, &sources).await;
        }
    };
    tokio::join!(on_tcp, on_unix);
}

fn bind_tcp(address: SocketAddr) -> anyhow::Result<net::TcpListener> {
    let bound = net::TcpListener::bind(address).and_then(|listener| {
        listener.set_nonblocking(true)?;
        Ok(listener)
    });
    bound.with_context(|| {
        format!(
            "metrics.listen: cannot listen on {address}; write another address, or \"\" for off"
        )
    })
}

fn bind_unix(path: &Path) -> anyhow::Result<unix::UnixListener> {
    let bind = || {
        let listener = unix::UnixListener::bind(path)?;
        // Names of processes and listeners are not for everybody.
        fs::set_permissions(path, fs::Permissions::from_mode(0o660))?;
        listener.set_nonblocking(true)?;
        io::Result::Ok(listener)
    };
    let result = match bind() {
        // Another kind of file is somebody's.
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_socket(path) => {
            // Left behind by one that is gone; or is somebody there?
            match unix::UnixStream::connect(path) {
                Ok(_) => Err(error),
                Err(_) => fs::remove_file(path).and_then(|()| bind()),
            }
        }
        result => result,
    };
    result.with_context(|| format!("metrics.socket: cannot listen on {}", path.display()))
}

fn is_socket(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket())
}

/// Accepts for ever.
async fn serve<S, A>(accept: impl Fn() -> A, sources: &Sources)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    A: Future<Output = io::Result<S>>,
{
    let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    let mut is_failing = false;
    loop {
        // It is never closed.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match accept().await {
            Ok(stream) => {
                is_failing = false;
                let sources = sources.clone();
                tokio::spawn(async move {
                    // Whoever is slow, or has gone, gets nothing.
                    let _ = timeout(PATIENCE, talk(stream, &sources)).await;
                    drop(place);
                });
            }
            Err(error) => {
                if !is_failing {
                    log::warn!("metrics: cannot accept a connection: {error}");
                }
                is_failing = true;
                // Out of descriptors, it would be the same at once: not the spinning that fdtrace
                // tells of others.
                sources.health.next_tick().await;
            }
        }
    }
}

async fn talk(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    sources: &Sources,
) -> io::Result<()> {
    let request = match read_head(&mut stream).await? {
        Some(head) => parse(&head),
        None => Err(Refusal::TooLarge),
    };
    let answer = match request {
        Ok(Request { asked: Asked::Metrics, .. }) => metrics(sources).await,
        Ok(Request { asked: Asked::Health, .. }) => Answer::health(&sources.health.problems()),
        Err(refusal) => Answer::refusal(refusal),
    };
    let is_head = request.is_ok_and(|request| request.is_head);
    stream.write_all(&answer.to_bytes(is_head)).await?;
    stream.shutdown().await?;
    // What is closed with bytes unread is reset, and then the answer may not arrive.
    let mut rest = stream.take(64 << 10);
    tokio::io::copy(&mut rest, &mut tokio::io::sink()).await?;
    Ok(())
}

/// Reads up to the empty line; `None` where that does not come in time.
async fn read_head(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Vec<u8>>> {
    let mut head = Vec::with_capacity(1024);
    while !is_whole(&head) {
        if head.len() >= MOST_REQUEST {
            return Ok(None);
        }
        let room = (MOST_REQUEST - head.len()) as u64;
        if (&mut *stream).take(room).read_buf(&mut head).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(Some(head))
}

fn is_whole(head: &[u8]) -> bool {
    head.windows(4).any(|end| end == b"\r\n\r\n") || head.windows(2).any(|end| end == b"\n\n")
}

async fn metrics(sources: &Sources) -> Answer {
    let answer = timeout(ANSWER, snapshot(sources)).await;
    let text = answer.unwrap_or_else(|_| Err(anyhow!("the trace is stuck")));
    match text {
        Ok(text) => Answer::metrics(METRICS_TYPE, text),
        Err(error) => Answer::unavailable(format!("{error:#}\n")),
    }
}

async fn snapshot(sources: &Sources) -> anyhow::Result<String> {
    let mut last = sources.last.lock().await;
    if let Some((at, text)) = &*last
        && at.elapsed() < FRESH
    {
        return Ok(text.clone());
    }
    let (sender, answer) = oneshot::channel();
    let is_over = || "the trace is over";
    sources.asks.send(Ask::Snapshot(sender)).await.with_context(is_over)?;
    let mut snapshot = answer.await.with_context(is_over)?;
    snapshot.lost.extend(sources.health.lost());
    let text = metrics_text(*snapshot, sources.most_series)?;
    *last = Some((Instant::now(), text.clone()));
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::{
        cell::Cell,
        io::{Read as _, Write as _},
        net::TcpStream,
    };

    use tokio::sync::mpsc;

    use super::*;

    fn sources() -> (Sources, mpsc::Receiver<Ask>) {
        let (asks, asked) = mpsc::channel(1);
        (Sources::new(Health::new(), asks, 10), asked)
    }

    fn served() -> (SocketAddr, mpsc::Receiver<Ask>) {
        let config = MetricsConfig {
            listen: Some("127.0.0.1:0".parse().unwrap()),
            socket: None,
            max_series: 10,
        };
        let sockets = Sockets::bind(&config).unwrap();
        let address = sockets.tcp.as_ref().unwrap().local_addr().unwrap();
        let (sources, asked) = sources();
        sockets.serve(sources).unwrap();
        (address, asked)
    }

    fn ask(address: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    #[test]
    fn answers() {
        let (address, asked) = served();
        let ok = ask(address, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n");
        assert!(ok.ends_with("\r\n\r\nok\n"), "{ok}");
        let post = ask(address, "POST /metrics HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc");
        assert!(post.starts_with("HTTP/1.1 405 "), "{post}");
        let long = format!("GET /metrics HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(MOST_REQUEST));
        let long = ask(address, &long);
        assert!(long.starts_with("HTTP/1.1 431 "), "{long}");
        // Nobody answers any more.
        drop(asked);
        let over = ask(address, "GET /metrics HTTP/1.1\r\n\r\n");
        assert!(over.starts_with("HTTP/1.1 503 ") && over.contains("is over"), "{over}");
    }

    #[test]
    fn the_silent_keep_nobody_else_waiting_for_long() {
        let (address, _asked) = served();
        let silent: Vec<_> =
            (0..MOST_CONNECTIONS).map(|_| TcpStream::connect(address).unwrap()).collect();
        let start = std::time::Instant::now();
        let answer = ask(address, "GET /healthz HTTP/1.1\r\n\r\n");
        assert!(answer.starts_with("HTTP/1.1 "), "{answer}");
        assert!(start.elapsed() < PATIENCE * 2);
        drop(silent);
    }

    #[test]
    fn a_taken_address_is_said() {
        let taken = net::TcpListener::bind("127.0.0.1:0").unwrap();
        let error = bind_tcp(taken.local_addr().unwrap()).unwrap_err();
        assert!(format!("{error:#}").contains("metrics.listen: cannot listen on 127.0.0.1:"));
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sock");
        let first = bind_unix(&path).unwrap();
        assert!(bind_unix(&path).is_err());
        // What is left behind is no obstacle.
        drop(first);
        bind_unix(&path).unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "mine").unwrap();
        assert!(bind_unix(&file).is_err());
        assert_eq!(fs::read_to_string(&file).unwrap(), "mine");
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o660);
    }

    /// Out of descriptors: once a tick, and no more.
    #[tokio::test(flavor = "current_thread")]
    async fn a_failing_accept_rests() {
        let (sources, _asked) = sources();
        let tries = Cell::new(0);
        let accept = || {
            tries.set(tries.get() + 1);
            std::future::ready(Err::<tokio::io::DuplexStream, _>(io::Error::from_raw_os_error(
                libc::EMFILE,
            )))
        };
        let serving = serve(accept, &sources);
        let ticking = async {
            for _ in 0..3 {
                tokio::time::sleep(Duration::from_millis(20)).await;
                sources.health.tick(&[], Vec::new());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        tokio::select! { () = serving => {}, () = ticking => {} }
        assert_eq!(tries.get(), 4);
    }
}
