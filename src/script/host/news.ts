/** What came of answering programs, gathered: a script that is wrong is wrong thousands of times a second. */

import { type News, type NumberedAnswer, problemText, type Reply, type Said } from "../questions.js";

const EVERY_MS = 100;
/** What is said in that time beyond this is left out. */
const MAX_SAID = 500;
const MAX_PROBLEMS = 50;
/** What one letter holds of them; the rest comes with the next. */
const MAX_ANSWERS = 1000;

/** Gathers replies, and sends what is worth telling, ten times a second at most. */
export class Newsletter {
  readonly #publish: (news: News) => void;
  readonly #problems = new Map<string, News["problems"][number]>();
  #said: Said[] = [];
  #answers: NumberedAnswer[] = [];
  #sentMs = 0;

  constructor(publish: (news: News) => void) {
    this.#publish = publish;
  }

  add({ problem, said }: Reply): void {
    if (problem !== undefined) {
      const key = problemText(problem);
      const known = this.#problems.get(key);
      if (known !== undefined || this.#problems.size < MAX_PROBLEMS)
        this.#problems.set(key, { problem, times: (known?.times ?? 0) + 1 });
    }
    if (this.#said.length < MAX_SAID) this.#said.push(...said);
  }

  /** An answer was given for the first time. */
  addAnswer(answer: NumberedAnswer): void {
    this.#answers.push(answer);
  }

  /** Sends what there is, unless something was sent just now and it is no letter full. */
  sendSometimes(): void {
    const answers = this.#answers.length;
    if (this.#problems.size + this.#said.length + answers === 0) return;
    if (answers >= MAX_ANSWERS || performance.now() - this.#sentMs >= EVERY_MS) this.send();
  }

  /** Sends what there is, though it may be nothing. */
  send(): void {
    this.#sentMs = performance.now();
    this.#publish(this.take());
  }

  /** What there is, or as much as a letter holds, for whoever sends it another way. */
  take(): News {
    const answers = this.#answers.splice(0, MAX_ANSWERS);
    const news = { problems: [...this.#problems.values()], said: this.#said, answers };
    this.#problems.clear();
    this.#said = [];
    return news;
  }
}
