/**
 * The whole terminal, for as long as a table is shown on it: its other buffer, no cursor, keys without Enter. What was
 * there comes back however the process ends, short of SIGKILL, and while it is suspended.
 */

const ENTER = "\u001b[?1049h\u001b[?25l\u001b[?7l\u001b[2J";
const LEAVE = "\u001b[?7h\u001b[?25h\u001b[?1049l";
/** Terminals that know it show the whole frame at once; the others ignore it. */
const BEGIN_FRAME = "\u001b[?2026h\u001b[H";
const END_FRAME = "\u001b[?2026l";
/** Cleared before it is written: after a full line the cursor still stands on its last character. */
const CLEAR_LINE = "\u001b[K";

const CONTROL_C = "\u0003";
const CONTROL_BACKSLASH = "\u001c";
const CONTROL_Z = "\u001a";
const DEFAULT_SIZE = { columns: 80, rows: 24 };

/** What happens on a terminal. */
export interface ScreenEvents {
  /** A key; those that a terminal turns into signals arrive as these signals instead. */
  onKey(key: string): void;
  /** The frame is gone or has another size: draw anew. */
  onChange(): void;
}

/** The terminal at stdout, with the keys of stdin where that is a terminal too. */
export class Screen {
  readonly #events: ScreenEvents;
  #open = false;

  constructor(events: ScreenEvents) {
    this.#events = events;
  }

  /** Takes the terminal. */
  open(): void {
    process.stdout.on("resize", this.#events.onChange);
    process.on("SIGTSTP", this.#suspend);
    process.on("SIGCONT", this.#resume);
    process.on("exit", this.#restore);
    if (process.stdin.isTTY) process.stdin.on("data", this.#onKeys);
    this.#enter();
  }

  /** Gives the terminal back. */
  close(): void {
    this.#restore();
    process.stdout.off("resize", this.#events.onChange);
    process.off("SIGTSTP", this.#suspend);
    process.off("SIGCONT", this.#resume);
    process.off("exit", this.#restore);
    process.stdin.off("data", this.#onKeys);
    process.stdin.pause();
  }

  /** Shows what `paint` makes of the terminal's size: as many lines as it has, none wider than it is. */
  draw(paint: (columns: number, rows: number) => string): void {
    if (!this.#open) return;
    const { columns, rows } = { ...DEFAULT_SIZE, ...size() };
    const lines = paint(columns, rows).replaceAll("\n", `\r\n${CLEAR_LINE}`);
    process.stdout.write(BEGIN_FRAME + CLEAR_LINE + lines + END_FRAME);
  }

  #enter(): void {
    if (process.stdin.isTTY) process.stdin.setRawMode(true);
    process.stdout.write(ENTER);
    this.#open = true;
  }

  #restore = (): void => {
    if (!this.#open) return;
    this.#open = false;
    if (process.stdin.isTTY) process.stdin.setRawMode(false);
    process.stdout.write(LEAVE);
  };

  #suspend = (): void => {
    this.#restore();
    process.kill(process.pid, "SIGSTOP");
  };

  #resume = (): void => {
    this.#restore(); // SIGSTOP came unannounced, and the shell has set its own modes since
    this.#enter();
    this.#events.onChange();
  };

  #onKeys = (bytes: Buffer): void => {
    for (const key of bytes.toString("latin1")) {
      if (key === CONTROL_C) process.kill(process.pid, "SIGINT");
      else if (key === CONTROL_BACKSLASH) process.kill(process.pid, "SIGQUIT");
      else if (key === CONTROL_Z) this.#suspend();
      else this.#events.onKey(key);
    }
  };
}

function size(): { columns: number; rows: number } | undefined {
  const { columns, rows } = process.stdout;
  return columns > 0 && rows > 0 ? { columns, rows } : undefined; // a serial line does not know its size
}
