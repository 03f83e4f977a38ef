"""asyncio streams on several connections at once, spread over a period: URL CONNECTIONS REQUESTS PERIOD_MS. Prints each
request's ms."""

import asyncio
import json
import sys
import time
from urllib.parse import urlsplit

url = urlsplit(sys.argv[1])
took = []


async def converse(nth):
    await asyncio.sleep(nth * float(sys.argv[4]) / 1000 / int(sys.argv[2]))
    reader, writer = await asyncio.open_connection(url.hostname, url.port)
    for i in range(int(sys.argv[3])):
        start = time.perf_counter()
        writer.write(f"GET {url.path} HTTP/1.1\r\nHost: {url.netloc}\r\n\r\n".encode())
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        await reader.readexactly(int(head.partition("content-length: ")[2].split()[0]))
        took.append([i, (time.perf_counter() - start) * 1000])
    writer.close()


async def main():
    await asyncio.gather(*(converse(nth) for nth in range(int(sys.argv[2]))))


asyncio.run(main())
print(json.dumps(took))
