// Reads a file by the inspector's own session, whose code has no module around it.
import { Session } from "node:inspector";
import { attempt, target } from "./attempt.mjs";

await attempt(() => {
  const session = new Session();
  session.connect();
  const expression = `process.mainModule; process.binding("fs"); process.getBuiltinModule("fs").readFileSync(${JSON.stringify(target.secret)}, "utf8")`;
  return new Promise((resolve, reject) => {
    session.post("Runtime.evaluate", { expression }, (error, answer) => {
      const thrown = answer?.exceptionDetails?.exception?.description ?? error;
      if (thrown) reject(Object.assign(new Error(thrown), { code: /E[A-Z]+(?=:)/.exec(thrown)?.[0] }));
      else resolve(answer.result.value);
    });
  });
});
