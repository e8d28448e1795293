//! A server that keeps every client that stays, tries again 20 ms after a failure, and counts its
//! failures in a file; and one that watches files instead.

use std::{
    fs::{self, File},
    io::{ErrorKind, Read as _, Write as _},
    net::{Ipv4Addr, TcpListener, TcpStream},
    os::unix::fs::FileExt as _,
    thread,
    time::Duration,
};

use nix::{
    errno::Errno,
    libc,
    sys::resource::{Resource, getrlimit},
};

/// Between two attempts after a failure.
const PAUSE: Duration = Duration::from_millis(20);

/// Where a process counts its failures.
fn count_file(pid: u32) -> String {
    format!("/tmp/failures-{pid}")
}

/// How often a process has failed: as long as it runs, it may go on.
#[track_caller]
pub(crate) fn failures(pid: u32) -> u64 {
    let path = count_file(pid);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    text.trim().parse().unwrap()
}

/// `inotify`, or the port to listen on, and after a comma how many descriptors to hold besides.
pub(crate) fn run(spec: &str) {
    let own = std::process::id();
    let mut failures = Failures { file: File::create(count_file(own)).unwrap(), count: 0 };
    failures.write();
    if spec == "inotify" {
        watch(&mut failures);
    }
    let (port, held) = spec.split_once(',').unwrap_or((spec, "0"));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port.parse().unwrap())).unwrap();
    let held = 0..held.parse::<u32>().unwrap();
    let _held: Vec<_> = held.map(|_| File::open("/dev/null").unwrap()).collect();
    // So that a test can read in the log what it was given.
    println!("{:?}", getrlimit(Resource::RLIMIT_NOFILE).unwrap());
    let mut clients = Vec::new();
    loop {
        match listener.accept() {
            Ok((mut client, _)) => {
                let _ = client.write_all(b"ok\n");
                client.set_nonblocking(true).unwrap();
                clients.push(client);
            }
            Err(error) => {
                let errno = error.raw_os_error();
                assert!(matches!(errno, Some(libc::EMFILE | libc::ENFILE)), "{error}");
                failures.add();
                thread::sleep(PAUSE);
                clients.retain(is_there);
            }
        }
    }
}

fn is_there(mut client: &TcpStream) -> bool {
    let mut byte = [0];
    matches!(client.read(&mut byte), Err(error) if error.kind() == ErrorKind::WouldBlock)
}

/// Takes instances of inotify until there is none left, and goes on asking for one.
fn watch(failures: &mut Failures) -> ! {
    loop {
        // SAFETY: a number only. What is returned is kept until the end.
        let instance = unsafe { libc::inotify_init1(libc::IN_CLOEXEC) };
        if instance < 0 {
            assert_eq!(Errno::last(), Errno::EMFILE);
            failures.add();
            thread::sleep(PAUSE);
        } else if failures.count > 0 {
            // What was asked for in vain is there.
            loop {
                thread::park();
            }
        }
    }
}

struct Failures {
    file: File,
    count: u64,
}

impl Failures {
    fn add(&mut self) {
        self.count += 1;
        self.write();
    }

    fn write(&self) {
        self.file.write_all_at(format!("{:8}\n", self.count).as_bytes(), 0).unwrap();
    }
}
