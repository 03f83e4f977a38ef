// Fetches a page.
import { attempt, target } from "./attempt.mjs";

await attempt(async () => (await fetch(`http://127.0.0.1:${target.port}/`)).text());
