import { WeirError } from "./error.js";

const LINE = /\s+/g;
const PEM = /-----BEGIN ([A-Z ]+)-----([^-]+)-----END \1-----/;

/** Make the error for a client that was set up wrongly. */
export function misconfigured(message: string, cause?: unknown): WeirError {
  return new WeirError(message, { code: "misconfigured", cause });
}

/**
 * Import the private half of a signing key: base64 of a PKCS#8 PEM on one line, as
 * `weir signing create` prints it, or such a PEM itself, each with or without `behest_pk_` before it.
 */
export async function importSigningKey(value: string): Promise<CryptoKey> {
  // Environment files often have a literal \n for each line break.
  let pem = value.trim().replace(/^behest_pk_/, "").replaceAll("\\n", "\n");
  if (!pem.includes("-----BEGIN")) {
    try {
      pem = atob(pem.replace(LINE, ""));
    } catch (cause) {
      throw misconfigured("The signing key is neither a PEM nor base64 of one.", cause);
    }
  }
  const [, label, base64] = PEM.exec(pem) ?? [];
  if (label === "RSA PRIVATE KEY") {
    throw misconfigured(
      "The signing key is PKCS#1, which Web Crypto cannot read. Convert it:" +
        " openssl pkcs8 -topk8 -nocrypt -in key.pem -out key.pkcs8.pem",
    );
  }
  if (label !== "PRIVATE KEY" || !base64) {
    throw misconfigured(`The signing key is no PKCS#8 private key${label ? `, but: ${label}` : ""}.`);
  }
  try {
    const bytes = Uint8Array.from(atob(base64.replace(LINE, "")), (letter) => letter.charCodeAt(0));
    const algorithm = { name: "RSASSA-PKCS1-v1_5", hash: "SHA-256" };
    return await crypto.subtle.importKey("pkcs8", bytes, algorithm, false, ["sign"]);
  } catch (cause) {
    throw misconfigured("The signing key is no RSA private key that can be read.", cause);
  }
}

/** Sign a JWT with RS256. Claims that are undefined are left out. */
export async function signToken(
  key: CryptoKey,
  kid: string,
  claims: Record<string, unknown>,
): Promise<string> {
  const head = encode(JSON.stringify({ alg: "RS256", typ: "JWT", kid }));
  const signed = `${head}.${encode(JSON.stringify(claims))}`;
  const bytes = new TextEncoder().encode(signed);
  return `${signed}.${base64Url(new Uint8Array(await crypto.subtle.sign(key.algorithm.name, key, bytes)))}`;
}

function encode(text: string): string {
  return base64Url(new TextEncoder().encode(text));
}

function base64Url(bytes: Uint8Array): string {
  const letters = Array.from(bytes, (byte) => String.fromCharCode(byte)).join("");
  return btoa(letters).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}
