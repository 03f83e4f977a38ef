// A virtual machine with Debian 12's stock kernel, emulated, without a network: builds it, runs `mishap doctor` and the tests
// of the kernel's side in it, compares mishap's links with netem's, and closes with "N passed, N failed, N skipped". Nothing
// is left behind. Needs root.
//
//   npm run vm                                 everything
//   npm run vm -- test/run/relay.test.ts       of the tests these only
//   npm run vm -- --keep                       leaves the guest in its folder, and says which
//   npm run vm -- --image=FOLDER               takes a guest that was left
//   npm run vm -- --command='COMMAND'          nothing but this command of a shell, in the checkout
//   npm run vm -- --cpus=2 --slow=10 …         processors of the guest, and how much more patience its tests have
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { boot } from "./boot.mjs";
import { makeImage, removeFolder } from "./image.mjs";

const checkout = fileURLToPath(new URL("../..", import.meta.url));
const { values: options, positionals: only } = parseArgs({
  allowPositionals: true,
  options: {
    keep: { type: "boolean", default: false },
    image: { type: "string" },
    command: { type: "string" },
    cpus: { type: "string", default: "2" },
    slow: { type: "string", default: "10" },
    "patience-s": { type: "string", default: "5400" },
  },
});

const TOOLS = { mmdebstrap: "mmdebstrap", "qemu-system-x86_64": "qemu-system-x86", mke2fs: "e2fsprogs" };

function fail(message) {
  console.error(`vm: ${message}`);
  process.exit(1);
}

const missing = Object.entries(TOOLS).filter(([tool]) => spawnSync(tool, ["--version"]).error !== undefined);
if (missing.length > 0) {
  const names = missing.map(([, name]) => name).join(" ");
  fail(`needs Debian packages; run: sudo apt-get install --no-install-recommends ${names}`);
}
if (process.getuid() !== 0) fail("needs root, to make the files of the guest's disk");

/** What the guest is given compiled, so that it needs no compiler for BPF. */
function compile(results) {
  const { status, error, stderr } = spawnSync(join(checkout, "test/vm/compile.sh"), [results], { encoding: "utf8" });
  if (status !== 0) throw new Error(`what the guest is given could not be compiled: ${error?.message ?? stderr}`);
}

/** Does everything in a folder; the guest's own account of it. */
async function run(folder) {
  const results = join(folder, "results");
  removeFolder(results);
  mkdirSync(results);
  compile(results);
  writeFileSync(
    join(results, "order.json"),
    JSON.stringify({ only, command: options.command, slow: Number(options.slow) }),
  );
  if (!existsSync(join(folder, "disk"))) {
    console.log("vm: making the guest");
    makeImage(folder);
  }
  console.log("vm: booting it");
  const patienceS = Number(options["patience-s"]);
  await boot({
    image: folder,
    checkout,
    results,
    cpus: Number(options.cpus),
    patienceS,
    show: (line) => console.log(line),
  });
  const file = join(results, "results.json");
  if (!existsSync(file)) throw new Error("the guest left no results");
  return JSON.parse(readFileSync(file, "utf8"));
}

const kept = options.image ?? (options.keep ? mkdtempSync(join(tmpdir(), "mishap-vm-")) : undefined);
const folder = kept ?? mkdtempSync(join(tmpdir(), "mishap-vm-"));
const tidy = () => {
  if (kept === undefined) removeFolder(folder);
};
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.on(signal, () => process.exit(1)); // a second one while tidying, too
process.once("exit", tidy);
try {
  const { passed, failed, skipped, skips, failures, tables, done } = await run(folder);
  for (const table of tables) console.log(`\n${table}`);
  if (skips.length > 0) console.log(`\nSkipped:\n${skips.map((skip) => `  ${skip}`).join("\n")}`);
  if (failures.length > 0) console.log(`\nFailed: ${failures.join("; ")}`);
  if (!done) console.log("\nFailed: the guest did not come to its end");
  if (kept !== undefined) console.log(`\nThe guest is in ${kept}`);
  console.log(`\n${passed} passed, ${failed + (done ? 0 : 1)} failed, ${skipped} skipped`);
  process.exitCode = done && failed === 0 && passed > 0 ? 0 : 1;
} catch (error) {
  console.error(`vm: ${error.message}`);
  process.exitCode = 1;
}
