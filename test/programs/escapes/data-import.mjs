// Reads a file by a module that is a data: URL.
import { attempt, target } from "./attempt.mjs";

await attempt(async () => {
  const code = `import { readFileSync } from "node:fs"; export default readFileSync(${JSON.stringify(target.secret)}, "utf8");`;
  return (await import(`data:text/javascript,${encodeURIComponent(code)}`)).default;
});
