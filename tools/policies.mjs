// Writes docs/policy.schema.json and the tables of docs/policies.md from the schema. Run as: npm run policies
import { readFileSync, writeFileSync } from "node:fs";
import { withTables } from "../dist/policy/document.js";
import { policyFileSchema } from "../dist/policy/json-schema.js";

const page = new URL("../docs/policies.md", import.meta.url);
writeFileSync(page, withTables(readFileSync(page, "utf8")));
writeFileSync(new URL("../docs/policy.schema.json", import.meta.url), `${JSON.stringify(policyFileSchema, null, 2)}\n`);
console.log("policies: wrote docs/policies.md and docs/policy.schema.json");
