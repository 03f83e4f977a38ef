"""Holds one connection and uses it: holding.py PORT BYTES PATIENCE_MS

Exchanges so many bytes with an echo server again and again and prints how many milliseconds each time took, "timeout" when the
answer is not whole within its patience (0: it waits in recv itself), or the error, behind which it ends.
"""
import errno
import socket
import sys
import time

port, size, patience_ms = map(int, sys.argv[1:4])
s = socket.create_connection(("127.0.0.1", port))
s.settimeout(patience_ms / 1e3 if patience_ms else None)
left = 0
while True:
    start = time.monotonic()
    try:
        if not left:
            s.sendall(b"h" * size)
            left = size
        while left:
            part = s.recv(65536)
            if not part:
                sys.exit("end")
            left -= len(part)
        print(f"{(time.monotonic() - start) * 1e3:.0f}", flush=True)
    except socket.timeout:
        print("timeout", flush=True)
    except OSError as error:
        print(errno.errorcode[error.errno], flush=True)
        break
    time.sleep(0.05 if patience_ms else 0)
time.sleep(60)
