"""Fetches a URL with urllib, which blocks in its calls; says the body, or what went wrong, and how long it took."""

import sys
import time
import urllib.request

start = time.monotonic()
try:
    with urllib.request.urlopen(sys.argv[1]) as answer:
        sys.stdout.write(answer.read().decode())
    status = 0
except OSError as error:
    print(error, file=sys.stderr)
    status = 1
print(f"elapsed_s={time.monotonic() - start:.6f}", file=sys.stderr)
sys.exit(status)
