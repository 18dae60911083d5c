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

/**
 * A browser says only "Failed to fetch", whether the network is down or the gateway does not list
 * this page's origin. But one of its answers every page may read; if that one arrives, it is the
 * origin.
 */
export async function whyNoAnswer(config: Config): Promise<Error> {
  try {
    await fetch(`${config.baseUrl}/v1/cors`);
  } catch {
    return new Unreachable("The gateway", config.baseUrl);
  }
  return new Error(
    `The gateway is there, but does not answer pages from ${location.origin}. ` +
      "Whoever runs it can add this origin to its allowed origins.",
  );
}

export function explain(error: unknown, config: Config): string {
  // The origin was fine when the token was fetched: it is the connection.
  if (error instanceof OpenAI.APIConnectionError) {
    return new Unreachable("The gateway", config.baseUrl).message;
  }
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
