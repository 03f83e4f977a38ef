// Asks a name server.
import { Resolver } from "node:dns/promises";
import { attempt, target } from "./attempt.mjs";

await attempt(async () => {
  const resolver = new Resolver({ timeout: 500, tries: 1 });
  resolver.setServers([`127.0.0.1:${target.dns_port}`]);
  return (await resolver.resolve4("secret.example")).join();
});
