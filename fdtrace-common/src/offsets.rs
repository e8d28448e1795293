//! Where the running kernel keeps what the programs read.
//!
//! rustc emits no CO-RE relocations (rust-lang/rust#160616), so the loader looks every offset up
//! in the kernel's BTF and sets this one global before load. The section is frozen, so the verifier
//! sees constants and prunes the branches of what is absent.

/// "This kernel has no such field."
pub const ABSENT: u32 = u32::MAX;

macro_rules! offsets {
    ($($(#[$doc:meta])* $field:ident: $path:literal,)*) => {
        /// Byte offsets, [`ABSENT`] where the kernel has no such field.
        #[repr(C)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct Offsets {
            $($(#[$doc])* #[doc = concat!("`", $path, "`")] pub $field: u32,)*
        }

        impl Offsets {
            /// Nothing known.
            pub const NONE: Self = Self { $($field: ABSENT,)* };

            /// Every field with its path in the kernel's types: `struct.member[.member…]`.
            /// Anonymous structs and unions are looked through.
            pub const PATHS: &'static [&'static str] = &[$($path,)*];

            /// The fields in the order of [`Self::PATHS`].
            #[must_use]
            pub fn from_values(mut value: impl FnMut(usize) -> u32) -> Self {
                let mut index = 0;
                $(let $field = value(index); index += 1;)*
                let _ = index;
                Self { $($field,)* }
            }

            /// The value behind a path of [`Self::PATHS`].
            #[must_use]
            pub fn by_path(&self, path: &str) -> Option<u32> {
                match path {
                    $($path => Some(self.$field),)*
                    _ => None,
                }
            }
        }
    };
}

offsets! {
    task_group_leader: "task_struct.group_leader",
    task_start_boottime: "task_struct.start_boottime",
    /// The name of `start_boottime` before 5.5.
    task_real_start_time: "task_struct.real_start_time",
    task_files: "task_struct.files",
    task_signal: "task_struct.signal",
    task_comm: "task_struct.comm",
    signal_rlim: "signal_struct.rlim",
    files_fdt: "files_struct.fdt",
    fdtable_max_fds: "fdtable.max_fds",
    fdtable_fd: "fdtable.fd",
    file_inode: "file.f_inode",
    file_private_data: "file.private_data",
    inode_mode: "inode.i_mode",
    inode_ino: "inode.i_ino",
    inode_links: "inode.i_nlink",
    inode_super_block: "inode.i_sb",
    super_block_magic: "super_block.s_magic",
    file_dentry: "file.f_path.dentry",
    dentry_parent: "dentry.d_parent",
    dentry_name: "dentry.d_name.name",
    socket_sk: "socket.sk",
    sock_family: "sock_common.skc_family",
    sock_state: "sock_common.skc_state",
    sock_port: "sock_common.skc_num",
    sock_v4_address: "sock_common.skc_rcv_saddr",
    sock_v6_address: "sock_common.skc_v6_rcv_saddr",
    sock_peer_port: "sock_common.skc_dport",
    sock_v4_peer: "sock_common.skc_daddr",
    sock_v6_peer: "sock_common.skc_v6_daddr",
    sock_type: "sock.sk_type",
    tcp_received: "tcp_sock.rcv_nxt",
    tcp_copied: "tcp_sock.copied_seq",
    sock_net: "sock_common.skc_net.net",
    net_inum: "net.ns.inum",
    sock_protocol: "sock.sk_protocol",
    sock_queue_length: "sock.sk_ack_backlog",
    sock_queue_limit: "sock.sk_max_ack_backlog",
    sock_receive_queue_length: "sock.sk_receive_queue.qlen",
    unix_addr: "unix_sock.addr",
    unix_address_len: "unix_address.len",
    unix_address_name: "unix_address.name",
    /// The first subflow of an MPTCP socket: the one that listens.
    mptcp_first: "mptcp_sock.first",
    /// First argument of a function or system call, x86-64.
    regs_x86_di: "pt_regs.di",
    /// First argument of a system call, arm64: `regs[0]` is the result by then.
    regs_arm64_orig_x0: "pt_regs.orig_x0",
    /// Second argument, x86-64.
    regs_x86_si: "pt_regs.si",
    /// Third argument of a function, x86-64.
    regs_x86_dx: "pt_regs.dx",
    /// Fourth argument of a function, x86-64.
    regs_x86_cx: "pt_regs.cx",
    /// First argument of a 32-bit system call, x86-64.
    regs_x86_bx: "pt_regs.bx",
    /// Second argument of a 32-bit system call is `cx` too. Result of a function, x86-64.
    regs_x86_ax: "pt_regs.ax",
    /// Number of the system call, x86-64.
    regs_x86_orig_ax: "pt_regs.orig_ax",
    /// Arguments and result, arm64: an array.
    regs_arm64_regs: "pt_regs.regs",
    /// Number of the system call, arm64.
    regs_arm64_syscallno: "pt_regs.syscallno",
    /// Its size: user registers stand at the end of the kernel stack.
    regs_size: "pt_regs:size",
    task_stack: "task_struct.stack",
    task_flags: "task_struct.flags",
    /// Whether a system call is a 32-bit one, x86-64.
    task_thread_status: "task_struct.thread_info.status",
    task_thread_pid: "task_struct.thread_pid",
    pid_level: "pid.level",
    pid_numbers: "pid.numbers",
    upid_size: "upid:size",
    upid_ns: "upid.ns",
    pid_ns_inum: "pid_namespace.ns.inum",
    io_kiocb_file: "io_kiocb.file",
    io_kiocb_opcode: "io_kiocb.opcode",
    /// Where a request has no file of its own field, its command starts with it.
    io_accept_file_slot: "io_accept.file_slot",
    /// RLIMIT_NOFILE as it was when the accept was submitted.
    io_accept_nofile: "io_accept.nofile",
    io_kiocb_result: "io_kiocb.cqe.res",
    /// The same before 5.19.
    io_kiocb_result_old: "io_kiocb.result",
    io_uring_cqe_res: "io_uring_cqe.res",
    skb_head: "sk_buff.head",
    skb_network_header: "sk_buff.network_header",
    skb_transport_header: "sk_buff.transport_header",
    skb_protocol: "sk_buff.protocol",
    skb_cb: "sk_buff.cb",
    tcp_cb_tw_isn: "tcp_skb_cb.tcp_tw_isn",
    /// Inode number of a socket without going through its file; since 6.18.
    sock_ino: "sock.sk_ino",
    sock_socket: "sock.sk_socket",
    socket_file: "socket.file",
    /// Half-open requests: the SYN queue.
    syn_queue_length: "inet_connection_sock.icsk_accept_queue.qlen",
    defer_accept: "inet_connection_sock.icsk_accept_queue.rskq_defer_accept",
    ulp_data: "inet_connection_sock.icsk_ulp_data",
    /// The MPTCP socket a listening subflow belongs to.
    subflow_conn: "mptcp_subflow_context.conn",
    tcp_is_mptcp: "tcp_sock.is_mptcp",
    /// When the listener sent its last cookie.
    cookie_stamp: "tcp_sock.rx_opt.ts_recent_stamp",
    /// The same of a group of listeners that share a port.
    group_cookie_stamp: "sock_reuseport.synq_overflow_ts",
    sock_reuseport: "sock.sk_reuseport_cb",
    /// What a request answered, and what it waits for.
    request_snt_isn: "tcp_request_sock.snt_isn",
    request_rcv_nxt: "tcp_request_sock.rcv_nxt",
    request_window: "sock_common.skc_rcv_wnd",
    /// How often the SYN-ACK of a request was sent again.
    request_timeouts: "request_sock.num_timeout",
    /// Bit number within that byte, not a byte offset.
    request_timeouts_bit: "request_sock.num_timeout:bit",
    tcp_syncookies: "net.ipv4.sysctl_tcp_syncookies",
    /// Byte of the bit field; the bit is in `sock_ipv6only_bit`.
    sock_ipv6only: "sock_common.skc_ipv6only",
    /// Bit number within that byte, not a byte offset.
    sock_ipv6only_bit: "sock_common.skc_ipv6only:bit",
}
