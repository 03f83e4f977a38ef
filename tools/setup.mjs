// Makes a Debian 12 machine ready: system packages, npm packages, the native build, the TypeScript build; each only
// when it is missing or out of date, so that a second call is over in a moment. It runs before node_modules exists and
// therefore uses nothing but Node. Called as: node tools/setup.mjs demo | test
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { chmodSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
process.chdir(root);

const packages = {
  demo: ["cmake", "g++", "make"],
  // biome-ignore format: one line a purpose reads better
  test: [
    "clang-14", "doctest-dev", "libclang-rt-14-dev",
    "binutils", "iproute2", "openssl", "procps", "strace", "valgrind",
    "bpftool", "golang-go", "libbpf-dev", "liburing-dev", "pkg-config", "sudo", "util-linux",
    "curl", "default-jdk-headless", "fish", "libpython3.11-testsuite", "python3", "wget", "zsh",
    "memcached", "nginx", "postgresql", "postgresql-client", "redis-server", "redis-tools", "wrk",
    "vagrant", "vagrant-libvirt",
  ],
};
// The tests start servers of their own; those that Debian's packages would start at boot stay off.
const services = ["memcached", "nginx", "postgresql", "redis-server"];

function fail(message) {
  console.error(`setup: ${message}`);
  process.exit(1);
}

/** Runs a command with its output on the terminal; ends the set-up with one sentence when it fails. */
function run(what, command, args) {
  const { status, error } = spawnSync(command, args, { stdio: ["ignore", "inherit", "inherit"] });
  if (status !== 0) fail(`${what} failed: ${error ? error.message : `${command} ${args.join(" ")}`}`);
}

function missingPackages(wanted) {
  // biome-ignore lint/suspicious/noTemplateCurlyInString: these are dpkg-query's placeholders
  const format = "${Package} ${db:Status-Status}\n";
  const { error, stdout } = spawnSync("dpkg-query", ["-W", "-f", format, ...wanted], { encoding: "utf8" });
  if (error) {
    console.error(`setup: no dpkg here, so see to it that these Debian packages' like are there: ${wanted.join(" ")}`);
    return [];
  }
  const installed = new Set(
    stdout
      .split("\n")
      .filter((line) => line.endsWith(" installed"))
      .map((line) => line.split(" ")[0]),
  );
  return wanted.filter((name) => !installed.has(name));
}

/** Installs through apt, quietly, without starting the services that some packages bring. */
function installPackages(missing) {
  const asRoot = process.getuid() === 0;
  if (!asRoot && spawnSync("sudo", ["-n", "true"], { stdio: "ignore" }).status !== 0) {
    fail(`needs system packages; run: sudo apt-get install --no-install-recommends ${missing.join(" ")}`);
  }
  console.log(`setup: installing system packages through apt: ${missing.join(" ")}`);
  const newServices = services.filter((name) => missing.includes(name));
  const script = `
    export DEBIAN_FRONTEND=noninteractive
    policy=/usr/sbin/policy-rc.d
    if [ ! -e $policy ]; then
      trap 'rm -f $policy' EXIT
      trap 'exit 130' INT TERM
      printf '#!/bin/sh\\nexit 101\\n' >$policy && chmod 755 $policy || exit 1
    fi
    install() { apt-get install -qq -y --no-install-recommends ${missing.join(" ")} </dev/null; }
    install >/dev/null 2>&1 || { apt-get update -qq >/dev/null && install >/dev/null; } || exit 1
    if [ -d /run/systemd/system ]; then systemctl disable --quiet ${newServices.join(" ")} 2>/dev/null; fi
    exit 0`;
  const [command, ...args] = [...(asRoot ? [] : ["sudo", "-n"]), "sh", "-c", script];
  const { status } = spawnSync(command, args, { stdio: ["ignore", "inherit", "inherit"] });
  if (status !== 0) fail(`apt could not install these packages: ${missing.join(" ")}`);
}

/** A hash of the files' names and contents: what a build was made from. */
function fingerprint(paths) {
  const hash = createHash("sha256");
  const add = (path) => {
    if (!existsSync(path)) return;
    if (statSync(path).isDirectory()) {
      for (const name of readdirSync(path).sort()) {
        if (path !== "native/fuzz" && name !== "test") add(join(path, name));
      }
    } else {
      hash.update(`${path}\0`).update(readFileSync(path)).update("\0");
    }
  };
  for (const path of paths) add(path);
  return hash.digest("hex");
}

/** Calls build() unless the output is there and was made from the same inputs. */
function upToDate(name, inputs, output, build) {
  const stamp = join("build", `${name}.stamp`);
  const made = fingerprint(inputs);
  if (existsSync(output) && existsSync(stamp) && readFileSync(stamp, "utf8") === made) return;
  build();
  mkdirSync("build", { recursive: true });
  writeFileSync(stamp, made);
}

const level = process.argv[2];
if (level !== "demo" && level !== "test") fail("say what to set up for: node tools/setup.mjs demo, or test");

const missing = missingPackages(level === "test" ? [...packages.demo, ...packages.test] : packages.demo);
if (missing.length > 0) installPackages(missing);

const installedLock = "node_modules/.package-lock.json";
if (!existsSync(installedLock) || statSync(installedLock).mtimeMs < statSync("package-lock.json").mtimeMs) {
  console.log("setup: installing npm packages");
  // Not npm ci: it wants biome's packages for every platform in the lock file, and a registry need not have them all.
  // With --no-save the lock file still decides the versions and stays as it is. No install scripts: the only one that
  // matters is our own, and the native build comes next.
  const flags = ["--no-save", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"];
  run("installing npm packages", "npm", ["install", ...flags]);
}

// With libbpf the kernel's side is built too.
const libbpf = ["/usr/include/bpf/libbpf_version.h", "/usr/sbin/bpftool"];
const nativeInputs = ["bpf", "native", "CMakeLists.txt", "package-lock.json", ...libbpf];
upToDate("native", nativeInputs, "build/Release/mishap.node", () => {
  console.log("setup: building the native parts");
  // CMake refuses a build folder that was copied or moved here with the sources.
  const cache = "build/CMakeCache.txt";
  if (existsSync(cache) && !readFileSync(cache, "utf8").includes(`CMAKE_HOME_DIRECTORY:INTERNAL=${root}\n`)) {
    rmSync("build", { recursive: true });
  }
  const cmakeJs = "node_modules/cmake-js/bin/cmake-js";
  for (const step of ["configure", "build"]) {
    run("the native build", process.execPath, [cmakeJs, step, "--parallel", "2", "--log-level", "error"]);
  }
});

upToDate("typescript", ["src", "tsconfig.json", "package-lock.json"], "dist", () => {
  console.log("setup: building the TypeScript parts");
  rmSync("dist", { recursive: true, force: true });
  run("the TypeScript build", process.execPath, ["node_modules/typescript/bin/tsc", "-p", "tsconfig.json"]);
  chmodSync("dist/cli/main.js", 0o755); // npm does this where it installs the command; here it stays in its folder
});
