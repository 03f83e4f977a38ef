// Writes docs/contract.md from the layout that was compiled. Run as: npm run contract
import { mkdirSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";
import { fileURLToPath } from "node:url";
import { contractDocument, layout } from "../dist/segment/index.js";

const path = fileURLToPath(new URL("../docs/contract.md", import.meta.url));
mkdirSync(dirname(path), { recursive: true });
writeFileSync(path, contractDocument(layout));
console.log("contract: wrote docs/contract.md");
