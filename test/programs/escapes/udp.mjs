// Sends a datagram.
import { createSocket } from "node:dgram";
import { attempt, target } from "./attempt.mjs";

await attempt(
  () =>
    new Promise((resolve, reject) => {
      createSocket("udp4")
        .on("error", reject)
        .send("secret", target.port, "127.0.0.1", (error) => (error ? reject(error) : resolve("sent")));
    }),
);
