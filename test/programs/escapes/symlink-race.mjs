// Opens a name over and over that another process turns from a granted file to one that is not, and back.
import { readFileSync } from "node:fs";
import { attempt, target } from "./attempt.mjs";

await attempt(() => {
  for (const end = Date.now() + 1000; Date.now() < end; ) {
    try {
      const text = readFileSync(target.racing, "utf8");
      if (text.includes("secret")) return text;
    } catch (error) {
      if (error.code !== "EACCES" && error.code !== "ENOENT") throw error;
    }
  }
  throw Object.assign(new Error("only what is granted was read"), { code: "EACCES" });
});
