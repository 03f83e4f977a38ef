"""Conversations that decide alike however their bytes are cut, and whoever carries them.

alike.py serve SEED: three ports, printed in a line. On the first it takes what comes, on the second it sends as many bytes as the
eight digits at the connection's start say, on the third it answers each request of so many bytes (both from the exchange's number).
alike.py PORTS STREAMS BYTES TALKS EXCHANGES SEED: opens all connections in order, from one thread; then, a thread each, STREAMS of
them send BYTES, as many receive BYTES, and TALKS of them exchange so often. SEED cuts the calls, and nothing else.
"""
import random
import socket
import sys
import threading

SMALL = 16384


def request_bytes(number):
    return 1 + number * 7919 % 6000


def answer_bytes(number):
    return 1 + number * 104729 % 9000


def send_cut(connection, count, cuts):
    block = bytes(SMALL)
    while count:
        part = min(count, cuts.randint(1, SMALL))
        connection.sendall(block[:part])
        count -= part


def receive_cut(connection, count, cuts):
    """As many bytes, or what there is until the end: how many."""
    got = 0
    while got < count:
        part = connection.recv(min(count - got, cuts.randint(1, SMALL)))
        if not part:
            break
        got += len(part)
    return got


def quietly(work):
    """A connection may end in an error: that is a decision too."""
    try:
        work()
    except OSError:
        pass


def take(connection, cuts):
    while receive_cut(connection, 1 << 40, cuts):
        pass


def give(connection, cuts):
    digits = b""
    while len(digits) < 8:
        digits += connection.recv(8 - len(digits)) or b"0" * 8
    send_cut(connection, int(digits), cuts)
    connection.shutdown(socket.SHUT_WR)
    take(connection, cuts)


def answer(connection, cuts):
    number = 0
    while receive_cut(connection, request_bytes(number), cuts) == request_bytes(number):
        send_cut(connection, answer_bytes(number), cuts)
        number += 1


def serve(seed):
    def accept(listener, work):
        while True:
            connection, _ = listener.accept()
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            cuts = random.Random(seed)

            def run(connection=connection, cuts=cuts):
                quietly(lambda: work(connection, cuts))
                connection.close()

            threading.Thread(target=run, daemon=True).start()

    listeners = [socket.create_server(("127.0.0.1", 0), backlog=200) for _ in range(3)]
    for listener, work in zip(listeners, (take, give, answer)):
        threading.Thread(target=accept, args=(listener, work), daemon=True).start()
    print(",".join(str(listener.getsockname()[1]) for listener in listeners), flush=True)
    threading.Event().wait()


def send(connection, count, cuts):
    send_cut(connection, count, cuts)
    connection.shutdown(socket.SHUT_WR)
    take(connection, cuts)


def receive(connection, count, cuts):
    connection.sendall(b"%08d" % count)
    take(connection, cuts)


def talk(connection, exchanges, cuts):
    for number in range(exchanges):
        send_cut(connection, request_bytes(number), cuts)
        if receive_cut(connection, answer_bytes(number), cuts) < answer_bytes(number):
            break


def main(ports, streams, count, talks, exchanges, seed):
    taking, giving, answering = ports.split(",")
    works = [(taking, send, count), (giving, receive, count)] * streams + [(answering, talk, exchanges)] * talks
    threads = []
    for at, (port, work, much) in enumerate(works):
        connection = socket.socket()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.settimeout(20)
        cuts = random.Random(f"{seed}.{at}")
        try:
            connection.connect(("127.0.0.1", int(port)))
        except OSError:
            continue

        def run(connection=connection, work=work, much=much, cuts=cuts):
            quietly(lambda: work(connection, much, cuts))
            connection.close()

        threads.append(threading.Thread(target=run))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if sys.argv[1] == "serve":
    serve(sys.argv[2])
else:
    main(sys.argv[1], *map(int, sys.argv[2:7]))
