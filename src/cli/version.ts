/** This package's version, read without loading anything else. */

import { readFileSync } from "node:fs";

const content: unknown = JSON.parse(readFileSync(new URL("../../package.json", import.meta.url), "utf8"));

/** As package.json has it. */
export const version: string =
  typeof content === "object" && content !== null && "version" in content ? String(content.version) : "unknown";
