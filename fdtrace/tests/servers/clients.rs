//! Clients that stay.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream},
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{
        AddressFamily, SockFlag, SockType, SockaddrIn, connect, getsockopt, socket,
        sockopt::SocketError,
    },
};

/// How long a server that can answer may take for it.
const PATIENCE: Duration = Duration::from_secs(2);

/// A pause between clients that are refused: without it, one may come while its server is still
/// busy with refusing the one before.
const PAUSE: Duration = Duration::from_millis(20);

/// What a client asks for, and how the answer ends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Question {
    ask: &'static str,
    answer_ends: &'static str,
}

/// Every web server here answers with `ok`.
pub(crate) const HTTP: Question =
    Question { ask: "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", answer_ends: "ok\n" };

/// As [`HTTP`], of a path that the server notes in its log.
pub(crate) const SETTLED: Question =
    Question { ask: "GET /settled HTTP/1.1\r\nHost: localhost\r\n\r\n", answer_ends: "ok\n" };

/// Of a file that the server has and cannot open.
pub(crate) const MISSING: Question =
    Question { ask: "GET /file HTTP/1.1\r\nHost: localhost\r\n\r\n", answer_ends: "</html>\r\n" };

/// Of a server that says what it is told.
pub(crate) const ECHO: Question = Question { ask: "ok\n", answer_ends: "ok\n" };

pub(crate) const REDIS: Question = Question { ask: "PING\r\n", answer_ends: "+PONG\r\n" };

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Served,
    /// Connected, and closed without a word.
    Closed,
    /// Connected, and nothing came.
    Waiting,
}

/// Connections to one server.
pub(crate) struct Clients {
    address: SocketAddr,
    question: Question,
    open: Vec<TcpStream>,
}

impl Clients {
    pub(crate) fn of(port: u16, question: Question) -> Self {
        Self { address: (Ipv4Addr::LOCALHOST, port).into(), question, open: Vec::new() }
    }

    /// Opens connections, each when the one before was served, until one is not. Says when that
    /// one was opened and what became of it; it stays open like the others.
    #[track_caller]
    pub(crate) fn open_until_refused(&mut self, at_most: usize) -> (Timestamp, Answer) {
        for _ in 0..at_most {
            let at = Timestamp::now();
            let answer = self.open_one();
            if answer != Answer::Served {
                return (at, answer);
            }
        }
        panic!("{at_most} clients were served, and none refused");
    }

    /// Opens as many, each when the one before was served or refused.
    #[track_caller]
    pub(crate) fn open_each(&mut self, count: usize) -> Vec<Answer> {
        let each = |_| {
            std::thread::sleep(PAUSE);
            self.open_one()
        };
        (0..count).map(each).collect()
    }

    /// Opens as many and waits for no answer.
    #[track_caller]
    pub(crate) fn open(&mut self, count: usize) {
        for _ in 0..count {
            let mut client = TcpStream::connect(self.address).expect("connect");
            client.write_all(self.question.ask.as_bytes()).expect("ask");
            self.open.push(client);
        }
    }

    #[track_caller]
    fn open_one(&mut self) -> Answer {
        let client = TcpStream::connect(self.address).expect("connect");
        let answer = ask(&client, self.question);
        self.open.push(client);
        answer
    }

    /// Asks again on the last connection.
    #[track_caller]
    pub(crate) fn ask_the_last(&self) -> Answer {
        ask(self.open.last().expect("a client"), self.question)
    }

    /// Asks something on one connection: that of the first client is 0.
    #[track_caller]
    pub(crate) fn ask_on(&self, client: usize, question: Question) -> Answer {
        ask(&self.open[client], question)
    }

    /// Waits until a connection that asked and was left waiting has its answer.
    #[track_caller]
    pub(crate) fn is_served(&self, client: usize) {
        assert_eq!(read_answer(&self.open[client], self.question), Answer::Served);
    }

    /// Waits until the last connections, which asked and were left waiting, have their answers.
    #[track_caller]
    pub(crate) fn last_are_served(&self, count: usize) {
        for client in &self.open[self.open.len() - count..] {
            assert_eq!(read_answer(client, self.question), Answer::Served);
        }
    }

    /// How many are open.
    pub(crate) fn count(&self) -> usize {
        self.open.len()
    }

    pub(crate) fn close(&mut self) {
        self.open.clear();
    }

    /// Lets everybody go and waits until a new client is served: the server accepts again. Says how
    /// many were refused before; nobody stays open.
    #[track_caller]
    pub(crate) fn close_until_served(&mut self) -> usize {
        let deadline = Instant::now() + Duration::from_secs(10);
        for refused in 0.. {
            self.close();
            std::thread::sleep(PAUSE);
            if self.open_one() == Answer::Served {
                self.close();
                return refused;
            }
            assert!(Instant::now() < deadline, "the server does not accept again");
        }
        unreachable!("a loop without an end")
    }
}

/// Connections somebody has begun, and does not wait for. They last as long as this.
pub(crate) struct Crowd(Vec<OwnedFd>);

impl Crowd {
    /// Begins so many at once. Who is refused tries again, as any client does.
    #[track_caller]
    pub(crate) fn knock(port: u16, count: u64) -> Self {
        Self::come(port, count, Duration::ZERO)
    }

    /// The same with a pause after each.
    #[track_caller]
    pub(crate) fn come(port: u16, count: u64, pause: Duration) -> Self {
        let server = SockaddrIn::from(SocketAddrV4::new(Ipv4Addr::LOCALHOST, port));
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let client = |_| {
            let client = socket(AddressFamily::Inet, SockType::Stream, flags, None).unwrap();
            match connect(client.as_raw_fd(), &server) {
                Ok(()) | Err(Errno::EINPROGRESS) => {}
                Err(error) => panic!("connect: {error}"),
            }
            std::thread::sleep(pause);
            client
        };
        Self((0..count).map(client).collect())
    }

    /// Waits until each is connected.
    #[track_caller]
    pub(crate) fn is_let_in(&self) {
        for client in &self.0 {
            let mut polled = [PollFd::new(client.as_fd(), PollFlags::POLLOUT)];
            let patience = PollTimeout::try_from(PATIENCE * 3).unwrap();
            assert_eq!(poll(&mut polled, patience), Ok(1), "a client is not let in");
            assert_eq!(getsockopt(client, SocketError), Ok(0));
        }
    }
}

fn ask(mut client: &TcpStream, question: Question) -> Answer {
    match client.write_all(question.ask.as_bytes()) {
        Ok(()) => read_answer(client, question),
        Err(error) => refused(&error),
    }
}

fn read_answer(mut client: &TcpStream, question: Question) -> Answer {
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(question.answer_ends.as_bytes()) {
        let mut part = [0; 1024];
        match client.read(&mut part) {
            Ok(0) => return Answer::Closed,
            Ok(length) => answer.extend(&part[..length]),
            Err(error) => return refused(&error),
        }
    }
    Answer::Served
}

#[track_caller]
fn refused(error: &std::io::Error) -> Answer {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => Answer::Waiting,
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => Answer::Closed,
        _ => panic!("a client: {error}"),
    }
}
