//! What the link of a descriptor says, by the names that the kernel gives.

use rustix::fs::FileType;

use crate::model::FdKind;

/// What a link in `/proc/PID/fd` leads to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Link {
    /// A socket, by its inode.
    Socket(u64),
    /// Something that the link's text is all about.
    Kind(FdKind),
    /// A path: what it leads to, the text does not say.
    Path,
}

/// Reads the text of a link.
pub(super) fn link(text: &[u8]) -> Link {
    if text.starts_with(b"/") {
        // mm/memfd.c and mm/shmem.c (v6.18): it is never a name in a directory.
        let is_memfd = text.starts_with(b"/memfd:") && text.ends_with(DELETED);
        return if is_memfd { Link::Kind(FdKind::Memfd) } else { Link::Path };
    }
    let Some((class, rest)) = split(text) else {
        // `(unreachable)/path`: of a mount that is not in the process's root.
        return Link::Path;
    };
    let kind = match class {
        "socket" => match number(rest) {
            Some(inode) => return Link::Socket(inode),
            None => FdKind::SocketUnread,
        },
        "pipe" => FdKind::Pipe,
        "anon_inode" => FdKind::of_anonymous(rest),
        // Since v6.9 a pidfd has an inode of its own (fs/pidfs.c).
        "pidfd" => FdKind::PidFd,
        "cgroup" | "ipc" | "mnt" | "net" | "pid" | "time" | "user" | "uts" => FdKind::Namespace,
        other => FdKind::Other(other.to_owned()),
    };
    Link::Kind(kind)
}

/// What the kernel adds to the path of a file without a name (fs/d_path.c).
pub(super) const DELETED: &[u8] = b" (deleted)";

fn split(text: &[u8]) -> Option<(&str, &str)> {
    str::from_utf8(text).ok()?.split_once(':')
}

fn number(text: &str) -> Option<u64> {
    text.strip_prefix('[')?.strip_suffix(']')?.parse().ok()
}

/// What a path leads to.
pub(super) fn path(kind: FileType, links: u32) -> FdKind {
    match kind {
        FileType::RegularFile if links == 0 => FdKind::DeletedFile,
        FileType::RegularFile => FdKind::File,
        FileType::Directory => FdKind::Directory,
        FileType::CharacterDevice | FileType::BlockDevice => FdKind::Device,
        FileType::Fifo => FdKind::Fifo,
        _ => FdKind::PathUnread,
    }
}

/// The protocol of a socket, by the name of its `struct proto`, which is the name of the file that
/// it is (net/socket.c sock_alloc_file and sockfs_xattr_get, v6.18).
pub(super) fn protocol(name: &str) -> FdKind {
    match name {
        // One of MPTCP is no less a TCP connection to an operator.
        "TCP" | "TCPv6" | "MPTCP" | "MPTCPv6" => FdKind::TcpUnlisted,
        "UDP" | "UDPv6" | "UDP-Lite" | "UDPLITEv6" => FdKind::Udp,
        // Streams have a struct of their own since v5.15.
        "UNIX" | "UNIX-STREAM" => FdKind::Unix,
        "NETLINK" => FdKind::Netlink,
        "PACKET" => FdKind::Packet,
        "RAW" | "RAWv6" | "PING" | "PINGv6" => FdKind::Raw,
        "" => FdKind::SocketUnread,
        other => FdKind::OtherSocket(other.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links() {
        let other = |name: &str| Link::Kind(FdKind::Other(name.to_owned()));
        let cases: &[(&[u8], Link)] = &[
            (b"socket:[54321]", Link::Socket(54321)),
            (b"socket:[18446744073709551615]", Link::Socket(u64::MAX)),
            (b"socket:[x]", Link::Kind(FdKind::SocketUnread)),
            (b"pipe:[1]", Link::Kind(FdKind::Pipe)),
            (b"anon_inode:[eventpoll]", Link::Kind(FdKind::Epoll)),
            (b"anon_inode:[eventfd]", Link::Kind(FdKind::EventFd)),
            (b"anon_inode:[timerfd]", Link::Kind(FdKind::TimerFd)),
            (b"anon_inode:[signalfd]", Link::Kind(FdKind::SignalFd)),
            (b"anon_inode:inotify", Link::Kind(FdKind::Inotify)),
            (b"anon_inode:[fanotify]", Link::Kind(FdKind::Fanotify)),
            (b"anon_inode:[io_uring]", Link::Kind(FdKind::IoUring)),
            (b"anon_inode:[pidfd]", Link::Kind(FdKind::PidFd)),
            (b"pidfd:[7]", Link::Kind(FdKind::PidFd)),
            (b"anon_inode:bpf-map", other("bpf-map")),
            (b"anon_inode:kvm-vcpu:3", other("kvm-vcpu")),
            (b"net:[4026531840]", Link::Kind(FdKind::Namespace)),
            (b"secretmem:[1]", other("secretmem")),
            (b"/memfd:x (deleted)", Link::Kind(FdKind::Memfd)),
            (b"/memfd:x", Link::Path),
            (b"/var/log/a:b", Link::Path),
            (b"(unreachable)/x", Link::Path),
            (b"/\xff (deleted)", Link::Path),
            (b"\xff:", Link::Path),
            (b"", Link::Path),
        ];
        for (text, expected) in cases {
            assert_eq!(link(text), *expected, "{}", text.escape_ascii());
        }
    }

    #[test]
    fn paths_and_protocols() {
        assert_eq!(path(FileType::RegularFile, 1), FdKind::File);
        assert_eq!(path(FileType::RegularFile, 0), FdKind::DeletedFile);
        assert_eq!(path(FileType::Directory, 0), FdKind::Directory);
        assert_eq!(path(FileType::Symlink, 1), FdKind::PathUnread);
        assert_eq!(protocol("MPTCPv6"), FdKind::TcpUnlisted);
        assert_eq!(protocol("SCTP"), FdKind::OtherSocket("SCTP".to_owned()));
        assert_eq!(protocol(""), FdKind::SocketUnread);
    }
}
