/** The short-lived token that chat takes: fetched when needed, and again before it expires. */
import type { Config } from "./config";
import { HttpError, whyNoAnswer } from "./errors";
import { SessionEnded, type Session } from "./session";

/** What POST /api/behest/token answers. */
export interface Token {
  token: string;
  /** Seconds. */
  ttl: number;
  sessionId: string;
  /** Seconds since 1970, by the server's clock. */
  expiresAt: number;
}

export interface TokenSource {
  get(): Promise<Token>;
  /** The gateway refused it: the next `get` fetches another one. */
  forget(refused: Token): void;
}

const MARGIN_MS = 60_000;

export function tokenSource(config: Config, session: Session): TokenSource {
  let held: Token | undefined;
  let refetchAt = 0;
  let fetching: Promise<Token> | undefined;

  async function refetch(): Promise<Token> {
    try {
      held = await fetchToken(config, session);
      // `ttl` and not `expiresAt`: this machine's clock may be wrong.
      refetchAt = Date.now() + held.ttl * 1000 - MARGIN_MS;
      return held;
    } finally {
      fetching = undefined;
    }
  }

  return {
    async get() {
      if (held && Date.now() < refetchAt) return held;
      return (fetching ??= refetch()); // callers at the same time share one request
    },
    forget(refused) {
      if (held === refused) held = undefined;
    },
  };
}

async function fetchToken(config: Config, session: Session): Promise<Token> {
  const ask = (idToken: string) =>
    // No `credentials: "include"`: the ID token says who asks, and there is no cookie to send.
    fetch(`${config.baseUrl}/api/behest/token`, {
      method: "POST",
      headers: { Authorization: `Bearer ${idToken}` },
    }).catch(async () => {
      throw await whyNoAnswer(config);
    });
  let reply = await ask(await session.idToken());
  if (reply.status === 401) reply = await ask(await session.idToken({ renew: true }));
  if (reply.status === 401) throw new SessionEnded("Your session has ended.");
  if (!reply.ok) throw await HttpError.from(reply);
  return (await reply.json()) as Token;
}
