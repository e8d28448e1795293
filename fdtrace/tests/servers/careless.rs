//! A server that does one thing wrong, as it is told in `SERVER`: `PORT,BACKLOG,WHAT`.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    net::{SocketAddrV4, TcpListener, TcpStream},
    os::fd::AsRawFd as _,
    thread,
    time::{Duration, Instant},
};

use nix::{
    libc,
    sys::socket::{
        AddressFamily, Backlog, SockFlag, SockType, SockaddrIn, bind, listen, setsockopt, socket,
        sockopt,
    },
    unistd::alarm,
};

/// How long who is late does something else.
const LATE: Duration = Duration::from_millis(700);
/// Seconds. Whatever happens to the test, this must not stay.
const LIFE: u32 = 120;

pub(crate) fn run(spec: &str) {
    let mut words = spec.split(',');
    let port = words.next().unwrap().parse().unwrap();
    let backlog = words.next().unwrap().parse().unwrap();
    let listener = listen_at(port, backlog);
    alarm::set(LIFE);
    match words.next().unwrap() {
        "late" => late(&listener, || thread::sleep(LATE)),
        "busy" => {
            come_first(1);
            late(&listener, compute);
        }
        // The same work, on a thread of its own.
        "aside" => {
            come_first(1);
            thread::spawn(|| {
                loop {
                    compute();
                }
            });
            come_first(2);
            listener.incoming().flatten().for_each(|client| answer(&client));
        }
        "forgets" => keep(&listener, |client| client),
        "files" => keep(&listener, |client| {
            // First: at the limit, it is accept that fails.
            drop(client);
            File::open("/proc/self/exe")
        }),
        what => panic!("{what}?"),
    }
}

fn listen_at(port: u16, backlog: i32) -> TcpListener {
    let flags = SockFlag::SOCK_CLOEXEC;
    let listener = socket(AddressFamily::Inet, SockType::Stream, flags, None).unwrap();
    setsockopt(&listener, sockopt::ReuseAddr, &true).unwrap();
    let address = SockaddrIn::from(SocketAddrV4::new(std::net::Ipv4Addr::LOCALHOST, port));
    bind(listener.as_raw_fd(), &address).unwrap();
    listen(&listener, Backlog::new(backlog).unwrap()).unwrap();
    listener.into()
}

/// So that this thread has its core also where others want it, in whatever session; where it may not,
/// it shares.
fn come_first(priority: i32) {
    let priority = libc::sched_param { sched_priority: priority };
    // SAFETY: the kernel copies a value that lives here.
    unsafe { libc::sched_setscheduler(0, libc::SCHED_RR, &raw const priority) };
}

fn compute() {
    let start = Instant::now();
    while start.elapsed() < LATE {
        std::hint::spin_loop();
    }
}

/// Does something else, and then takes everybody who waits.
fn late(listener: &TcpListener, something_else: impl Fn()) {
    listener.set_nonblocking(true).unwrap();
    loop {
        something_else();
        while let Ok((client, _)) = listener.accept() {
            answer(&client);
        }
    }
}

/// Answers everybody, waits until they have gone, and keeps something of each.
fn keep<T>(listener: &TcpListener, of: impl Fn(TcpStream) -> T) {
    let mut kept = Vec::new();
    loop {
        match listener.accept() {
            Ok((client, _)) => {
                answer(&client);
                let mut rest = Vec::new();
                let _ = (&client).read_to_end(&mut rest);
                kept.push(of(client));
            }
            Err(error) => {
                println!("failed: {error}");
                thread::sleep(Duration::from_millis(20));
            }
        }
    }
}

fn answer(mut client: &TcpStream) {
    let _ = client.write_all(b"ok\n");
}
