// Four worker threads, each with flows of its own to an echo server: `workers.mjs PORT`.
import { once } from "node:events";
import { connect } from "node:net";
import { isMainThread, Worker, workerData } from "node:worker_threads";

const port = Number(process.argv[2]);

async function talk(number) {
  for (let flow = 0; flow < 3; flow++) {
    const socket = connect(port, "127.0.0.1");
    try {
      await once(socket, "connect");
      for (let message = 0; message < 6; message++) {
        let left = 100 + 900 * ((number + flow + message) % 4);
        socket.write(Buffer.alloc(left));
        while (left > 0) left -= (await once(socket, "data"))[0].length;
      }
    } catch {
      // A reset: the next flow.
    }
    socket.destroy();
  }
}

if (isMainThread) {
  for (let number = 0; number < 4; number++) new Worker(new URL(import.meta.url), { argv: [port], workerData: number });
} else {
  await talk(workerData);
}
