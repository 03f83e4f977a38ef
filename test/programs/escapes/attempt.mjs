// What the escapes share. Each gets its targets as JSON in its first argument, tries for real, and says "ESCAPED how" on its
// standard output, or "stopped CODE" with the error that ended it.

/** What may not be reached, and is there: files, a server, a process, all of the same user. */
export const target = JSON.parse(process.argv[2] ?? "{}");

/** Runs an escape: it answers how it escaped, or throws. Then the process is over, whatever it left open. */
export async function attempt(reach) {
  try {
    say(`ESCAPED ${await reach()}`);
  } catch (error) {
    say(`stopped ${error?.code ?? error?.cause?.code ?? error}`);
  }
}

/** Waits for an event of an emitter; an error there is thrown. */
export function once(emitter, event) {
  return new Promise((resolve, reject) => emitter.once("error", reject).once(event, resolve));
}

function say(text) {
  process.stdout.write(`${text}\n`, () => process.exit());
}
