/**
 * The server's half, for Node, Bun, Deno and edge runtimes: mints or signs tokens, chats for a user,
 * makes customers and their client tokens. Web Crypto and `fetch` only. It holds a secret, so it does
 * not start in a page.
 */
import { createClient, type ChatCompletionChunk, type ChatRequest, type Client } from "./index.js";
import { WeirError } from "./error.js";
import { signingKey, signToken } from "./signing.js";

export { WeirError };
export { verifyWebhook } from "./webhook.js";
export type { ChatCompletionChunk };

export interface WeirOptions {
  /**
   * An API key (`behest_sk_live_…`, `sk_live_…`), or for local signing a private key: base64 of a
   * PKCS#8 PEM, the PEM itself, either with or without `behest_pk_`. WEIR_KEY or BEHEST_KEY.
   */
  key?: string;
  /** The gateway's address, with or without /v1. WEIR_BASE_URL or BEHEST_BASE_URL. */
  baseUrl?: string;
  /** For local signing: the key's id. WEIR_KID or BEHEST_KID. */
  kid?: string;
  /** For local signing. WEIR_TENANT_ID or BEHEST_TENANT_ID. */
  tenantId?: string;
  /** For local signing. WEIR_PROJECT_ID or BEHEST_PROJECT_ID. */
  projectId?: string;
  fetch?: typeof fetch;
}

export interface MintOptions {
  /** From your session. Never from what a page sends. */
  user_id: string;
  tier?: number | string | undefined;
  /** Seconds, 60 to 86,400; 900 unless named. */
  ttl?: number;
  /** A new one unless named. */
  session_id?: string;
  /** `admin` only as far as the API key itself goes. */
  role?: "user" | "admin";
}

/** What a page needs: answer with it from your token route. */
export interface Minted {
  token: string;
  /** Seconds. */
  ttl: number;
  sessionId: string;
  /** Unix seconds. */
  expiresAt: number;
}

/** A chat completion of an answer that does not stream, as OpenAI's API has it. */
export interface ChatCompletion {
  id: string;
  model: string;
  choices: {
    index: number;
    message: { role: string; content: string | null; tool_calls?: unknown[] };
    finish_reason: string;
  }[];
  usage: { prompt_tokens: number; completion_tokens: number; total_tokens: number; cost_usd?: number };
  [member: string]: unknown;
}

export interface ChatOptions extends ChatRequest {
  /** Whose limits and usage this is. */
  user_id: string;
  tier?: number | string;
  thread_id?: string;
}

/** Fields are those of docs/customers.md. */
export interface Customer {
  id: string;
  external_id: string;
  budget_usd: number | null;
  spend_usd_mtd: number;
  status: "active" | "blocked";
  [field: string]: unknown;
}

export interface ClientTokenOptions {
  /** Pages that may use it: 1 to 10 origins that the project allows. */
  origin_allowlist: string[];
  ttl_seconds?: number;
  scope?: ("chat" | "embeddings" | "moderations" | "usage")[];
  bind_ip?: boolean;
  ip?: string;
  [field: string]: unknown;
}

export interface ClientToken {
  id: string;
  token: string;
  /** Unix seconds. */
  expires_at: number;
  /** Seconds. */
  expires_in: number;
  [field: string]: unknown;
}

// A backend serves many users: the least recently used are forgotten.
const MOST_USERS = 1000;

export class Weir {
  readonly baseUrl: string;
  readonly #key: string;
  readonly #fetch: typeof fetch;
  readonly #sign: ((options: MintOptions) => Promise<Minted>) | undefined;
  readonly #clients = new Map<string, Client>();

  /** Throws WeirError with code "bad_configuration" that names what is missing. */
  constructor(options: WeirOptions = {}) {
    if ("document" in globalThis) {
      throw misconfigured("This half of the package holds a secret. In a page use createClient of weir-client.");
    }
    this.#key = options.key ?? required("KEY");
    this.baseUrl = (options.baseUrl ?? required("BASE_URL")).replace(/\/+$/, "").replace(/\/v1$/, "");
    this.#fetch = options.fetch ?? ((...call) => fetch(...call));
    if (/^(behest_)?sk_live_/.test(this.#key)) return;
    const pem = signingKey(this.#key);
    const names = {
      kid: options.kid ?? required("KID"),
      tid: options.tenantId ?? required("TENANT_ID"),
      pid: options.projectId ?? required("PROJECT_ID"),
    };
    this.#sign = (mint) => signToken(pem, names, mint);
  }

  readonly auth = {
    /** Makes a token for one user: by a call to the gateway, or, with a signing key, here. */
    mint: async (options: MintOptions): Promise<Minted> => {
      const asked = { ttl: 900, ...options };
      if (this.#sign) return this.#sign(asked);
      const minted = await this.#json<Minted>("POST", "/v1/auth/mint", asked);
      const { token, ttl, sessionId, expiresAt } = minted;
      return { token, ttl, sessionId, expiresAt };
    },
  };

  readonly chat = {
    completions: {
      /** Chats for one user, with a token that is made when it is needed and kept until it ends. */
      create: (async (options: ChatOptions, init: { signal?: AbortSignal } = {}) => {
        const { user_id, tier, thread_id, stream, ...body } = options;
        const client = this.#clientOf({ user_id, tier });
        const headers = { ...(thread_id === undefined ? {} : { "X-Thread-Id": thread_id }) };
        if (stream) return client.chat(body, { headers, ...init });
        return client.json<ChatCompletion>("/v1/chat/completions", {
          ...init,
          method: "POST",
          headers: { ...headers, "Content-Type": "application/json" },
          body: JSON.stringify(body),
        });
      }) as {
        (options: ChatOptions & { stream: true }, init?: { signal?: AbortSignal }): Promise<
          AsyncIterable<ChatCompletionChunk>
        >;
        (options: ChatOptions & { stream?: false }, init?: { signal?: AbortSignal }): Promise<ChatCompletion>;
      },
    },
  };

  /** Customers, by your own id of them; with an `sk_live_…` key. */
  readonly customers = {
    /** Makes the customer, or changes what `fields` names. */
    put: (externalId: string, fields: Record<string, unknown> = {}) =>
      this.#json<Customer>("PUT", customerPath(externalId), fields),
    get: (externalId: string) => this.#json<Customer>("GET", customerPath(externalId)),
    delete: (externalId: string) => this.#json<void>("DELETE", customerPath(externalId)),
  };

  readonly clientTokens = {
    /** Makes a token for a page that one customer has opened. */
    mint: (externalId: string, options: ClientTokenOptions) =>
      this.#json<ClientToken>("POST", `${customerPath(externalId)}/client_tokens`, options),
    /** Revokes all of a customer's tokens: they are refused on their next request. */
    revokeAll: (externalId: string) => this.#json<void>("DELETE", `${customerPath(externalId)}/client_tokens`),
  };

  /** Returns the client of one user, whose token, and session, nobody else shares. */
  #clientOf(who: { user_id: string; tier: number | string | undefined }): Client {
    const name = JSON.stringify([who.user_id, who.tier]);
    const known = this.#clients.get(name);
    const client =
      known ??
      createClient({ baseUrl: this.baseUrl, fetch: this.#fetch, getToken: () => this.auth.mint(who) });
    this.#clients.delete(name);
    this.#clients.set(name, client); // the last in the order of use
    if (this.#clients.size > MOST_USERS) this.#clients.delete(this.#clients.keys().next().value!);
    return client;
  }

  async #json<T>(method: string, path: string, body?: unknown): Promise<T> {
    if (this.#sign) throw misconfigured(`${method} ${path} needs an API key, and this is a signing key.`);
    const reply = await this.#fetch(this.baseUrl + path, {
      method,
      headers: { Authorization: `Bearer ${this.#key}`, "Content-Type": "application/json" },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
    if (!reply.ok) throw await WeirError.from(reply);
    return (reply.status === 204 ? undefined : await reply.json()) as T;
  }
}

/** An id with "/" in it, or "..", would otherwise be another customer's path. */
function customerPath(externalId: string): string {
  if (externalId === "" || externalId === "." || externalId === "..") {
    throw misconfigured("A customer needs an id of your own, such as user_42.");
  }
  return `/v1/customers/ext:${encodeURIComponent(externalId)}`;
}

function required(name: string): string {
  const env = (globalThis as { process?: { env?: Record<string, string | undefined> } }).process?.env ?? {};
  const value = env[`WEIR_${name}`] || env[`BEHEST_${name}`];
  if (!value) throw misconfigured(`Set WEIR_${name} or BEHEST_${name}, or pass it to new Weir().`);
  return value;
}

function misconfigured(message: string): WeirError {
  return new WeirError(message, { code: "bad_configuration" });
}
