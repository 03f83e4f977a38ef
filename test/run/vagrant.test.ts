// The Vagrantfile, as vagrant itself reads it for each of its providers. No machine is made.
import { spawnSync } from "node:child_process";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { beforeAll, describe, expect, it } from "vitest";
import { scratchFolder } from "./cli-harness.js";

const root = fileURLToPath(new URL("../../", import.meta.url));
const folder = scratchFolder();
const env = {
  ...process.env,
  VAGRANT_HOME: join(folder, "home"),
  VAGRANT_DOTFILE_PATH: join(folder, "machines"),
  VAGRANT_CHECKPOINT_DISABLE: "1",
};
const vagrant = (args: readonly string[], provider: string, cwd = root) =>
  spawnSync("vagrant", args, { cwd, encoding: "utf8", env: { ...env, VAGRANT_DEFAULT_PROVIDER: provider } });

const missing = spawnSync("vagrant", ["--version"], { encoding: "utf8", env }).error !== undefined;
/** With the plugin the provider's own settings are looked at too. */
const plugged = !missing && vagrant(["plugin", "list"], "").stdout.includes("vagrant-libvirt");

describe("vagrant validate", () => {
  beforeAll(() => mkdirSync(join(folder, "wrong")));

  it("for VirtualBox, but for the provider's settings: VirtualBox itself is not in Debian", ({ skip }) => {
    if (missing) skip("vagrant is not installed");
    const { status, stdout, stderr } = vagrant(["validate", "--ignore-provider"], "virtualbox");
    expect([status, stdout, stderr]).toEqual([0, expect.stringContaining("validated successfully"), ""]);
  });

  it("for libvirt, with the provider's settings", ({ skip }) => {
    if (missing) skip("vagrant is not installed");
    if (!plugged) skip("vagrant-libvirt is not installed");
    const { status, stdout, stderr } = vagrant(["validate"], "libvirt");
    expect([status, stdout, stderr]).toEqual([0, expect.stringContaining("validated successfully"), ""]);
  });

  it("would find what is wrong there", ({ skip }) => {
    if (missing) skip("vagrant is not installed");
    if (!plugged) skip("vagrant-libvirt is not installed");
    const wrong = 'Vagrant.configure("2") { |c| c.vm.box = "none"; c.vm.provider("libvirt") { |m| m.no_such = 1 } }';
    writeFileSync(join(folder, "wrong/Vagrantfile"), wrong);
    const { status, stderr } = vagrant(["validate"], "libvirt", join(folder, "wrong"));
    expect([status, stderr]).toEqual([1, expect.stringContaining("no_such")]);
  });
});
