// Opens the inspector to whoever connects.
import inspector from "node:inspector";
import { attempt } from "./attempt.mjs";

await attempt(() => {
  inspector.open(0, "127.0.0.1");
  if (inspector.url() === undefined) throw Object.assign(new Error("no inspector"), { code: "EPERM" });
  return "listening";
});
