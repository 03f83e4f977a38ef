/** docs/contract.md, written from the layout, so that the document cannot say anything else than the code. */

import type { Layout, StructLayout } from "./layout.js";

const introduction = `# The contract

This page is generated (\`npm run contract\`) from \`native/contract/\`, where every struct that mishap's processes
share through memory is defined once; a test fails when it differs. The addon exports the same layout, and TypeScript holds
no offset of its own; \`mishap contract\` prints it.

A segment is one shared-memory file of one run: \`/dev/shm/mishap-<uid>-<project id>-<random>\`, mode 0600, made with
\`O_EXCL|O_NOFOLLOW\`, its blocks reserved up front, its sizes shrunk to fit where the file system is short of room. The
header comes first; it says where each region lies. Numbers are little-endian and aligned to their size.

Where a script decides, its mailbox lies beside the segment, \`SEGMENT.mailbox\`, mode 0600: MailboxHeader, its lanes, 256
slots a lane, and a table of 4,096 rows for answers. Whoever runs the script may write all of it, so that nothing in it is
trusted: how long a program waits is in the segment, which the script's host does not have.

Rules:
- **Change.** A change of the layout alters the hash below, and the build fails until the writer (\`src/segment\`), its
  test, this page and the pinned hash have changed with it.
- **Publication.** A row is written under a sequence lock: odd while written. Readers retry a bounded number of times,
  then use no policy for that op and count it. A writer that dies midway harms nobody.
- **Distrust.** Magic, version, hash, and every index and size read from memory are checked. What does not check out
  puts the reader in fallback: calls pass through, a counter says so.
- **Lease.** The owner holds a robust lock, whose death everybody sees at once, and renews a lease of 2 s every 250 ms.
  When either ends, every reader passes calls through. A retired segment stays retired.
- **Full tables** are counted and passed through. A flow's slot is taken over only when its flow is closed, after its
  counters were folded into its policy's stats.
`;

/** A table cell: Markdown's column separator must not end it early. */
function cell(text: string): string {
  return text.replaceAll("|", "\\|");
}

function structSection(struct: StructLayout): string {
  const rows = struct.fields.map(({ offset, name, type, count, size, doc }) => {
    const shape = count > 1 ? `${type}[${count}]` : type;
    return `| ${offset} | ${name} | ${shape} | ${size} | ${cell(doc)} |`;
  });
  return [
    `## ${struct.name}, ${struct.size} bytes`,
    "",
    struct.doc,
    "",
    "| offset | field | type | bytes | what it holds |",
    "|---|---|---|---|---|",
    ...rows,
    "",
  ].join("\n");
}

/** The whole page. */
export function contractDocument(layout: Layout): string {
  const enums = Object.entries(layout.enums).map(([name, values]) => {
    const words = Object.entries(values).map(([word, value]) => `${value} ${word}`);
    return `| ${name} | ${words.join(", ")} |`;
  });
  const constants = Object.entries(layout.constants).map(([name, value]) => `| ${name} | ${value} |`);
  return [
    introduction,
    `ABI version ${layout.abiVersion}, layout hash \`${layout.layoutHash}\`.`,
    "",
    ...layout.structs.map(structSection),
    "## Enums",
    "",
    "| enum | values |",
    "|---|---|",
    ...enums,
    "",
    "## Constants",
    "",
    "| constant | value |",
    "|---|---|",
    ...constants,
    "",
  ].join("\n");
}
