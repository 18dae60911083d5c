/**
 * Exchange a sign-in provider's token (Clerk, Auth0, Supabase, Firebase, any OpenID Connect provider)
 * for a user token of the gateway: RFC 8693, `POST /v1/token`. Its result is what `getToken` of
 * `createClient` returns.
 *
 * @param baseUrl - The gateway's address, with or without `/v1`.
 * @param subjectToken - The provider's ID token, or its access token that is a JWT. A provider's SDK
 *   that has none (its user is signed out) returns null or undefined.
 * @param options - `audience`: the project; without it the deployment's own. `sessionId`: goes on
 *   with a session, if the issuer's entry names no claim for it.
 * @returns The token, its lifetime `ttl` in seconds, its end `expiresAt` in seconds since 1970, and
 *   its session.
 * @throws An Error with the members of WeirError: `status`, `code` (OAuth's `error`, or `signed_out`
 *   without a request), `reason` (which check failed), `retryAfter` in seconds, `requestId`. A
 *   TypeError of `fetch`, if there is no answer that the page may read.
 */
export async function exchangeToken(
  baseUrl: string,
  subjectToken: string | null | undefined,
  options: { audience?: string; sessionId?: string; fetch?: typeof fetch } = {},
): Promise<{ token: string; ttl: number; expiresAt: number; sessionId: string }> {
  const fail = (message: string, members: object): never => {
    throw Object.assign(new Error(message), { name: "WeirError", ...members });
  };
  if (!subjectToken) return fail("You are signed out. Sign in first.", { code: "signed_out" });
  const form = new URLSearchParams({
    grant_type: "urn:ietf:params:oauth:grant-type:token-exchange",
    subject_token: subjectToken,
    subject_token_type: "urn:ietf:params:oauth:token-type:jwt",
  });
  if (options.audience !== undefined) form.set("audience", options.audience);
  if (options.sessionId !== undefined) form.set("session_id", options.sessionId);
  // Called as a plain function: a browser's fetch refuses another `this`.
  const send = options.fetch ?? fetch;
  // A form without further headers, so that the browser asks for no preflight.
  const reply = await send(`${baseUrl.replace(/\/+$/, "").replace(/\/v1$/, "")}/v1/token`, {
    method: "POST",
    body: form,
  });
  // API Gateway's own errors come in the envelope, all others as RFC 6749 (5.2) has them.
  const body = await reply.json().catch(() => ({}));
  if (reply.ok && typeof body.token === "string") {
    const { token, ttl, expiresAt, sessionId } = body;
    return { token, ttl, expiresAt, sessionId };
  }
  const retryAfter = Number(reply.headers.get("retry-after") ?? NaN);
  return fail(body.error_description ?? body.message ?? `The exchange failed with status ${reply.status}.`, {
    status: reply.status,
    code: body.code ?? body.error ?? "server_error",
    reason: body.reason,
    requestId: body.request_id ?? reply.headers.get("x-request-id") ?? undefined,
    retryAfter: Number.isFinite(retryAfter) ? retryAfter : undefined,
  });
}
