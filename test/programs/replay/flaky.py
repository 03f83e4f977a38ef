# A flaky client: of six requests, each on a connection of its own, it survives whatever happens, but for one thing: when the
# third response was slow and the fifth connection reset, it exits with 4. `flaky.py PORT`
import socket
import sys
import time

SLOW_SECONDS = 0.15

slow, reset = set(), set()
for number in range(1, 7):
    try:
        with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as connection:
            connection.sendall(b"request %d" % number)
            asked = time.monotonic()
            connection.recv(100)
            if time.monotonic() - asked > SLOW_SECONDS:
                slow.add(number)
    except ConnectionResetError:
        reset.add(number)
print(f"slow {sorted(slow)} reset {sorted(reset)}")
sys.exit(4 if 3 in slow and 5 in reset else 0)
