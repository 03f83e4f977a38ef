"""http.client, which blocks in its calls, on one connection: URL CONNECTIONS REQUESTS PERIOD_MS. Prints each request's ms."""

import http.client
import json
import sys
import time
from urllib.parse import urlsplit

url = urlsplit(sys.argv[1])
connection = http.client.HTTPConnection(url.hostname, url.port)
took = []
for i in range(int(sys.argv[3])):
    start = time.perf_counter()
    connection.request("GET", url.path)
    connection.getresponse().read()
    took.append([i, (time.perf_counter() - start) * 1000])
print(json.dumps(took))
