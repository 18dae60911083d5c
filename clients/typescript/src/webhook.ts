/** How old a delivery's signature may be, in seconds, in either direction. */
const TOLERANCE_S = 300;

/**
 * Says whether a webhook comes from the gateway (docs/webhooks.md). `header` is X-FC-Signature, and
 * `body` the request's bytes before any parser has touched them.
 */
export async function verifyWebhook(
  secret: string,
  header: string | null | undefined,
  body: string | Uint8Array,
): Promise<boolean> {
  const parts = (header ?? "").split(",").map((part) => part.trim().split("=") as [string, string?]);
  const at = parts.find(([name]) => name === "t")?.[1] ?? "";
  if (!/^\d{1,12}$/.test(at) || Math.abs(Date.now() / 1000 - Number(at)) > TOLERANCE_S) return false;
  const encoder = new TextEncoder();
  const sent = typeof body === "string" ? encoder.encode(body) : body;
  const signed = new Uint8Array([...encoder.encode(`${at}.`), ...sent]);
  const hmac = { name: "HMAC", hash: "SHA-256" };
  const key = await crypto.subtle.importKey("raw", encoder.encode(secret), hmac, false, ["verify"]);
  for (const [name, value = ""] of parts) {
    if (name !== "v1" || !/^[0-9a-f]{64}$/.test(value)) continue;
    const signature = Uint8Array.from(value.match(/../g)!, (pair) => parseInt(pair, 16));
    // Compares in constant time.
    if (await crypto.subtle.verify("HMAC", key, signature, signed)) return true;
  }
  return false;
}
