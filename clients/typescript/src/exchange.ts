import type { TokenReply } from "./client.js";
import { WeirError } from "./error.js";

export interface ExchangeOptions {
  /** The project; without it the deployment's own. */
  audience?: string | undefined;
  /** Goes on with a session, if the issuer's entry names no claim for it. */
  sessionId?: string | undefined;
  /** Used in place of the global `fetch`. */
  fetch?: typeof fetch | undefined;
}

/**
 * Exchange a sign-in provider's token (Clerk, Auth0, Supabase, Firebase, any OpenID Connect provider)
 * for a user token of the gateway: RFC 8693, `POST /v1/token`. Its result is what `getToken` of
 * `createClient` returns. `subjectToken` is the provider's ID token, or its access token that is a
 * JWT; a provider's SDK that has none, because its user is signed out, returns null or undefined.
 * Throw WeirError: `code` is OAuth's `error`, or `signed_out` without a request; `reason` says which
 * check failed.
 */
export async function exchangeToken(
  baseUrl: string,
  subjectToken: string | null | undefined,
  options: ExchangeOptions = {},
): Promise<TokenReply> {
  if (!subjectToken) throw new WeirError("You are signed out. Sign in first.", { code: "signed_out" });
  const form = new URLSearchParams({
    grant_type: "urn:ietf:params:oauth:grant-type:token-exchange",
    subject_token: subjectToken,
    subject_token_type: "urn:ietf:params:oauth:token-type:jwt",
  });
  if (options.audience !== undefined) form.set("audience", options.audience);
  if (options.sessionId !== undefined) form.set("session_id", options.sessionId);
  // Called as a plain function: a browser's fetch refuses another `this`.
  const send = options.fetch ?? fetch;
  // A form without further headers, so that the browser sends no preflight.
  const address = `${baseUrl.replace(/(\/v1)?\/*$/, "")}/v1/token`;
  const response = await send(address, { method: "POST", body: form });
  if (!response.ok) throw await WeirError.from(response);
  const { token, ttl, expiresAt, sessionId } = (await response.json()) as Required<TokenReply>;
  return { token, ttl, expiresAt, sessionId };
}
