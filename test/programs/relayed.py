"""What a client sees of its connections, as a line of JSON each.

relayed.py HOST PORT CONNECTIONS EXCHANGES [KILL | mptcp | patient]: connects so often, exchanges ten bytes so often on each with an echo server, and
prints {connect: ms or error, took: ms, peer, local, exchanges: [ms or error, text]}. With KILL it sends that signal to
its run's mishap-relay behind the first connection's first exchange, and tells what becomes of that connection and of later ones.
With mptcp it asks for sockets of MPTCP. It waits 2 s for a connect, or for an answer; a patient one a minute.
"""
import errno
import json
import os
import re
import socket
import subprocess
import sys
import time

host, port, connections, exchanges = sys.argv[1], *map(int, sys.argv[2:5])
option = sys.argv[5] if sys.argv[5:] else ""
kill = int(option) if option.isdigit() else 0
protocol = socket.IPPROTO_MPTCP if option == "mptcp" else 0
family = socket.AF_INET6 if ":" in host else socket.AF_INET


def timed(work):
    start = time.monotonic()
    try:
        result = work()
    except TimeoutError:
        result = "timeout"
    except OSError as error:
        result = errno.errorcode[error.errno]
    return round((time.monotonic() - start) * 1000, 3), result


def exchange(connection):
    connection.sendall(b"0123456789")
    return connection.recv(1000).decode()


for number in range(connections):
    connection = socket.socket(family, socket.SOCK_STREAM, protocol)
    connection.settimeout(60 if option == "patient" else 2)
    took, failed = timed(lambda: connection.connect((host, port)))
    told = {"took": took, "connect": failed or "made", "exchanges": []}
    if not failed:
        told["peer"] = connection.getpeername()[:2]
        told["local"] = connection.getsockname()[0]
        for at in range(exchanges):
            told["exchanges"].append(timed(lambda: exchange(connection)))
            if kill and number == 0 and at == 0:
                relay = int(subprocess.check_output(["pgrep", "-f", "^mishap-relay " + os.environ["MISHAP_SEGMENT"]]))
                os.kill(relay, kill)
    print(json.dumps(told), flush=True)
    connection.close()
    if kill:
        time.sleep(0.1)
