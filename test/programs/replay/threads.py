# Eight threads, each with flows of its own to an echo server: `threads.py PORT [FLOWS [MESSAGES]]`, where FLOWS and
# MESSAGES are those of the third thread; all others have 3 and 8.
import socket
import sys
import threading

port = int(sys.argv[1])
flows = int(sys.argv[2]) if len(sys.argv) > 2 else 3
messages = int(sys.argv[3]) if len(sys.argv) > 3 else 8


def talk(number):
    mine, many = (flows, messages) if number == 2 else (3, 8)
    for flow in range(mine):
        try:
            with socket.create_connection(("127.0.0.1", port)) as connection:
                for message in range(many):
                    size = 100 + 700 * ((number + flow + message) % 5)
                    connection.sendall(bytes(size))
                    while size > 0:
                        got = len(connection.recv(4096))
                        if got == 0:
                            return
                        size -= got
        except OSError:
            continue


threads = [threading.Thread(target=talk, args=(number,)) for number in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
