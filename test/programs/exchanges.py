"""Exchanges bytes with echo servers and prints what each exchange took, as JSON: milliseconds, or an error's name.

exchanges.py COUNT PAUSE_MS PORT [PORT ...]: one connection to each port, COUNT exchanges on each in turn.
"""
import json
import socket
import sys
import time

count, pause_ms, ports = int(sys.argv[1]), float(sys.argv[2]), [int(port) for port in sys.argv[3:]]


def timed(work):
    start = time.monotonic()
    try:
        work()
    except OSError as error:
        return type(error).__name__
    return round((time.monotonic() - start) * 1000, 3)


def exchange(connection):
    connection.sendall(b"x" * 100)
    left = 100
    while left:
        got = connection.recv(left)
        if not got:
            raise ConnectionResetError
        left -= len(got)


told = []
for port in ports:
    connection = socket.socket()
    connected = timed(lambda: connection.connect(("127.0.0.1", port)))
    took = []
    for _ in range(count):
        if pause_ms:
            time.sleep(pause_ms / 1000)
        took.append(timed(lambda: exchange(connection)))
    told.append({"port": port, "connect": connected, "took": took})
    connection.close()
print(json.dumps(told))
