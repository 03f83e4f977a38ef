// Reads a file by code made of the constructor of an error of import().
import { attempt, target } from "./attempt.mjs";

await attempt(async () => {
  const error = await import("data:text/javascript,throw new Error()").catch((thrown) => thrown);
  const made = error.constructor.constructor("return process")();
  return made.getBuiltinModule("node:fs").readFileSync(target.secret, "utf8");
});
