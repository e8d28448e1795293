"""Answers each client, and keeps what the client's first byte says: c, the connection; e, an eventfd."""

import os
import signal
import socket
import sys
import time

# Whatever happens to the test, this must not stay.
signal.alarm(120)
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=128)
kept = []
while True:
    try:
        client, _ = listener.accept()
    except OSError as error:
        print(f"failed: {error}", flush=True)
        time.sleep(0.2)
        continue
    what = client.recv(1)
    client.sendall(what)
    if what == b"c":
        kept.append(client)
    else:
        # First: at the limit, it is accept that fails.
        client.close()
    if what == b"e":
        os.eventfd(0)
