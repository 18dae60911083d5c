const TOLERANCE_S = 300;
const MOST_SIGNATURES = 8;

/**
 * Verify that a webhook comes from Weir: that one of the signatures in `header` (`X-FC-Signature`) is
 * of `body`, and not older than five minutes. Give `body` as it came, before any parser has touched
 * it. Every comparison takes the same time, whatever the signature is.
 */
export async function verifyWebhook(
  secret: string,
  header: string | null | undefined,
  body: string | Uint8Array | ArrayBuffer,
): Promise<boolean> {
  const parts = (header ?? "").split(",").map((part) => part.trim());
  const time = parts.find((part) => part.startsWith("t="))?.slice(2) ?? "";
  // Whole seconds in ASCII digits: "", " 1" and "1e9" would be numbers, too.
  if (!secret || !/^\d{1,12}$/.test(time)) return false;
  if (Math.abs(Date.now() / 1000 - Number(time)) > TOLERANCE_S) return false;

  const encoder = new TextEncoder();
  const algorithm = { name: "HMAC", hash: "SHA-256" };
  const key = await crypto.subtle.importKey("raw", encoder.encode(secret), algorithm, false, ["verify"]);
  const start = encoder.encode(`${time}.`);
  const rest = typeof body === "string" ? encoder.encode(body) : new Uint8Array(body);
  const signed = new Uint8Array(start.length + rest.length);
  signed.set(start);
  signed.set(rest, start.length);

  let valid = false;
  for (const part of parts.slice(0, MOST_SIGNATURES)) {
    // Two while a replaced secret still counts.
    if (!/^v1=[0-9a-f]{64}$/.test(part)) continue;
    const signature = Uint8Array.from(part.slice(3).match(/../g) ?? [], (pair) => parseInt(pair, 16));
    if (await crypto.subtle.verify("HMAC", key, signature, signed)) valid = true;
  }
  return valid;
}
