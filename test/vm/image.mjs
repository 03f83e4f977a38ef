// The guest's disk: a Debian 12 with its stock kernel, made by mmdebstrap, and in it the Node that runs this. What it comes
// to is a folder with `vmlinuz`, `initrd` and `disk`, from which boot.mjs starts as often as wanted.
import { spawnSync } from "node:child_process";
import { chmodSync, copyFileSync, readdirSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

// biome-ignore format: one line a purpose reads better
const packages = [
  "linux-image-amd64", "initramfs-tools", "kmod", "udev", "zstd",
  "libbpf1", "libstdc++6",                                                  // what mishap and Node are linked with
  "bpftool", "curl", "iproute2", "procps", "python3", "redis-server", "sudo", "util-linux", // what the tests call
  "g++", "gcc", "golang-go", "libc6-dev", "liburing-dev",                   // what they build their programs with
];
// Nobody reads them there.
const left = ["doc", "info", "locale", "man"].map((name) => `--dpkgopt=path-exclude=/usr/share/${name}/*`);
const DISK_BYTES = 4 * 2 ** 30; // as much of it as is written takes room

function run(command, args) {
  const { status, error, stdout, stderr } = spawnSync(command, args, { encoding: "utf8", maxBuffer: 2 ** 28 });
  if (status !== 0) throw new Error(`${command} failed: ${error?.message ?? `${stdout}${stderr}`.trim()}`);
}

/** Removes a folder, and nothing that somebody mounted in it. */
export function removeFolder(folder) {
  run("rm", ["-rf", "--one-file-system", folder]);
}

/** Makes the guest in an empty folder: about two minutes, and 200 MB from Debian's mirror. */
export function makeImage(folder) {
  const root = join(folder, "root");
  const options = [
    "--mode=root",
    "--variant=minbase",
    "--format=directory",
    '--aptopt=APT::Install-Recommends "false"',
  ];
  run("mmdebstrap", [...options, ...left, `--include=${packages.join(",")}`, "bookworm", root]);
  copyFileSync(process.execPath, join(root, "usr/local/bin/node"));
  const init = join(root, "usr/sbin/mishap-init");
  copyFileSync(fileURLToPath(new URL("init.sh", import.meta.url)), init);
  chmodSync(init, 0o755);
  for (const name of ["vmlinuz", "initrd.img"]) {
    const [found] = readdirSync(join(root, "boot")).filter((file) => file.startsWith(`${name}-`));
    copyFileSync(join(root, "boot", found), join(folder, name));
  }
  const disk = join(folder, "disk");
  writeFileSync(disk, "");
  truncateSync(disk, DISK_BYTES);
  run("mke2fs", ["-q", "-F", "-t", "ext4", "-O", "^has_journal", "-E", "lazy_itable_init=1", "-d", root, disk]);
  removeFolder(root);
}
