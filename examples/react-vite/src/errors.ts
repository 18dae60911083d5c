/** Failures in words for the person in front of the page. */
import OpenAI from "openai";
import type { Config } from "./config";

/** An answer other than 2xx to a plain fetch. */
export class HttpError extends Error {
  retryAfter: string | null = null;

  static async from(reply: Response): Promise<HttpError> {
    const told = (await reply.json().catch(() => ({}))) as { message?: string };
    const error = new HttpError(told.message ?? `The gateway answered with status ${reply.status}.`);
    error.retryAfter = reply.headers.get("retry-after");
    return error;
  }
}

/** The connection ended before the answer did. */
export class AnswerCut extends Error {
  constructor() {
    super("The answer was cut off: the connection ended too early.");
  }
}

export class Unreachable extends Error {
  constructor(what: string, address: string) {
    super(`${what} at ${address} cannot be reached. Check the connection and try again.`);
  }
}

/** What GET /v1/cors says of the page that asks. */
interface Verdict {
  /** As the browser sent it; null when the page and the gateway share their origin. */
  origin: string | null;
  allowed: boolean;
  message: string;
}

/**
 * A browser says only "Failed to fetch", whether the network is down or the gateway does not list
 * this page's origin. But one of its answers every page may read, and that one says which it was.
 */
export async function whyNoAnswer(config: Config): Promise<Error> {
  let verdict: Verdict;
  try {
    const reply = await fetch(`${config.baseUrl}/v1/cors`);
    if (!reply.ok) return await HttpError.from(reply);
    verdict = (await reply.json()) as Verdict;
  } catch {
    return new Unreachable("The gateway", config.baseUrl);
  }
  if (verdict.allowed || verdict.origin === null) {
    return new Error(
      `The gateway at ${config.baseUrl} allows this page, but the connection to it failed. ` +
        "Check the network and try again.",
    );
  }
  return new Error(
    `The gateway does not answer this page. ${verdict.message}\n` +
      `For whoever runs the gateway: weir cors check ${verdict.origin}`,
  );
}

export function explain(error: unknown): string {
  if (error instanceof OpenAI.APIError) {
    // The gateway's own words. Inside a stream there is no status, and no header either.
    const told = (error.error as { message?: unknown } | undefined)?.message;
    const words = typeof told === "string" && told ? told : error.message;
    return withWait(words, error.headers?.get("retry-after"));
  }
  if (error instanceof HttpError) return withWait(error.message, error.retryAfter);
  return error instanceof Error ? error.message : String(error);
}

/** How long to wait, exactly, in the place of a "Try again later." */
function withWait(words: string, retryAfter: string | null | undefined): string {
  const seconds = Number(retryAfter ?? "");
  if (!(seconds > 0)) return words;
  const wait =
    seconds < 90
      ? `${seconds} ${seconds === 1 ? "second" : "seconds"}`
      : `${Math.round(seconds / 60)} minutes`;
  return `${words.replace(/ Try again[^.]*\.$/, "")} Try again in ${wait}.`;
}
