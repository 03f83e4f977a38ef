// One run of the guest under qemu, emulated: no hardware's help, no network. The checkout comes over 9p and cannot be written;
// what is written to the disk is forgotten at the end.
import { spawn } from "node:child_process";
import { realpathSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";

const MEMORY_MB = 3072;

const share = (name, path, more = "") => [
  "-virtfs",
  `local,path=${path},mount_tag=${name},security_model=none,multidevs=remap${more}`,
];

/**
 * Boots the guest and waits until it has switched itself off; `show` gets each line of its console.
 *
 * @throws {Error} where it did not within `patienceS`
 */
export async function boot({ image, checkout, results, cpus, patienceS, show }) {
  // biome-ignore format: one line a purpose reads better
  const args = [
    "-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", `${cpus}`, "-m", `${MEMORY_MB}`,
    "-nodefaults", "-nographic", "-no-reboot", "-serial", "stdio",
    "-kernel", join(image, "vmlinuz"), "-initrd", join(image, "initrd.img"),
    "-append", "root=/dev/vda rw console=ttyS0 quiet panic=-1 softlockup_panic=1 init=/usr/sbin/mishap-init",
    "-drive", `file=${join(image, "disk")},if=virtio,format=raw,cache=unsafe,snapshot=on`,
    ...share("checkout", checkout, ",readonly=on"),
    ...share("node_modules", realpathSync(join(checkout, "node_modules")), ",readonly=on"),
    ...share("results", results),
  ];
  const guest = spawn("qemu-system-x86_64", args, { stdio: ["ignore", "pipe", "pipe"] });
  let late = false;
  const patience = setTimeout(() => {
    late = true;
    guest.kill("SIGKILL");
  }, patienceS * 1000);
  const end = () => guest.kill("SIGKILL");
  process.once("exit", end);
  for (const stream of [guest.stdout, guest.stderr]) createInterface({ input: stream }).on("line", show);
  const status = await new Promise((resolve, reject) => guest.on("error", reject).on("close", resolve));
  clearTimeout(patience);
  process.off("exit", end);
  if (late) throw new Error(`the guest was not done after ${patienceS} s`);
  if (status !== 0) throw new Error(`qemu ended with ${status}`);
}
