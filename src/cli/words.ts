/** A command that was given as one text. */

const PLAIN = /[A-Za-z0-9_@%+=:,./-]/;
/** A first word of this form sets a variable in a shell. */
const ASSIGNMENT = /^[A-Za-z_][A-Za-z0-9_]*=/;

/**
 * The words of a command: itself where it is plain words and quotes, so that nothing stands between the program and who
 * starts it; else a shell's with the text.
 */
export function commandOf(text: string): string[] {
  return plainWords(text) ?? ["/bin/sh", "-c", text];
}

/** A command as a shell takes it. */
export function textOf(command: readonly string[]): string {
  const isPlain = (word: string, at: number): boolean =>
    /^[A-Za-z0-9_@%+=:,./-]+$/.test(word) && !(at === 0 && ASSIGNMENT.test(word));
  return command.map((word, at) => (isPlain(word, at) ? word : `'${word.replaceAll("'", "'\\''")}'`)).join(" ");
}

/** The words of a text that a shell would take just so; undefined where it would do anything else with it. */
function plainWords(text: string): string[] | undefined {
  if (ASSIGNMENT.test(text.trimStart())) return undefined;
  const words: string[] = [];
  let word: string | undefined;
  for (let at = 0; at < text.length; at++) {
    const character = text[at] ?? "";
    if (character === " " || character === "\t") {
      if (word !== undefined) words.push(word);
      word = undefined;
    } else if (character === "'" || character === '"') {
      const end = text.indexOf(character, at + 1);
      const quoted = text.slice(at + 1, end);
      if (end < 0 || (character === '"' && /[$`\\]/.test(quoted))) return undefined;
      word = (word ?? "") + quoted;
      at = end;
    } else if (PLAIN.test(character) || character > "\u007f") {
      word = (word ?? "") + character;
    } else {
      return undefined;
    }
  }
  if (word !== undefined) words.push(word);
  return words.length > 0 && words[0] !== "" ? words : undefined;
}
