// What the programs of the API's tests share. The test's server answers "calm"; the policy `torn` turns that into
// "torn" on its way in, so that each answer says whether its connection was faulted, a reused one too.
import http from "node:http";
import net from "node:net";

export const port = Number(process.env.TEST_PORT);
export const url = `http://127.0.0.1:${port}/`;

export const torn = {
  payloadMutation: {
    enabled: true,
    type: "replace_pattern",
    replaceFind: "calm",
    replaceWith: "torn",
    target: "downlink_only",
  },
};

/** Tells the test. */
export const say = (value) => console.log(JSON.stringify(value));

/** One request over a connection of its own. */
export function ask(options = {}) {
  return new Promise((resolve, reject) => {
    const socket = net.connect({ port, host: "127.0.0.1", ...options });
    socket.on("error", reject);
    resolve(askOver(socket));
  });
}

/** One request over a socket that is there; it is closed after the answer. */
export function askOver(socket) {
  return new Promise((resolve, reject) => {
    let text = "";
    socket.setEncoding("latin1");
    socket.on("data", (data) => {
      text += data;
    });
    socket.on("error", reject);
    socket.on("end", () => resolve(text.slice(-4)));
    socket.write("GET / HTTP/1.0\r\n\r\n");
  });
}

/** One request through node:http, over the agent's connections. */
export function askHttp(agent) {
  return new Promise((resolve, reject) => {
    const request = http.get(url, agent === undefined ? {} : { agent }, (answer) => {
      let text = "";
      answer.setEncoding("latin1");
      answer.on("data", (data) => {
        text += data;
      });
      answer.on("end", () => resolve(text));
    });
    request.on("error", reject);
  });
}

export const askFetch = async (fetch) => (await fetch(url)).text();

/** Makes many calls, some at a time, and counts what they gave: `{ calm: 1000 }`. */
export async function tally(count, atOnce, call) {
  const counts = {};
  let left = count;
  const lane = async () => {
    while (left-- > 0) {
      const answer = await call().catch((error) => error.code ?? error.message);
      counts[answer] = (counts[answer] ?? 0) + 1;
    }
  };
  await Promise.all(Array.from({ length: atOnce }, lane));
  return counts;
}

/** What a function throws. */
export function thrown(body) {
  try {
    body();
  } catch (error) {
    return `${error.name}: ${error.message}`;
  }
  return "nothing";
}
