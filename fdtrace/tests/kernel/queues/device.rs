//! Network devices of the namespace that the caller is in, on machines without ip(8) too.

use std::{
    ffi::CString,
    fs::File,
    net::{Ipv4Addr, UdpSocket},
    os::fd::AsRawFd as _,
    thread,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    libc,
    sys::socket::{
        AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto,
        socket,
    },
};

/// Takes a device up or down.
pub(super) fn set_up(device: &str, up: bool) {
    let mut request = request(device);
    request.ifr_ifru.ifru_flags = if up { i16::try_from(libc::IFF_UP).unwrap() } else { 0 };
    control(libc::SIOCSIFFLAGS, &request).unwrap();
}

/// Gives a device its address, in a /24.
pub(super) fn set_address(device: &str, ip: Ipv4Addr) {
    let mut request = request(device);
    request.ifr_ifru.ifru_addr = sockaddr(ip);
    control(libc::SIOCSIFADDR, &request).unwrap();
    request.ifr_ifru.ifru_netmask = sockaddr(Ipv4Addr::new(255, 255, 255, 0));
    control(libc::SIOCSIFNETMASK, &request).unwrap();
}

/// Waits until a device carries packets: a new one does when the kernel gets round to it, up to a
/// second later (net/core/link_watch.c).
pub(super) fn wait_until_running(device: &str) {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let mut request = request(device);
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        // SAFETY: the request is as large as the kernel writes.
        let result =
            unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFFLAGS as _, &raw mut request) };
        Errno::result(result).unwrap();
        // SAFETY: the kernel has filled in the flags.
        let flags = unsafe { request.ifr_ifru.ifru_flags };
        if i32::from(flags) & libc::IFF_RUNNING != 0 {
            return;
        }
        assert!(Instant::now() < deadline, "{device} does not come up");
        thread::sleep(Duration::from_millis(5));
    }
}

fn request(device: &str) -> libc::ifreq {
    // SAFETY: plain data, for which zeroes are valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(device.bytes()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    request
}

fn sockaddr(ip: Ipv4Addr) -> libc::sockaddr {
    let mut bytes = [0; 14];
    // After the port.
    for (to, from) in bytes[2..].iter_mut().zip(ip.octets()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    libc::sockaddr { sa_family: u16::try_from(libc::AF_INET).unwrap(), sa_data: bytes }
}

fn control<T>(what: libc::c_ulong, request: &T) -> nix::Result<()> {
    // Any socket is a way in.
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    // SAFETY: each request of these is read only, and lives as long as the call, with what it
    // points to.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), what as libc::Ioctl, request) };
    Errno::result(result).map(drop)
}

/// struct rtentry of linux/route.h
#[repr(C)]
struct Route {
    _pad1: libc::c_ulong,
    destination: libc::sockaddr,
    gateway: libc::sockaddr,
    mask: libc::sockaddr,
    flags: u16,
    _pad2: u16,
    _pad3: libc::c_ulong,
    _pad4: usize,
    metric: i16,
    device: *const libc::c_char,
    _numbers: [libc::c_ulong; 3],
}

/// Sends what is for a /16 to a device.
pub(super) fn add_route(ip: Ipv4Addr, device: &str) {
    const UP: u16 = 1;
    let device = CString::new(device).unwrap();
    // SAFETY: plain data, for which zeroes are valid.
    let mut route: Route = unsafe { std::mem::zeroed() };
    route.destination = sockaddr(ip);
    route.mask = sockaddr(Ipv4Addr::new(255, 255, 0, 0));
    route.flags = UP;
    route.device = device.as_ptr();
    match control(libc::SIOCADDRT, &route) {
        Ok(()) | Err(Errno::EEXIST) => {}
        Err(error) => panic!("route: {error}"),
    }
}

/// Lays a cable from here to another namespace. Both ends are called `device`, and are down.
pub(super) fn add_veth(device: &str, other: &File) {
    // linux/if_link.h and linux/veth.h; NLM_F_* of linux/netlink.h
    const NAME: u16 = 3;
    const LINKINFO: u16 = 18;
    const NET_NS_FD: u16 = 28;
    const INFO_KIND: u16 = 1;
    const INFO_DATA: u16 = 2;
    const VETH_INFO_PEER: u16 = 1;
    const REQUEST_ACK_CREATE_NEW: u16 = 1 | 4 | 0x200 | 0x400;
    const HEADER: usize = 16;
    /// struct ifinfomsg: any device.
    const ANY: [u8; 16] = [0; 16];

    let name = attribute(NAME, &[device.as_bytes(), b"\0"].concat());
    let there = attribute(NET_NS_FD, &other.as_raw_fd().to_ne_bytes());
    let peer = attribute(VETH_INFO_PEER, &[&ANY[..], &name, &there].concat());
    let kind = attribute(INFO_KIND, b"veth\0");
    let link = attribute(LINKINFO, &[kind, attribute(INFO_DATA, &peer)].concat());
    let body = [&ANY[..], &name, &link].concat();
    let mut message = u32::try_from(HEADER + body.len()).unwrap().to_ne_bytes().to_vec();
    message.extend(libc::RTM_NEWLINK.to_ne_bytes());
    message.extend(REQUEST_ACK_CREATE_NEW.to_ne_bytes());
    message.extend([0; 8]);
    message.extend(body);

    let (family, kind) = (AddressFamily::Netlink, SockType::Raw);
    let netlink = socket(family, kind, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute).unwrap();
    let kernel = NetlinkAddr::new(0, 0);
    sendto(netlink.as_raw_fd(), &message, &kernel, MsgFlags::empty()).unwrap();
    let mut answer = [0; 1024];
    let length = recv(netlink.as_raw_fd(), &mut answer, MsgFlags::empty()).unwrap();
    // struct nlmsgerr: 0, or a negative errno.
    let error = answer[..length][HEADER..][..4].try_into().unwrap();
    let error = i32::from_ne_bytes(error);
    assert_eq!(error, 0, "veth: {}", Errno::from_raw(-error));
}

/// struct nlattr, padded to four bytes.
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut attribute = u16::try_from(4 + value.len()).unwrap().to_ne_bytes().to_vec();
    attribute.extend(kind.to_ne_bytes());
    attribute.extend(value);
    attribute.resize(attribute.len().next_multiple_of(4), 0);
    attribute
}
