/**
 * A client that keeps its promises on a bad network: every attempt has a time limit, what may be tried again is, after
 * pauses that double, and an order is placed once however often it had to be sent.
 */

import { randomUUID } from "node:crypto";
import { setTimeout as pause } from "node:timers/promises";
import { type Dispatcher, request } from "undici";

export interface ClientOptions {
  /** Such as `http://orders.internal:8080`. */
  readonly origin: string;
  /** Attempts after the first. */
  readonly retries?: number;
  /** Of one attempt, to the last byte of its answer. */
  readonly timeoutMs?: number;
  /** Before the first retry; each further one waits twice as long, up to a second. */
  readonly backoffMs?: number;
  readonly dispatcher?: Dispatcher;
}

/** The request was given up; `cause` is what ended its last attempt. */
export class UnreachableError extends Error {
  override readonly name = "UnreachableError";
  readonly attempts: number;

  constructor(url: string, attempts: number, cause: unknown) {
    super(`${url}: not answered in ${attempts} attempts`, { cause });
    this.attempts = attempts;
  }
}

const LONGEST_PAUSE_MS = 1000;
/** Answers of something in between that could not reach the service. */
const PASSING = [502, 503, 504];

export class RetryingClient {
  readonly #options: Required<Omit<ClientOptions, "dispatcher">> & Pick<ClientOptions, "dispatcher">;

  constructor(options: ClientOptions) {
    this.#options = { retries: 4, timeoutMs: 5000, backoffMs: 50, ...options };
  }

  /** Gets a text. */
  get(path: string): Promise<string> {
    return this.#try("GET", path, {});
  }

  /** Places an order. All attempts carry one key, by which the service knows an order that it has. */
  order(path: string, body: string): Promise<string> {
    return this.#try("POST", path, { headers: { "idempotency-key": randomUUID() }, body });
  }

  async #try(
    method: "GET" | "POST",
    path: string,
    given: { headers?: Record<string, string>; body?: string },
  ): Promise<string> {
    const { origin, retries, timeoutMs, dispatcher } = this.#options;
    const url = `${origin}${path}`;
    for (let attempt = 0; ; attempt++) {
      try {
        const signal = AbortSignal.timeout(timeoutMs);
        const answer = await request(url, { ...given, method, signal, ...(dispatcher && { dispatcher }) });
        const text = await answer.body.text();
        if (answer.statusCode < 400) return text;
        throw new StatusError(answer.statusCode);
      } catch (error) {
        if (attempt >= retries || !isPassing(error)) throw new UnreachableError(url, attempt + 1, error);
      }
      await pause(this.#pauseMs(attempt));
    }
  }

  /** Doubling, and somewhere in the upper half, so that clients that failed together do not come back together. */
  #pauseMs(attempt: number): number {
    const longest = Math.min(this.#options.backoffMs * 2 ** attempt, LONGEST_PAUSE_MS);
    return longest * (0.5 + Math.random() / 2);
  }
}

class StatusError extends Error {
  override readonly name = "StatusError";
  readonly status: number;

  constructor(status: number) {
    super(`the service answered ${status}`);
    this.status = status;
  }
}

/** Whether another attempt may fare better: a name that is not there stays so, and so does what the service refuses. */
function isPassing(error: unknown): boolean {
  if (error instanceof StatusError) return PASSING.includes(error.status);
  return !(error instanceof Error && "code" in error && error.code === "ENOTFOUND");
}
