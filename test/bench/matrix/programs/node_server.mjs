// Node's own HTTP server; the port is its argument.
import { createServer } from "node:http";

createServer((_request, response) => {
  response.writeHead(200, { "content-length": 6 }).end("hello\n");
}).listen(Number(process.argv[2]), "127.0.0.1");
