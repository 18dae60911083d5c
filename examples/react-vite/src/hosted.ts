/**
 * Sign-in on Cognito's own page (managed login), by an authorization code with PKCE (RFC 7636).
 * Passwords, second factors and forgotten passwords are that page's business. No dependencies.
 *
 * Tokens live in memory only. While the visitor is away on Cognito's page, sessionStorage holds what
 * proves that the answer belongs to this tab; it is removed before the code is exchanged.
 */
import { SessionEnded, SignInRefused, type Session } from "./session";

export interface HostedConfig {
  /** Output SignInDomain of the stack: https://PREFIX.auth.REGION.amazoncognito.com. */
  cognitoDomain: string;
  cognitoClientId: string;
}

interface Pending {
  state: string;
  nonce: string;
  verifier: string;
}

/** What /oauth2/token answers. */
interface Tokens {
  id_token: string;
  /** Seconds. */
  expires_in: number;
  /** A renewal brings one only where the user pool rotates them. */
  refresh_token?: string;
}

const PENDING = "weir.sign-in";
const MARGIN_MS = 60_000;
const NOT_OURS = "This sign-in was not begun in this tab. Please sign in again.";

/** Leave for Cognito's page, which comes back to `returnUrl()`. */
export async function signIn(config: HostedConfig): Promise<void> {
  const pending: Pending = { state: random(), nonce: random(), verifier: random() };
  const asked = new URLSearchParams({
    response_type: "code",
    client_id: config.cognitoClientId,
    redirect_uri: returnUrl(),
    scope: "openid email",
    state: pending.state,
    nonce: pending.nonce,
    code_challenge: await challengeOf(pending.verifier),
    code_challenge_method: "S256",
  });
  sessionStorage.setItem(PENDING, JSON.stringify(pending));
  location.assign(`${config.cognitoDomain}/oauth2/authorize?${asked}`);
}

/** Tell whether the address is an answer of Cognito's page. */
export function isCallback(): boolean {
  const answer = new URLSearchParams(location.search);
  return answer.has("code") || answer.has("error");
}

/**
 * Finish a sign-in that `signIn` began: call it when the page is opened. Resolves with undefined if
 * the page was opened otherwise. Rejects with SignInRefused if the answer is not to this tab's
 * request, or is a refusal.
 */
export async function handleCallback(config: HostedConfig): Promise<Session | undefined> {
  if (!isCallback()) return undefined;
  const answer = new URLSearchParams(location.search);
  const stored = sessionStorage.getItem(PENDING);
  sessionStorage.removeItem(PENDING); // it serves once, whatever comes of it
  history.replaceState(null, "", location.pathname); // a code has no place in history or bookmarks
  const pending = stored === null ? undefined : (JSON.parse(stored) as Pending);
  // Without this check a link could sign the visitor in as somebody else, or show its own words.
  if (!pending || answer.get("state") !== pending.state) throw new SignInRefused(NOT_OURS);
  const code = answer.get("code");
  if (code === null) {
    const why = answer.get("error_description") ?? answer.get("error");
    throw new SignInRefused(`The sign-in page refused: ${why}.`);
  }
  const tokens = await fetchTokens(config, {
    grant_type: "authorization_code",
    code,
    redirect_uri: returnUrl(),
    code_verifier: pending.verifier,
  });
  // Straight from Cognito over TLS: its signature is the gateway's to check (OpenID Connect Core,
  // 3.1.3.7), the nonce is ours.
  const claims = claimsOf(tokens.id_token);
  if (claims["nonce"] !== pending.nonce) throw new SignInRefused(NOT_OURS);
  return sessionOf(config, tokens, String(claims["email"] ?? claims["sub"]));
}

/** The address to list in SignInReturnUrls: the origin and a slash, whatever page was left. */
export function returnUrl(): string {
  return `${location.origin}/`;
}

function sessionOf(config: HostedConfig, first: Tokens, email: string): Session {
  let current = first;
  let refreshToken = first.refresh_token ?? "";
  let renewAt = renewalTime(first);
  let renewing: Promise<string> | undefined;
  let ended = false;

  async function renew(): Promise<string> {
    try {
      current = await fetchTokens(config, {
        grant_type: "refresh_token",
        refresh_token: refreshToken,
      });
      refreshToken = current.refresh_token ?? refreshToken;
      renewAt = renewalTime(current);
      return current.id_token;
    } catch (error) {
      if (!(error instanceof SignInRefused)) throw error;
      ended = true; // signed out elsewhere, disabled, or 30 days old
      throw new SessionEnded("Your session has ended.");
    } finally {
      renewing = undefined;
    }
  }

  return {
    email,
    async idToken(how) {
      if (!how?.renew && Date.now() < renewAt) return current.id_token;
      return (renewing ??= renew()); // callers at the same time share one renewal
    },
    signOut() {
      if (ended) return;
      const client = { client_id: config.cognitoClientId };
      // `keepalive` outlives this page. There is nothing to read, so no CORS is needed.
      fetch(`${config.cognitoDomain}/oauth2/revoke`, {
        method: "POST",
        mode: "no-cors",
        keepalive: true,
        body: new URLSearchParams({ ...client, token: refreshToken }),
      }).catch(() => undefined);
      // Cognito's page has a session of its own, in a cookie: it would sign in again without a word.
      const leaving = new URLSearchParams({ ...client, logout_uri: returnUrl() });
      location.assign(`${config.cognitoDomain}/logout?${leaving}`);
    },
  };
}

/** By this machine's clock, counted from now: it need not agree with Amazon's. */
function renewalTime(tokens: Tokens): number {
  return Date.now() + tokens.expires_in * 1000 - MARGIN_MS;
}

async function fetchTokens(config: HostedConfig, grant: Record<string, string>): Promise<Tokens> {
  const reply = await fetch(`${config.cognitoDomain}/oauth2/token`, {
    method: "POST",
    // A public client: its id, and no secret.
    body: new URLSearchParams({ client_id: config.cognitoClientId, ...grant }),
  }).catch(() => {
    throw new Error(
      `The sign-in service at ${config.cognitoDomain} cannot be reached. ` +
        "Check the connection and try again.",
    );
  });
  const answer = (await reply.json().catch(() => ({}))) as Partial<Tokens> & { error?: string };
  if (reply.ok && answer.id_token) return answer as Tokens;
  if (answer.error === "invalid_grant") {
    throw new SignInRefused("The sign-in has expired. Please sign in again.");
  }
  throw new Error(`Signing in failed: ${answer.error ?? `status ${reply.status}`}.`);
}

function claimsOf(token: string): Record<string, unknown> {
  const payload = (token.split(".")[1] ?? "").replaceAll("-", "+").replaceAll("_", "/");
  const octets = Uint8Array.from(atob(payload), (character) => character.charCodeAt(0));
  return JSON.parse(new TextDecoder().decode(octets)) as Record<string, unknown>;
}

/** 256 random bits; as a verifier 43 characters, the fewest that RFC 7636 allows. */
function random(): string {
  return base64url(crypto.getRandomValues(new Uint8Array(32)));
}

async function challengeOf(verifier: string): Promise<string> {
  const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(verifier));
  return base64url(new Uint8Array(digest));
}

function base64url(octets: Uint8Array): string {
  const text = btoa(String.fromCharCode(...octets));
  return text.replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}
