"""Fails at everything that Python offers and that needs a descriptor. Says how often, by system call."""

import ctypes
import errno
import json
import os
import select
import socket
import subprocess
import sys

libc = ctypes.CDLL(None, use_errno=True)
counts = {}


def failed(call):
    counts[call] = counts.get(call, 0) + 1


def inotify():
    if libc.inotify_init1(os.O_CLOEXEC) < 0:
        raise OSError(ctypes.get_errno(), "inotify_init1")


def at_its_limit(call, times, make):
    for _ in range(times):
        try:
            make()
        except OSError as error:
            if error.errno != errno.EMFILE:
                raise
            failed(call)
        else:
            raise AssertionError(f"{call}: something is left")


listener = socket.create_server(("127.0.0.1", 0))
client = socket.create_connection(listener.getsockname())
held = []
try:
    while True:
        held.append(os.open("/dev/null", os.O_RDONLY))
except OSError:
    failed("openat")

at_its_limit("openat", 31, lambda: os.open("/dev/null", os.O_RDONLY))
at_its_limit("openat", 32, lambda: open("/dev/null"))
at_its_limit("openat", 33, lambda: os.listdir("/"))
at_its_limit("openat", 34, lambda: os.scandir("/proc"))
at_its_limit("pipe2", 35, os.pipe)
at_its_limit("pipe2", 36, lambda: subprocess.Popen(["true"], stdout=subprocess.PIPE))
at_its_limit("fcntl", 37, lambda: os.dup(0))
at_its_limit("socket", 38, socket.socket)
at_its_limit("socketpair", 39, socket.socketpair)
at_its_limit("accept4", 40, listener.accept)
at_its_limit("epoll_create1", 41, select.epoll)
at_its_limit("eventfd2", 42, lambda: os.eventfd(0))
at_its_limit("memfd_create", 43, lambda: os.memfd_create("nothing"))
at_its_limit("pidfd_open", 44, lambda: os.pidfd_open(os.getpid()))
at_its_limit("inotify_init1", 45, inotify)
print(json.dumps(counts), flush=True)
sys.stdin.read()
