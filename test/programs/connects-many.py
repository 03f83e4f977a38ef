"""Connects by the thousand, in every way that they end: connects-many.py ECHO_PORT SILENT_PORT COUNT.

Of each ten: four exchange a few bytes and are closed by turns in order and abruptly, two are refused, two are let go while they are
under way, two are let go where nothing answers. It prints how many went which way, then waits for the end of its input.
"""
import socket
import struct
import sys

echo, silent, count = map(int, sys.argv[1:4])
ended = {"exchanged": 0, "refused": 0, "let go": 0, "failed": 0}


def begin(port):
    connection = socket.socket()
    connection.setblocking(False)
    connection.connect_ex(("127.0.0.1", port))
    return connection


for number in range(count):
    kind = number % 10
    if kind < 4:
        with socket.socket() as connection:
            connection.settimeout(20)
            try:
                connection.connect(("127.0.0.1", echo))
                connection.sendall(b"0123456789")
                if kind % 2:
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                ended["exchanged" if connection.recv(100) else "failed"] += 1
            except OSError as error:
                print(error, flush=True)
                ended["failed"] += 1
    elif kind < 6:
        with socket.socket() as connection:
            ended["refused" if connection.connect_ex(("127.0.0.1", 1)) == 111 else "failed"] += 1
    else:
        begin(echo if kind < 8 else silent).close()
        ended["let go"] += 1
print(*ended.values(), flush=True)
sys.stdin.read()
