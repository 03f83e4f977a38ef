/** What a script decided when it was tried: for people in columns, for machines as it is. */

import { alignColumns, formatPlural } from "../report/format.js";
import type { Asked, Reply, Said } from "./questions.js";

/** Decisions of one try, in their order. */
export class Trial {
  readonly #decisions: { at_ms: number; flow?: string; asked: string; answer: Reply["answer"] }[] = [];
  readonly #log: string[] = [];
  readonly #metrics = new Map<string, number>();
  #questions = 0;
  #problems = 0;

  add(question: Asked, { answer, problem, said }: Reply): void {
    this.say(said);
    if (question.kind !== "closed") this.#questions++;
    if (problem !== undefined) this.#problems++;
    if (Object.keys(answer).length === 0) return;
    const flow = question.kind === "tick" ? {} : { flow: question.flow.id };
    this.#decisions.push({ at_ms: question.atMs, ...flow, asked: askedOf(question), answer });
  }

  /** Takes what the script said and counted. */
  say(said: readonly Said[]): void {
    for (const each of said) {
      if (each.kind === "log") this.#log.push(each.text);
      else this.#metrics.set(each.name, each.value + (each.kind === "count" ? (this.#metrics.get(each.name) ?? 0) : 0));
    }
  }

  json(): object {
    const metrics = Object.fromEntries(this.#metrics);
    const totals = { questions: this.#questions, answered: this.#decisions.length, problems: this.#problems };
    return { ...totals, metrics, log: this.#log, decisions: this.#decisions };
  }

  lines(): string[] {
    const rows = this.#decisions.map(({ at_ms, flow, asked, answer }) => {
      return [
        `${at_ms}ms`,
        flow ?? "",
        asked,
        JSON.stringify(Object.keys(answer).join() === "fields" ? answer.fields : answer),
      ];
    });
    return [
      ...alignColumns(rows),
      ...this.#log.map((text) => `log: ${text}`),
      ...[...this.#metrics].map(([name, value]) => `${name}: ${value}`),
      `${formatPlural(this.#questions, "question")} · ${this.#decisions.length} answered · ${formatPlural(this.#problems, "problem")}`,
    ];
  }
}

function askedOf(question: Asked): string {
  return question.kind === "op" ? `${question.op.kind} #${question.op.unit}` : question.kind;
}
