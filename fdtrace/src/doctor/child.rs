//! The child of the self-test: it fails on purpose, and counts how often.
//!
//! It says `ready …`, waits for a line, fails, says `done …`, and stays until its stdin ends. It
//! never lives longer than its parent, nor than [`MOST_SECONDS`].

use std::{
    fs::File,
    io::{self, BufRead as _, Write as _},
    mem,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    os::fd::{AsFd, AsRawFd as _, OwnedFd},
    thread,
    time::Duration,
};

use anyhow::{Context as _, anyhow, ensure};
use rustix::{
    fs::{CWD, Mode, OFlags, openat},
    io::Errno,
    net::{
        AddressFamily, SocketFlags, SocketType, accept, accept_with, bind, connect, getsockname,
        listen, socket_with, socketpair,
    },
    process::{Resource, Rlimit, Signal, getrlimit, set_parent_process_death_signal, setrlimit},
    thread::{UnshareFlags, set_name, unshare_unsafe},
};

/// Then it is killed by SIGALRM.
const MOST_SECONDS: u32 = 2;

/// How often each call is refused: enough that the cost of a run means something, and few enough
/// that nobody who watches the host is alarmed.
const ACCEPTS: u64 = 101;
const OTHERS: u64 = 53;
/// How many clients are refused.
const CLIENTS: usize = 7;

/// Does all that; what goes wrong is told to the parent, who reports it.
pub fn misbehave() -> anyhow::Result<()> {
    // SAFETY: a number only. The default action of SIGALRM ends this process.
    unsafe { libc::alarm(MOST_SECONDS) };
    if let Err(error) = run() {
        say(&format!("failed {error:#}"))?;
    }
    Ok(())
}

fn run() -> anyhow::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL)).context("die with the parent")?;
    // For whoever else watches the host.
    set_name(c"fdtrace-doctor").context("take a name")?;
    let namespace = match own_namespace() {
        Ok(()) => "own".to_owned(),
        Err(error) => format!("host {error}"),
    };
    let (idle, _) = listener(CLIENTS).context("listen")?;
    // Two clients fit in a queue with limit 1: it is full when it is longer than that.
    let (full, address) = listener(1).context("listen")?;
    let waiting = [client(&address, false)?.0, client(&address, false)?.0];
    wait_for_queue(&full, waiting.len())?;
    say(&format!("ready {} {} {namespace}", inode(&idle)?, inode(&full)?))?;
    io::stdin().lock().read_line(&mut String::new())?;

    let syn = refused_clients(&address)?;
    let _raised_again = Exhausted::new()?;
    let emfile = |calls: u64, name: &str, call: &dyn Fn() -> Result<(), Errno>| {
        for _ in 0..calls {
            let result = call();
            ensure!(result == Err(Errno::MFILE), "{name} without a descriptor: {result:?}");
        }
        Ok(format!("{name}={calls}"))
    };
    let flags = SocketFlags::CLOEXEC;
    let (family, kind) = (AddressFamily::UNIX, SocketType::STREAM);
    let calls = [
        emfile(ACCEPTS, "accept", &|| accept(&idle).map(drop))?,
        emfile(ACCEPTS, "accept4", &|| accept_with(&idle, flags).map(drop))?,
        emfile(OTHERS, "socket", &|| socket_with(family, kind, flags, None).map(drop))?,
        emfile(OTHERS, "socketpair", &|| socketpair(family, kind, flags, None).map(drop))?,
        emfile(OTHERS, "openat", &|| {
            openat(CWD, "/dev/null", OFlags::CLOEXEC, Mode::empty()).map(drop)
        })?,
    ];
    say(&format!("done {} syn={syn}", calls.join(" ")))?;
    io::stdin().lock().read_line(&mut String::new())?;
    Ok(())
}

fn say(line: &str) -> io::Result<()> {
    let mut stdout = io::stdout();
    stdout.write_all(format!("{line}\n").as_bytes())?;
    stdout.flush()
}

/// A network namespace of our own, with loopback up: the host's counters stay as they are.
fn own_namespace() -> io::Result<()> {
    // SAFETY: no thread of this process, which has one, keeps anything of the old namespace.
    unsafe { unshare_unsafe(UnshareFlags::NEWNET)? };
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    // SAFETY: zeros are a valid `ifreq`: it is numbers and bytes.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = libc::c_char::from_ne_bytes([*from]);
    }
    request.ifr_ifru.ifru_flags = libc::c_short::try_from(libc::IFF_UP).unwrap_or_default();
    // SAFETY: the kernel reads one `ifreq`, which lives here.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A listener on loopback that does not block.
fn listener(backlog: usize) -> anyhow::Result<(OwnedFd, SocketAddr)> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
    bind(&socket, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0))?;
    listen(&socket, i32::try_from(backlog)?)?;
    let address = SocketAddr::try_from(getsockname(&socket)?)?;
    Ok((socket, address))
}

/// Connects; whether it is connected already is told, where it does not wait for that.
fn client(address: &SocketAddr, at_once: bool) -> anyhow::Result<(OwnedFd, bool)> {
    let more = if at_once { SocketFlags::NONBLOCK } else { SocketFlags::empty() };
    let flags = SocketFlags::CLOEXEC | more;
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
    match connect(&socket, address) {
        Ok(()) => Ok((socket, true)),
        Err(Errno::INPROGRESS) => Ok((socket, false)),
        Err(error) => Err(anyhow!(error).context("connect to a listener of its own")),
    }
}

/// Waits until so many connections wait for accept.
fn wait_for_queue(listener: &OwnedFd, length: usize) -> anyhow::Result<()> {
    for _ in 0..200 {
        // net/ipv4/tcp.c tcp_get_info: of a listener, it is the length of its accept queue.
        if tcp_info(listener)?.tcpi_unacked as usize == length {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(1));
    }
    Err(anyhow!("clients of loopback are not connected"))
}

/// Clients whose SYNs are refused. Returns how many SYNs were: each is sent again after a second.
fn refused_clients(address: &SocketAddr) -> anyhow::Result<u64> {
    let clients: Vec<_> = (0..CLIENTS).map(|_| client(address, true)).collect::<Result<_, _>>()?;
    let mut sent = 0;
    for (client, is_connected) in clients {
        ensure!(!is_connected, "a client was taken by a full accept queue");
        sent += 1 + u64::from(tcp_info(&client)?.tcpi_total_retrans);
    }
    Ok(sent)
}

fn tcp_info(socket: &OwnedFd) -> io::Result<libc::tcp_info> {
    // SAFETY: zeros are a valid `tcp_info`: it is numbers.
    let mut info: libc::tcp_info = unsafe { mem::zeroed() };
    let mut size = libc::socklen_t::try_from(size_of_val(&info)).unwrap_or_default();
    let (fd, pointer) = (socket.as_raw_fd(), (&raw mut info).cast());
    // SAFETY: the kernel writes at most `size` bytes there.
    let result =
        unsafe { libc::getsockopt(fd, libc::IPPROTO_TCP, libc::TCP_INFO, pointer, &raw mut size) };
    if result == 0 { Ok(info) } else { Err(io::Error::last_os_error()) }
}

fn inode(socket: impl AsFd) -> io::Result<u64> {
    Ok(rustix::fs::fstat(socket)?.st_ino)
}

/// While it lives, every descriptor below the soft limit is taken.
struct Exhausted(Rlimit);

impl Exhausted {
    fn new() -> anyhow::Result<Self> {
        let before = getrlimit(Resource::Nofile);
        // The lowest that is free is given out next: all below are taken.
        let lowest = File::open("/dev/null").context("open /dev/null")?.as_raw_fd();
        let current = Some(u64::try_from(lowest)?);
        setrlimit(Resource::Nofile, Rlimit { current, ..before })
            .context("lower its own limit of descriptors")?;
        Ok(Self(before))
    }
}

impl Drop for Exhausted {
    fn drop(&mut self) {
        let _ = setrlimit(Resource::Nofile, self.0);
    }
}
