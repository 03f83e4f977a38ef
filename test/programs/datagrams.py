"""What a client sees of its datagrams, as a line of JSON.

datagrams.py HOST PORT WAY COUNT [burst | SECONDS]: sends "0", "1", … to an echo server, on a socket that is `connected` or
`unconnected`, one at a time, each until its answer or an error came; or all in a burst, and then takes what comes. With SECONDS it
waits so long between two. Prints {peer, local, exchanges: [ms, text or error, whom it came from]}.
"""
import errno
import json
import socket
import sys
import time

host, port, way, count = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
mode = sys.argv[5] if len(sys.argv) > 5 else "0"
SILENCE_S = 0.6

end = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
end.settimeout(SILENCE_S)


def send(text):
    if way == "connected":
        end.send(text)
    else:
        end.sendto(text, (host, port))


def timed(work):
    start = time.monotonic()
    try:
        text, source = work()
        told = [text.decode(), source[:2]]
    except TimeoutError:
        told = ["timeout", None]
    except OSError as error:
        told = [errno.errorcode[error.errno], None]
    return [round((time.monotonic() - start) * 1000, 3), *told]


def exchange(number):
    send(str(number).encode())
    return end.recvfrom(100)


if way == "connected":
    end.connect((host, port))
if mode == "burst":
    for number in range(count):
        send(str(number).encode())
    exchanges = []
    while not exchanges or exchanges[-1][1] != "timeout":
        exchanges.append(timed(lambda: end.recvfrom(100)))
    exchanges.pop()
else:
    exchanges = []
    for number in range(count):
        if number:
            time.sleep(float(mode))
        exchanges.append(timed(lambda: exchange(number)))
peer = end.getpeername()[:2] if way == "connected" else None
print(json.dumps({"peer": peer, "local": end.getsockname()[0], "exchanges": exchanges}))
