//! What an open descriptor is, as an iterator over a process's descriptors tells it.

/// One descriptor. What is not known is 0.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// Of the inode.
    pub inode: u64,
    /// Which file system it is of: `super_block.s_magic`.
    pub magic: u64,
    /// The descriptor itself.
    pub number: u32,
    /// How many names the inode has.
    pub links: u32,
    /// Whether the file was never in a directory: 1 where it is so.
    pub is_root: u32,
    /// Of a TCP socket: bytes that came and were not read, one more for the end of the connection.
    pub unread: u32,
    /// `inode.i_mode`.
    pub mode: u16,
    /// Of a socket: address family.
    pub family: u16,
    /// Of a socket: protocol.
    pub protocol: u16,
    /// Of an IPv4 or IPv6 socket: its port, in host byte order.
    pub port: u16,
    /// And the port of its peer.
    pub peer_port: u16,
    /// Of a socket: `SOCK_*`.
    pub socket_type: u8,
    /// Of a socket: state, as in `TCP_*`.
    pub state: u8,
    /// Of an IPv4 or IPv6 socket: its address; an IPv4 address is the first four bytes. Of what is
    /// no socket: the start of its name, up to the first 0.
    pub local: [u8; 16],
    /// And the address of its peer. The name goes on here.
    pub peer: [u8; 16],
    /// None: 0.
    pub padding: u32,
}

impl Descriptor {
    /// Bytes of one.
    pub const SIZE: usize = size_of::<Self>();

    /// Nothing known.
    pub const EMPTY: Self = Self {
        inode: 0,
        magic: 0,
        number: 0,
        links: 0,
        is_root: 0,
        unread: 0,
        mode: 0,
        family: 0,
        protocol: 0,
        port: 0,
        peer_port: 0,
        socket_type: 0,
        state: 0,
        local: [0; 16],
        peer: [0; 16],
        padding: 0,
    };
}
