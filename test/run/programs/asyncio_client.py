"""Fetches a URL over an asyncio stream; says the body, or what went wrong, and how long it took."""

import asyncio
import sys
import time
from urllib.parse import urlsplit


async def fetch(url):
    reader, writer = await asyncio.open_connection(url.hostname, url.port)
    writer.write(f"GET {url.path} HTTP/1.1\r\nHost: {url.netloc}\r\n\r\n".encode())
    head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    body = await reader.readexactly(int(head.partition("content-length: ")[2].split()[0]))
    writer.close()
    return body.decode()


start = time.monotonic()
try:
    sys.stdout.write(asyncio.run(fetch(urlsplit(sys.argv[1]))))
    status = 0
except OSError as error:
    print(error, file=sys.stderr)
    status = 1
print(f"elapsed_s={time.monotonic() - start:.6f}", file=sys.stderr)
sys.exit(status)
