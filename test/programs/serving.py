"""A server of serving.h's manners: serving.py ADDRESS PORT CONNECTIONS [shared | mptcp | late].

`shared`: others may listen there too; `late`: it accepts a while after somebody connected, and speaks first.
"""
import json
import select
import socket
import sys
import time

address, port, connections = sys.argv[1], *map(int, sys.argv[2:4])
protocol = socket.IPPROTO_MPTCP if "mptcp" in sys.argv else 0
listener = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM, protocol)
if listener.family == socket.AF_INET6:
    listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT if "shared" in sys.argv else socket.SO_REUSEADDR, 1)
listener.bind((address, port))
listener.listen(128)
print("listening", flush=True)
if "late" in sys.argv:
    select.select([listener], [], [])
    time.sleep(0.5)
for _ in range(connections):
    connection, accepted = listener.accept()
    try:
        if "late" in sys.argv:
            connection.sendall(b"late")
        ends = {"accepted": accepted[:2], "peer": connection.getpeername()[:2], "local": connection.getsockname()[:2]}
        print(json.dumps(ends), flush=True)
        while got := connection.recv(65536):
            connection.sendall(got)
    except OSError as error:
        print(json.dumps({"error": error.strerror}), flush=True)
    connection.close()
