/**
 * The browser's half: a token that renews itself, one `fetch` for every SDK, and a reader of streams.
 * It has no dependency, holds no secret, and stores nothing.
 */
import { readEvents } from "./events.js";
import { WeirError, type ErrorEnvelope } from "./error.js";

export { readEvents, WeirError };
export type { ErrorEnvelope };

/** What a token route answers: mint, /api/behest/token, /v1/token or a route of your own server. */
export interface TokenReply {
  token: string;
  /** Seconds for which the token lives, from when the reply was asked for. Decides if it is there. */
  ttl?: number;
  /** Unix seconds, by the server's clock. */
  expiresAt?: number;
  /** Sent as X-Session-Id, which groups usage. */
  sessionId?: string;
}

export interface ClientOptions {
  /** The gateway's address, with or without /v1 at its end. */
  baseUrl: string;
  /** Fetches a token for the user who is signed in: from your server, or from the gateway. */
  getToken: () => Promise<TokenReply>;
  /** In the place of the global `fetch`. */
  fetch?: typeof fetch;
}

/** One piece of a streamed answer, as OpenAI's API has it. */
export interface ChatCompletionChunk {
  id: string;
  model: string;
  choices: {
    index: number;
    delta: { role?: string; content?: string | null; refusal?: string | null; tool_calls?: unknown[] };
    finish_reason: string | null;
  }[];
  usage?: { prompt_tokens: number; completion_tokens: number; total_tokens: number; cost_usd?: number } | null;
}

/** A chat completion request, as OpenAI's API has it. Without `model` the project's default answers. */
export interface ChatRequest {
  messages: { role: string; content: unknown; [member: string]: unknown }[];
  model?: string;
  [field: string]: unknown;
}

export interface ChatInit {
  /** Stops the answer, here and at the provider. */
  signal?: AbortSignal;
  /** Keeps the conversation at the gateway, which puts what was said before the new message. */
  threadId?: string;
  headers?: Record<string, string>;
}

export interface Client {
  /** The gateway's address, without /v1. */
  readonly baseUrl: string;
  /** Returns a token that is good for a while yet; with `true`, another one than the last. */
  token(renew?: boolean): Promise<TokenReply>;
  /**
   * A `fetch` for every SDK that takes one. It sends the token to the gateway, and to nobody else;
   * names each chat, so that an abort also stops the provider; and fetches another token, once,
   * if one is refused.
   */
  fetch: typeof fetch;
  /** Streams an answer. Throws WeirError: refused, failed on the way, or cut off ("stream_cut"). */
  chat(body: ChatRequest, init?: ChatInit): AsyncIterable<ChatCompletionChunk>;
  /** Reads JSON from a route of the gateway, "/v1/me" say. Throws WeirError. */
  json<T>(path: string, init?: RequestInit): Promise<T>;
}

const MARGIN_S = 60;
const ADVISE_EVERY_MS = 60_000;
const CHAT = "/v1/chat/completions";
const REQUEST_ID = "X-Client-Request-Id";

export function createClient(options: ClientOptions): Client {
  const base = options.baseUrl.replace(/\/+$/, "").replace(/\/v1$/, "");
  const realFetch: typeof fetch = (...call) => (options.fetch ?? fetch)(...call);
  let held: TokenReply | undefined;
  let fetchedAt = 0;
  let pending: Promise<TokenReply> | undefined;
  let advisedAt = 0;

  function isGood(reply: TokenReply): boolean {
    // By this machine's clock alone, which also runs while a laptop sleeps. One that was set back
    // says nothing any more.
    const ageS = (Date.now() - fetchedAt) / 1000;
    const ttl = reply.ttl ?? (reply.expiresAt === undefined ? Infinity : reply.expiresAt - fetchedAt / 1000);
    return ageS >= 0 && ageS < Math.max(ttl - MARGIN_S, ttl / 2);
  }

  async function renew(): Promise<TokenReply> {
    try {
      const asked = Date.now();
      const reply = await options.getToken();
      if (!reply?.token) throw new WeirError("getToken() has to return { token }.", { code: "no_token" });
      fetchedAt = asked;
      return (held = reply);
    } catch (error) {
      throw await why(error);
    } finally {
      pending = undefined;
    }
  }

  /** `refused`: the token that the gateway did not take. */
  async function current(refused?: string): Promise<TokenReply> {
    if (held && held.token !== refused && isGood(held)) return held;
    return (pending ??= renew()); // callers at the same time share one
  }

  /**
   * Returns what to throw in the place of a failed fetch. A browser says "Failed to fetch" whether
   * the network is down or the gateway does not list this page's origin; GET /v1/cors, which every
   * page may read, knows which.
   */
  async function why(error: unknown): Promise<unknown> {
    if (!(error instanceof TypeError)) return error;
    let verdict: { allowed: boolean; origin: string | null; message: string };
    try {
      verdict = await (await realFetch(`${base}/v1/cors`)).json();
    } catch {
      return error;
    }
    if (verdict.allowed !== false || !verdict.origin) return error;
    if (Date.now() - advisedAt > ADVISE_EVERY_MS) {
      advisedAt = Date.now();
      console.error(`Weir: ${verdict.message} To allow it: weir origins add ${verdict.origin}`);
    }
    return new WeirError(verdict.message, { code: "origin_not_allowed", cause: error });
  }

  async function send(input: RequestInfo | URL, init: RequestInit = {}): Promise<Response> {
    const given = input instanceof Request ? input : undefined;
    const url = given?.url ?? String(input);
    if (!url.startsWith(`${base}/`)) return realFetch(input, init);
    const isChat = (init.method ?? given?.method) === "POST" && new URL(url).pathname.endsWith(CHAT);
    const signal = init.signal ?? given?.signal;

    /** Sends it; a Request's body can be read once, so that all but the last attempt get a copy. */
    async function attempt(source: RequestInfo | URL, { token, sessionId }: TokenReply) {
      const headers = new Headers(init.headers ?? given?.headers);
      headers.set("Authorization", `Bearer ${token}`);
      if (sessionId && !headers.has("X-Session-Id")) headers.set("X-Session-Id", sessionId);
      if (isChat && !headers.has(REQUEST_ID)) headers.set(REQUEST_ID, newRequestId());
      // On AWS nobody tells a function that its reader has gone: without this call the provider goes
      // on writing, and the user pays.
      const cancel = () => {
        const path = `${CHAT}/${encodeURIComponent(headers.get(REQUEST_ID)!)}/cancel`;
        const call = { method: "POST", headers: { Authorization: `Bearer ${token}` }, keepalive: true };
        realFetch(base + path, call).catch(() => undefined);
      };
      signal?.throwIfAborted();
      try {
        const reply = await realFetch(source, { ...init, headers });
        if (!isChat || !reply.ok || !reply.body) return reply;
        return new Response(untilLeft(reply.body, cancel), reply);
      } catch (error) {
        if (isChat && signal?.aborted) cancel();
        throw await why(error);
      }
    }

    const first = await current();
    const canRepeat = !(init.body instanceof ReadableStream);
    const reply = await attempt(canRepeat && given ? given.clone() : input, first);
    if (reply.status !== 401 || !canRepeat) return reply;
    void reply.body?.cancel();
    return attempt(input, await current(first.token));
  }

  async function* chat(body: ChatRequest, init: ChatInit = {}): AsyncGenerator<ChatCompletionChunk> {
    const headers = new Headers(init.headers);
    headers.set("Content-Type", "application/json");
    if (init.threadId) headers.set("X-Thread-Id", init.threadId);
    const reply = await send(base + CHAT, {
      method: "POST",
      headers,
      body: JSON.stringify({ ...body, stream: true }),
      signal: init.signal ?? null,
    });
    if (!reply.ok) throw await WeirError.from(reply);
    let finished = false;
    let failure: WeirError | undefined;
    try {
      for await (const data of readEvents(reply.body!)) {
        if (!data || data === "[DONE]") continue;
        const chunk = JSON.parse(data) as ChatCompletionChunk & { error?: ErrorEnvelope["error"] };
        if (chunk.error) failure = WeirError.of({ error: chunk.error });
        else {
          finished ||= chunk.choices.some((choice) => choice.finish_reason);
          yield chunk;
        }
      }
    } catch (error) {
      if (init.signal?.aborted) throw error;
      throw new WeirError("The connection ended before the answer did.", { code: "stream_cut", cause: error });
    }
    if (failure) throw failure;
    // A connection that was closed in order looks like the end of an answer.
    if (!finished) throw new WeirError("The connection ended before the answer did.", { code: "stream_cut" });
  }

  return {
    baseUrl: base,
    token: (renew) => current(renew ? held?.token : undefined),
    fetch: send,
    chat,
    async json<T>(path: string, init?: RequestInit) {
      const reply = await send(base + path, init);
      if (!reply.ok) throw await WeirError.from(reply);
      return (reply.status === 204 ? undefined : await reply.json()) as T;
    },
  };
}

/** Passes an answer on, and calls `left` if its reader goes, or the connection breaks, before its end. */
function untilLeft(body: ReadableStream<Uint8Array<ArrayBuffer>>, left: () => void) {
  const reader = body.getReader();
  return new ReadableStream<Uint8Array<ArrayBuffer>>({
    async pull(controller) {
      try {
        const { done, value } = await reader.read();
        if (done) controller.close();
        else controller.enqueue(value);
      } catch (error) {
        left();
        throw error;
      }
    },
    cancel(reason) {
      left();
      return reader.cancel(reason);
    },
  });
}

/** crypto.randomUUID is missing where a page was not loaded over https or from localhost. */
function newRequestId(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
