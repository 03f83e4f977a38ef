"""asyncio streams on several connections at once: URL CONNECTIONS REQUESTS. Prints each request's ms."""

import asyncio
import json
import sys
import time
from urllib.parse import urlsplit

url = urlsplit(sys.argv[1])
took = []


async def converse():
    reader, writer = await asyncio.open_connection(url.hostname, url.port)
    for i in range(int(sys.argv[3])):
        start = time.perf_counter()
        writer.write(f"GET {url.path} HTTP/1.1\r\nHost: {url.netloc}\r\n\r\n".encode())
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        await reader.readexactly(int(head.partition("content-length: ")[2].split()[0]))
        took.append([i, (time.perf_counter() - start) * 1000])
    writer.close()


async def main():
    await asyncio.gather(*(converse() for _ in range(int(sys.argv[2]))))


asyncio.run(main())
print(json.dumps(took))
