/**
 * The server half: tokens for pages, chat for a user, customers, webhooks. It needs Web Crypto and
 * `fetch` alone, so it runs in Node, Bun, Deno and edge runtimes.
 */
import { createClient, type ChatCompletionChunk, type ChatInit, type ChatRequest, type Client, type TokenReply } from "./client.js";
import { WeirError } from "./error.js";
import { importSigningKey, misconfigured, signToken } from "./signing.js";

export type { ChatCompletionChunk, ChatMessage, ChatRequest, TokenReply, Usage } from "./client.js";
export { WeirError } from "./error.js";
export type { WeirErrorFields } from "./error.js";
export { verifyWebhook } from "./webhook.js";

export interface WeirOptions {
  /** An API key, or the private half of a signing key. Else WEIR_KEY, BEHEST_KEY or FC_API_KEY. */
  key?: string | undefined;
  /** The gateway's address. Else WEIR_BASE_URL, BEHEST_BASE_URL or FC_BASE_URL. */
  baseUrl?: string | undefined;
  /** With a signing key: its id. Else WEIR_KID or BEHEST_KID. */
  kid?: string | undefined;
  /** With a signing key: the stack's output TenantId. Else WEIR_TENANT_ID or BEHEST_TENANT_ID. */
  tenantId?: string | undefined;
  /** With a signing key. Else WEIR_PROJECT_ID or BEHEST_PROJECT_ID. */
  projectId?: string | undefined;
  /** Used in place of the global `fetch`. */
  fetch?: typeof fetch | undefined;
}

export interface MintOptions {
  /** From your own session, never from the page. */
  user_id: string;
  tier?: string | number | undefined;
  /** Seconds, 60 to 86,400; 900 unless it is given. */
  ttl?: number | undefined;
  /** A new one unless it is given. */
  session_id?: string | undefined;
}

/** A token, with all that the page's half and the routes of published examples look for. */
export interface MintedToken extends TokenReply {
  token: string;
  ttl: number;
  expiresAt: number;
  sessionId: string;
}

export interface ServerChatRequest extends ChatRequest {
  user_id: string;
  tier?: string | number | undefined;
}

export interface ChatCompletion {
  id: string;
  object: string;
  created: number;
  model: string;
  choices: {
    index: number;
    message: { role: string; content: string | null; [field: string]: unknown };
    finish_reason: string | null;
    [field: string]: unknown;
  }[];
  usage?: ChatCompletionChunk["usage"];
  [field: string]: unknown;
}

export interface ClientToken extends TokenReply {
  token: string;
  id: string;
  ttl: number;
  expiresAt: number;
  /** Unix seconds, as the gateway spells it. */
  expires_at: number;
  [field: string]: unknown;
}

interface Completions {
  /** Ask for an answer on behalf of a user, with a token that is made and kept for them. */
  create(
    request: ServerChatRequest & { stream: true },
    init?: ChatInit,
  ): Promise<AsyncIterable<ChatCompletionChunk>>;
  create(request: ServerChatRequest & { stream?: false | undefined }, init?: ChatInit): Promise<ChatCompletion>;
}

type Fields = Record<string, unknown>;

const DEFAULT_TTL_S = 900;
const MOST_USERS = 1_000;
const RESERVED = new Set(["admin", "dashboard-service", "system"]);
// Control and bidirectional formatting characters, line and paragraph separators, lone surrogates.
const NO_IDENTIFIER =
  /[\p{Cc}\p{Cs}\u2028\u2029\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/u;

export class Weir {
  readonly baseUrl: string;
  readonly auth: { mint(options: MintOptions): Promise<MintedToken> };
  readonly chat: { completions: Completions };
  readonly customers: {
    /** Create a customer, or change what `fields` name: budget_usd, rate_limit_rpm and others. */
    put(externalId: string, fields?: Fields): Promise<Fields>;
  };
  readonly clientTokens: {
    /** Mint a token for one customer's page. `fields` must have `origin_allowlist`. */
    mint(externalId: string, fields: Fields): Promise<ClientToken>;
  };

  readonly #key: string;
  readonly #signs: boolean;
  readonly #send: typeof fetch;
  readonly #options: WeirOptions;
  readonly #clients = new Map<string, Client>();
  #signingKey: Promise<CryptoKey> | undefined;

  /** Throw WeirError `misconfigured` if something is missing. */
  constructor(options: WeirOptions = {}) {
    this.#options = options;
    this.#key = required("a key", options.key, "WEIR_KEY", "BEHEST_KEY", "FC_API_KEY").trim();
    const address = required("the gateway's address", options.baseUrl, "WEIR_BASE_URL", "BEHEST_BASE_URL", "FC_BASE_URL");
    this.baseUrl = address.replace(/(\/v1)?\/*$/, "");
    this.#signs = !/^(behest_sk_live_|sk_live_)/.test(this.#key);
    this.#send = options.fetch ?? ((input, init) => fetch(input, init));
    if (this.#signs) this.#signer(); // a variable that is missing is reported now
    this.auth = { mint: (asked) => this.#mint(asked) };
    this.chat = { completions: { create: ((asked, init) => this.#create(asked, init)) as Completions["create"] } };
    this.customers = { put: (id, fields = {}) => this.#call("PUT", customerPath(id), fields) };
    this.clientTokens = {
      mint: async (id, fields) => {
        const reply = await this.#call<ClientToken>("POST", `${customerPath(id)}/client_tokens`, fields);
        return { ...reply, expiresAt: reply.expires_at, ttl: reply.expires_in as number };
      },
    };
  }

  /** Keep the key out of logs and of JSON. */
  toJSON(): Fields {
    return { baseUrl: this.baseUrl };
  }

  async #mint({ user_id, tier, ttl = DEFAULT_TTL_S, session_id }: MintOptions): Promise<MintedToken> {
    checkIdentifier("user_id", user_id);
    if (RESERVED.has(user_id.toLowerCase())) throw invalid("user_id", "is reserved");
    if (session_id !== undefined) checkIdentifier("session_id", session_id);
    if (!Number.isInteger(ttl) || ttl < 60 || ttl > 86_400) {
      throw invalid("ttl", "must be whole seconds from 60 to 86400");
    }
    if (this.#signs) return this.#sign(user_id, tier, ttl, session_id ?? crypto.randomUUID());
    const reply = await this.#call<MintedToken>("POST", "/v1/auth/mint", { user_id, tier, ttl, session_id });
    const { token, sessionId, expiresAt } = reply;
    return { token, ttl: reply.ttl, sessionId, expiresAt };
  }

  async #sign(uid: string, tier: string | number | undefined, ttl: number, sid: string): Promise<MintedToken> {
    const { kid, tid, pid } = this.#signer();
    const key = await (this.#signingKey ??= importSigningKey(this.#key));
    const now = Math.floor(Date.now() / 1000);
    const exp = now + ttl;
    const token = await signToken(key, kid, {
      tid, pid, uid, role: "user", scp: [], iss: "behest", aud: "behest",
      iat: now, nbf: now, exp, jti: crypto.randomUUID(), sid, tier,
    });
    return { token, ttl, sessionId: sid, expiresAt: exp };
  }

  #signer(): { kid: string; tid: string; pid: string } {
    const { kid, tenantId, projectId } = this.#options;
    return {
      kid: required("the signing key's id", kid, "WEIR_KID", "BEHEST_KID"),
      tid: required("the tenant's id", tenantId, "WEIR_TENANT_ID", "BEHEST_TENANT_ID"),
      pid: required("the project's id", projectId, "WEIR_PROJECT_ID", "BEHEST_PROJECT_ID"),
    };
  }

  /** As a promise in both cases, as the published SDKs return one. */
  #create(asked: ServerChatRequest, init: ChatInit = {}): Promise<unknown> {
    const { user_id, tier, stream, ...body } = asked;
    checkIdentifier("user_id", user_id);
    const client = this.#clientOf(user_id, tier);
    if (stream) return Promise.resolve(client.chat(body, init));
    const headers = new Headers(init.headers);
    if (init.threadId) headers.set("x-thread-id", init.threadId);
    return client.json<ChatCompletion>("/v1/chat/completions", {
      method: "POST",
      headers,
      body: JSON.stringify(body),
      signal: init.signal ?? null,
    });
  }

  /** The client of one user, with a token and a session that no other user shares. */
  #clientOf(user_id: string, tier: string | number | undefined): Client {
    const name = JSON.stringify([user_id, tier]);
    let client = this.#clients.get(name);
    client ??= createClient({
      baseUrl: this.baseUrl,
      fetch: this.#send,
      getToken: () => this.#mint({ user_id, tier }),
    });
    this.#clients.delete(name); // to the end: the first one is the one that was idle longest
    this.#clients.set(name, client);
    if (this.#clients.size > MOST_USERS) this.#clients.delete(this.#clients.keys().next().value as string);
    return client;
  }

  async #call<Reply = Fields>(method: string, path: string, body: Fields): Promise<Reply> {
    if (this.#signs) throw misconfigured(`${method} ${path} needs an API key, and this is a signing key.`);
    const response = await this.#send(this.baseUrl + path, {
      method,
      headers: { authorization: `Bearer ${this.#key}`, "content-type": "application/json" },
      body: JSON.stringify(body),
    });
    if (!response.ok) throw await WeirError.from(response);
    return (await response.json()) as Reply;
  }
}

/** `ext:` is put before the id once, as the gateway takes it off once. */
function customerPath(externalId: string): string {
  checkIdentifier("externalId", externalId);
  return `/v1/customers/ext:${encodeURIComponent(externalId.replace(/^ext:/, ""))}`;
}

function checkIdentifier(name: string, value: unknown): asserts value is string {
  if (typeof value !== "string" || !value || Array.from(value).length > 255 || NO_IDENTIFIER.test(value)) {
    throw invalid(name, "must be a text of 1 to 255 characters, without control characters");
  }
}

function invalid(name: string, what: string): WeirError {
  return new WeirError(`${name} ${what}.`, { code: "validation_error" });
}

function required(what: string, given: string | undefined, ...variables: string[]): string {
  const { process } = globalThis as { process?: { env?: Record<string, string | undefined> } };
  const value = given ?? variables.map((name) => process?.env?.[name]).find(Boolean);
  if (value) return value;
  throw misconfigured(`Weir needs ${what}: give it to the constructor, or set ${variables[0]} (or ${variables.slice(1).join(" or ")}).`);
}
