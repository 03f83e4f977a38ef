/**
 * Notices edits of files, whole ones: editors write in several steps, or put a new file in the old one's place. So their
 * folders are watched, and a file is as good as edited once it has been left alone for a moment.
 */

import { type FSWatcher, statSync, watch } from "node:fs";
import { dirname } from "node:path";

/** Files are read once they have been left alone for this long. */
const SETTLED_AFTER_MS = 15;
/** What is wrong after a step may be right after the next. */
const SURE_AFTER_MS = 60;

/** Watches files until {@link close}. */
export class EditWatch {
  readonly #edited: (sure: boolean) => boolean | Promise<boolean>;
  #watchers: FSWatcher[] = [];
  #paths: readonly string[] = [];
  #seen = "";
  #timer: NodeJS.Timeout | undefined;
  #closed = false;

  /**
   * @param edited - called after an edit; false: what is there now cannot be used, which is asked once more a little
   * later, and then for sure
   */
  constructor(paths: readonly string[], edited: (sure: boolean) => boolean | Promise<boolean>) {
    this.#edited = edited;
    this.watch(paths);
  }

  /** Watches these from now on. */
  watch(paths: readonly string[]): void {
    for (const watcher of this.#watchers) watcher.close();
    if (this.#closed) return;
    this.#paths = paths;
    this.#seen = this.#state();
    this.#watchers = [...new Set(paths.map(dirname))].map((folder) => {
      const watcher = watch(folder, { persistent: false }, () => this.#look());
      watcher.on("error", () => this.#look());
      return watcher;
    });
  }

  close(): void {
    this.#closed = true;
    for (const watcher of this.#watchers) watcher.close();
    clearTimeout(this.#timer);
  }

  /** What tells one writing of the files from another. */
  #state(): string {
    return this.#paths
      .map((path) => {
        const file = statSync(path, { bigint: true, throwIfNoEntry: false });
        return file === undefined ? "" : `${file.dev}:${file.ino}:${file.size}:${file.mtimeNs}`;
      })
      .join(" ");
  }

  #look(): void {
    const state = this.#state();
    if (state === this.#seen) return;
    this.#seen = state;
    this.#askIn(SETTLED_AFTER_MS, false);
  }

  #askIn(ms: number, sure: boolean): void {
    clearTimeout(this.#timer);
    if (this.#closed) return;
    this.#timer = setTimeout(async () => {
      if (!(await this.#edited(sure)) && !sure) this.#askIn(SURE_AFTER_MS, true);
    }, ms);
    this.#timer.unref();
  }
}
