// Writes docs/policy.schema.json and the tables of docs/policies.md from the schema. Run as: npm run policies
import { execFileSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { withTables } from "../dist/policy/document.js";
import { policyFileSchema } from "../dist/policy/json-schema.js";

const inRepository = (path) => fileURLToPath(new URL(`../${path}`, import.meta.url));
const page = inRepository("docs/policies.md");
const schema = inRepository("docs/policy.schema.json");
const biome = inRepository("node_modules/@biomejs/biome/bin/biome");

writeFileSync(page, withTables(readFileSync(page, "utf8")));
writeFileSync(schema, `${JSON.stringify(policyFileSchema, null, 2)}\n`);
execFileSync(process.execPath, [biome, "format", "--write", schema], { stdio: ["ignore", "ignore", "inherit"] });
console.log("policies: wrote docs/policies.md and docs/policy.schema.json");
