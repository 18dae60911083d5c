import { errorFrom, WeirError } from "./error.js";
import { readEvents } from "./events.js";

/** What a token route answers: /api/behest/token, mint, /v1/token, or a route of your own. */
export interface TokenReply {
  token: string;
  /** Seconds from now on. */
  ttl?: number;
  /** Unix seconds, by the server's clock; used only if there is no `ttl`. */
  expiresAt?: number;
  sessionId?: string;
}

export interface ClientOptions {
  /** The gateway's address, with or without `/v1`. */
  baseUrl: string;
  /** Fetch a token for the user who is signed in. What it throws, the waiting call throws. */
  getToken: () => Promise<TokenReply>;
  /** Used in place of the global `fetch`. */
  fetch?: typeof fetch;
}

export interface ChatMessage {
  role: "system" | "developer" | "user" | "assistant" | "tool" | "function";
  content?: string | readonly Record<string, unknown>[] | null;
  [field: string]: unknown;
}

/** A chat completion request of OpenAI's. Without `model` it is the project's default. */
export interface ChatRequest {
  messages: readonly ChatMessage[];
  model?: string;
  [field: string]: unknown;
}

export interface ChatInit {
  signal?: AbortSignal | undefined;
  /** The thread that the gateway keeps: then send only the newest message. */
  threadId?: string | undefined;
  headers?: HeadersInit | undefined;
}

export interface ChunkChoice {
  index: number;
  delta: {
    role?: string;
    content?: string | null;
    refusal?: string | null;
    reasoning_content?: string | null;
    tool_calls?: {
      index: number;
      id?: string;
      type?: string;
      function?: { name?: string; arguments?: string };
    }[];
    [field: string]: unknown;
  };
  finish_reason: string | null;
  [field: string]: unknown;
}

export interface Usage {
  prompt_tokens: number;
  completion_tokens: number;
  total_tokens: number;
  /** What the request cost, in US dollars. */
  cost_usd?: number;
  [field: string]: unknown;
}

export interface ChatCompletionChunk {
  id: string;
  object: string;
  created: number;
  model: string;
  /** Empty in the chunk that tells the usage. */
  choices: ChunkChoice[];
  usage?: Usage | null;
  [field: string]: unknown;
}

export interface Client {
  /** The gateway's address, without `/v1` and without a slash at its end. */
  readonly baseUrl: string;
  /** Return the current token, from memory if it is good for another minute; `renew` fetches one. */
  token(renew?: boolean): Promise<TokenReply>;
  /** The `fetch` to give to any SDK. Requests to other addresses than `baseUrl` pass unchanged. */
  fetch: typeof fetch;
  /** Stream an answer. Throw WeirError for a refusal, a failure on the way, and an end too early. */
  chat(body: ChatRequest, init?: ChatInit): AsyncIterable<ChatCompletionChunk>;
  /** Call another route, such as `/v1/me`, and return its JSON (undefined if there is none). */
  json<T>(path: string, init?: RequestInit): Promise<T>;
}

const MINUTE_MS = 60_000;
const CHAT = "/v1/chat/completions";
const REFUSED = "origin_not_allowed";
/** What ends an answer. Within JSON a line break is escaped, so no text of a model looks like it. */
const END = /\ndata: (\[DONE]|{"error")/;
const END_LENGTH = 16;

/** Make a client for one page and its signed-in user. It keeps its token in memory only. */
export function createClient(options: ClientOptions): Client {
  // As `Request` would spell it, so that addresses can be compared.
  const baseUrl = new URL(options.baseUrl).href.replace(/(\/v1)?\/*$/, "");
  const page = globalThis.window as Window | undefined; // none on a server
  const send: typeof fetch = options.fetch ?? ((input, init) => fetch(input, init));

  let held: TokenReply | undefined;
  let heldSince: number;
  let heldUntil: number;
  let pending: Promise<TokenReply> | undefined;

  async function renewToken(): Promise<TokenReply> {
    try {
      const asked = Date.now(); // before, not after: the token's life begins while it is on its way
      // Its type may not hold: a route's error is JSON, too.
      const reply = (await options.getToken()) as TokenReply | undefined;
      if (!reply?.token) throw new WeirError("getToken() returned no token.", { code: "no_token" });
      const life = (reply.ttl ?? (reply.expiresAt ? reply.expiresAt - asked / 1000 : Infinity)) * 1000;
      heldSince = asked;
      heldUntil = asked + Math.max(life - MINUTE_MS, life / 2);
      return (held = reply);
    } catch (error) {
      // Many pages get their token from the gateway itself. It is not blamed for another server.
      if (error instanceof TypeError && (await whyFailed(REFUSED)) === REFUSED) {
        Object.assign(error, { reason: REFUSED });
      }
      throw error;
    } finally {
      pending = undefined;
    }
  }

  async function token(renew?: boolean): Promise<TokenReply> {
    const now = Date.now();
    // A clock that was set back says nothing any more about the token's age.
    if (held && !renew && !pending && now >= heldSince && now < heldUntil) return held;
    return (pending ??= renewToken());
  }

  let verdict: Promise<string>;
  let verdictAt = -MINUTE_MS;

  /** Find out why a fetch failed, and say it on the console, at most once a minute. */
  function whyFailed(only?: string): Promise<string> {
    const now = Date.now();
    if (Math.abs(now - verdictAt) >= MINUTE_MS) {
      verdictAt = now;
      verdict = askWhy(only);
    }
    return verdict;
  }

  async function askWhy(only?: string): Promise<string> {
    let reason = "unreachable";
    let words = "cannot be reached.";
    try {
      // Every page may read this answer, whatever its origin.
      const reply = await send(`${baseUrl}/v1/cors`, { signal: AbortSignal.timeout(5_000) });
      const { origin, allowed, message } = (await reply.json()) as Record<string, string>;
      if (allowed || !origin) {
        reason = "network";
        words = "can be reached, but the request failed on its way.";
      } else {
        reason = REFUSED;
        words = `does not answer this page: ${message}`;
        if (origin !== "null") words += ` To allow it: weir origins add ${origin}`;
      }
    } catch {
      // As it stands above.
    }
    if (!only || only === reason) console.error(`weir-client: ${baseUrl} ${words}`);
    return reason;
  }

  async function cancel(id: string, authorization: string, attempts: number): Promise<void> {
    const reply = await send(`${baseUrl + CHAT}/${encodeURIComponent(id)}/cancel`, {
      method: "POST",
      headers: { authorization },
      keepalive: true, // the page may be closing
    }).catch(() => null);
    // It may have overtaken the request that it cancels, or the ledger was busy.
    if (attempts > 1 && /404|503/.test(`${reply?.status}`)) {
      setTimeout(() => void cancel(id, authorization, attempts - 1), 2_000);
    }
  }

  const request: typeof fetch = async (input, init) => {
    const target = new Request(input, init);
    const { url, method, credentials, cache, redirect, keepalive } = target;
    // The token is for the gateway alone.
    if (!url.startsWith(`${baseUrl}/`)) return send(input, init);

    // The caller's own: that of `target` only follows it.
    const signal = init?.signal ?? (input as Partial<Request>).signal;
    const headers = new Headers(target.headers);
    const isChat = method === "POST" && url.split("?")[0] === baseUrl + CHAT;
    const id = headers.get("x-client-request-id") ?? randomId();
    const ownSession = headers.has("x-session-id");
    if (isChat) headers.set("x-client-request-id", id);

    let current: TokenReply;
    let open = false as boolean; // changed by `attempt`, which the compiler does not see
    let answered = false;
    let reject: (reason: unknown) => void;
    const aborted = new Promise<never>((_, no) => (reject = no));
    aborted.catch(() => {}); // an abort while nothing waits for it

    const settle = () => {
      open = false;
      signal?.removeEventListener("abort", onAbort);
      page?.removeEventListener("pagehide", leave);
    };
    /** Give the answer up. On AWS a closed connection does not end it, but this call does. */
    const leave = () => {
      if (open && isChat) void cancel(id, headers.get("authorization") as string, answered ? 1 : 2);
      settle();
    };
    const onAbort = () => {
      leave();
      reject(signal?.reason);
    };
    const attempt = async () => {
      current = await Promise.race([token(), aborted]);
      headers.set("authorization", `Bearer ${current.token}`);
      if (current.sessionId && !ownSession) headers.set("x-session-id", current.sessionId);
      open = true;
      return send(url, { ...init, method, headers, body, signal, credentials, cache, redirect, keepalive } as RequestInit);
    };

    signal?.throwIfAborted();
    // A body can be read once only, and may be needed twice.
    const bytes = await target.arrayBuffer();
    const body = bytes.byteLength ? bytes : null;
    signal?.addEventListener("abort", onAbort);
    if (isChat) page?.addEventListener("pagehide", leave);
    try {
      let response = await attempt();
      if (response.status === 401) {
        open = false;
        // Another call may have renewed it already.
        if (held === current!) held = undefined;
        response.body?.cancel().catch(() => {});
        response = await attempt();
      }
      answered = true;
      if (!isChat || !/event-stream/.test(response.headers.get("content-type") ?? "")) {
        settle();
        return response;
      }
      return watched(response, settle, leave);
    } catch (error) {
      const failed = open && error instanceof TypeError && !signal?.aborted;
      settle();
      if (failed) Object.assign(error, { reason: await whyFailed() });
      throw error;
    }
  };

  async function* chat(
    body: ChatRequest,
    { signal, threadId, headers }: ChatInit = {},
  ): AsyncGenerator<ChatCompletionChunk, void> {
    const sent = new Headers(headers);
    sent.set("content-type", "application/json");
    if (threadId) sent.set("x-thread-id", threadId);
    const response = await request(baseUrl + CHAT, {
      method: "POST",
      headers: sent,
      body: JSON.stringify({ ...body, stream: true }),
      signal: signal ?? null,
    });
    if (!response.ok) throw await WeirError.from(response);
    let finished = false;
    let cause: unknown;
    try {
      for await (const data of readEvents(response.body!)) {
        if (data === "[DONE]") break;
        const chunk = JSON.parse(data) as ChatCompletionChunk;
        if (chunk.error) throw errorFrom(chunk, response);
        finished ||= chunk.choices.some((choice) => choice.finish_reason);
        yield chunk;
      }
    } catch (error) {
      if (error instanceof WeirError || signal?.aborted) throw error;
      cause = error;
    }
    if (finished && !cause) return;
    throw new WeirError("The answer was cut off: the connection ended too early.", {
      code: "stream_cut",
      requestId: response.headers.get("x-request-id") ?? undefined,
      cause,
    });
  }

  async function json<T>(path: string, init?: RequestInit): Promise<T> {
    const headers = new Headers(init?.headers);
    if (typeof init?.body === "string" && !headers.has("content-type")) {
      headers.set("content-type", "application/json");
    }
    const response = await request(baseUrl + path, { ...init, headers });
    if (!response.ok) throw await WeirError.from(response);
    const text = await response.text();
    return (text ? JSON.parse(text) : undefined) as T;
  }

  return { baseUrl, token, fetch: request, chat, json };
}

/** The same response; `settle` is called at the answer's end, `leave` if its reader goes before. */
function watched(response: Response, settle: () => void, leave: () => void): Response {
  const reader = response.body!.getReader();
  const decoder = new TextDecoder();
  let tail = "\n";
  const body = new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        try {
          const { done, value } = await reader.read();
          tail += decoder.decode(value, { stream: true });
          if (done || END.test(tail)) settle();
          tail = tail.slice(-END_LENGTH);
          if (done) controller.close();
          else controller.enqueue(value);
        } catch (error) {
          settle();
          throw error;
        }
      },
      cancel(reason) {
        leave();
        return reader.cancel(reason);
      },
    },
    { highWaterMark: 0 }, // a reader that waits makes the gateway wait, as without us
  );
  return Object.defineProperty(new Response(body, response), "url", { value: response.url });
}

/** As good as `crypto.randomUUID`, which pages on plain http lack. */
function randomId(): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
