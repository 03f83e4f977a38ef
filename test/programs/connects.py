"""What connects come to, for comparing with and without something between: a line of JSON each, [name, outcome, seconds].

connects.py setup: makes the addresses and routes that it goes by, in a network namespace of the caller's
connects.py: tries them. Times are rounded down to whole seconds: what is at once, and what waits for its own patience.
"""
import errno
import json
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time

V4, V6 = socket.AF_INET, socket.AF_INET6


def setup():
    for line in """link set lo up
link add out type veth peer name nowhere
addr add 10.77.0.1/24 dev out
addr add 10.77.0.2/24 dev out
addr add fd77::1/64 dev out nodad
addr add fd77::2/64 dev out nodad
link set nowhere up
link set out up
neigh add 10.77.0.99 lladdr 02:00:00:00:00:99 dev out
neigh add fd77::99 lladdr 02:00:00:00:00:99 dev out
route add unreachable 10.78.0.1
route add prohibit 10.78.0.2
route add blackhole 10.78.0.3
route add throw 10.78.0.4
-6 route add unreachable fd78::1
-6 route add prohibit fd78::2
-6 route add blackhole fd78::3""".splitlines():
        subprocess.run(["ip", *line.split()], check=True)


def name_of(error):
    return "timeout" if isinstance(error, TimeoutError) and not error.errno else errno.errorcode.get(error.errno, str(error))


def told(name, work, timed=True):
    start = time.monotonic()
    try:
        outcome = work()
    except OSError as error:
        outcome = name_of(error)
    took = time.monotonic() - start
    print(json.dumps([name, outcome if outcome is not None else "made", int(took) if timed else 0]), flush=True)


def echo(end):
    try:
        while got := end.recv(1000):
            end.sendall(got)
    except OSError:
        pass


def listener(family, address):
    made = socket.create_server((address, 0), family=family, backlog=50)

    def serve():
        while True:
            end, peer = made.accept()
            try:
                end.sendall((peer[0] + "\n").encode())
                threading.Thread(target=echo, args=(end,), daemon=True).start()
            except OSError:
                pass

    threading.Thread(target=serve, daemon=True).start()
    return made.getsockname()[1]


def seen(connection):
    """Whom the peer sees, and whether that is whom the socket says it is."""
    line = b""
    while not line.endswith(b"\n"):
        line += connection.recv(100)
    local = connection.getsockname()[0]
    return f"{line.decode().strip()} as {local}"


def plain(family, to, port, patience=1.2):
    connection = socket.socket(family)
    connection.settimeout(patience)
    connection.connect((to, port))


def kernel_waits(family, to, port):
    """A blocking connect, which a signal without SA_RESTART interrupts; the attempt goes on."""
    connection = socket.socket(family)
    signal.signal(signal.SIGALRM, lambda *_: (_ for _ in ()).throw(InterruptedError(errno.EINTR, "")))
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    try:
        connection.connect((to, port))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def by_steps(family, to, port, patience=1.2):
    """Without blocking: what the attempt comes to, and what calls say meanwhile and afterwards."""
    connection = socket.socket(family)
    connection.setblocking(False)
    code = connection.connect_ex((to, port))
    if code != errno.EINPROGRESS:
        return errno.errorcode[code]  # where no way leads, the kernel says so at once
    waiting = select.poll()
    waiting.register(connection, select.POLLOUT)
    if not waiting.poll(patience * 1000):
        return f"pending, {errno.errorcode[connection.connect_ex((to, port))]}"
    code = connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if code:
        return errno.errorcode[code]
    said = [connection.connect_ex((to, port)) for _ in range(2)]
    return f"made, {errno.errorcode[said[1]]}"


def bound(family, at, to, port, at_port=0):
    connection = socket.socket(family)
    connection.settimeout(1.2)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    connection.bind((at, at_port))
    connection.connect((to, port))
    return seen(connection)


def patient(family):
    """Blocks, but not for good."""
    connection = socket.socket(family)
    for which in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
        connection.setsockopt(socket.SOL_SOCKET, which, struct.pack("ll", 2, 0))
    return connection


def fast_open(family, to, port):
    """The kernel itself leaves one such unanswered now and then."""
    for last in (False, False, True):
        connection = patient(family)
        try:
            sent = connection.sendto(b"hello", socket.MSG_FASTOPEN, (to, port))
            return f"{sent} {seen(connection)} {connection.recv(100).decode()}"
        except BlockingIOError:
            if last:
                raise


def again(family, to, port):
    """A socket that was refused connects elsewhere."""
    connection = socket.socket(family)
    connection.settimeout(1.2)
    first = connection.connect_ex((to, 1))
    connection.connect((to, port))
    return f"{errno.errorcode.get(first)} {seen(connection)}"


def parted(family, to, port):
    """A connected socket is parted from its peer (AF_UNSPEC), and connects once more."""
    import ctypes

    connection = socket.socket(family)
    connection.settimeout(1.2)
    connection.connect((to, port))
    seen(connection)
    ctypes.CDLL(None).connect(connection.fileno(), bytes(28), 28)
    connection.connect((to, port))
    return seen(connection)


def main():
    if sys.argv[1:] == ["setup"]:
        return setup()
    for kind, family, host, own, silent, far in (
        ("v4", V4, "127.0.0.1", ("10.77.0.1", "10.77.0.2"), "10.77.0.99", "10.78.0."),
        ("v6", V6, "::1", ("fd77::1", "fd77::2"), "fd77::99", "fd78::"),
        ("mapped", V6, "::ffff:127.0.0.1", ("::ffff:10.77.0.1", "::ffff:10.77.0.2"), "::ffff:10.77.0.99", "::ffff:10.78.0."),
    ):
        port = listener(V6 if kind == "v6" else V4, "::" if kind == "v6" else "0.0.0.0")
        ends = {"host": (host, port), "own": (own[0], port), "refusing": (host, 1), "refusing own": (own[0], 1), "silent": (silent, 9)}
        kinds = "unreachable", "prohibited", "blackhole", "throw"
        ends |= {name: (far + str(at + 1), 9) for at, name in enumerate(kinds) if kind != "v6" or at < 3}
        ends["no route"] = ("fd79::1", 9) if kind == "v6" else ("::ffff:10.79.0.1" if kind == "mapped" else "10.79.0.1", 9)
        ends["any"] = ("::" if family == V6 else "0.0.0.0", port)
        for name, (to, at) in ends.items():
            told(f"{kind} {name}", lambda: plain(family, to, at))
        for name in ("own", "refusing", "silent", "unreachable", "no route"):
            told(f"{kind} {name} by steps", lambda: by_steps(family, *ends[name]))
        told(f"{kind} silent interrupted", lambda: kernel_waits(family, *ends["silent"]))
        told(f"{kind} bound", lambda: bound(family, own[1], *ends["own"]))
        told(f"{kind} bound, to this host", lambda: bound(family, own[1], *ends["host"]))
        told(f"{kind} bound with a port", lambda: bound(family, own[1], *ends["own"], at_port=33333))
        told(f"{kind} bound with a port alone", lambda: bound(family, "::" if family == V6 else "0.0.0.0", *ends["own"], at_port=33334))
        told(f"{kind} bound to loopback, to the silent", lambda: bound(family, host, *ends["silent"]))
        told(f"{kind} fast open", lambda: fast_open(family, *ends["own"]), timed=False)
        told(f"{kind} after a refusal", lambda: again(family, *ends["own"]))
        told(f"{kind} parted", lambda: parted(family, *ends["own"]))
    told("v4 to all", lambda: plain(V4, "255.255.255.255", 9))
    told("v4 to a group", lambda: plain(V4, "224.0.0.1", 9))
    told("v4 broadcast", lambda: plain(V4, "10.77.0.255", 9))
    told("v6 link-local without its link", lambda: plain(V6, "fe80::1", 9))
    told("v6 by a v4 socket", lambda: plain(V4, "::1", 9))


main()
