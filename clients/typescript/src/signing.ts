/** Signs user tokens on the server that holds a signing key (docs/signing.md). */
import { WeirError } from "./error.js";
import type { Minted, MintOptions } from "./server.js";

interface Names {
  kid: string;
  tid: string;
  pid: string;
}

const RS256 = { name: "RSASSA-PKCS1-v1_5", hash: "SHA-256" };
const PEM = /-----BEGIN ([A-Z ]*PRIVATE KEY)-----([A-Za-z0-9+/=\s]+)-----END \1-----/;

/** Returns the DER of a PKCS#8 private key. Throws WeirError "bad_configuration". */
export function signingKey(key: string): Uint8Array<ArrayBuffer> {
  const bare = key.trim().replace(/^behest_pk_/, "").replaceAll("\\n", "\n");
  const pem = PEM.exec(bare) ?? PEM.exec(decoded(bare));
  if (!pem) {
    throw new WeirError("The key is no API key (behest_sk_live_…, sk_live_…) and no private key.", {
      code: "bad_configuration",
    });
  }
  if (pem[1] !== "PRIVATE KEY") {
    throw new WeirError(
      `The signing key is a ${pem[1]}. It has to be PKCS#8: openssl pkcs8 -topk8 -nocrypt -in key.pem`,
      { code: "bad_configuration" },
    );
  }
  return bytes(atob(pem[2]!.replace(/\s/g, "")));
}

export async function signToken(der: Uint8Array<ArrayBuffer>, names: Names, mint: MintOptions): Promise<Minted> {
  const key = await crypto.subtle.importKey("pkcs8", der, RS256, false, ["sign"]);
  const iat = Math.floor(Date.now() / 1000);
  const ttl = mint.ttl ?? 900;
  const sessionId = mint.session_id ?? crypto.randomUUID();
  const claims = {
    tid: names.tid,
    pid: names.pid,
    uid: mint.user_id,
    role: "user",
    scp: [],
    iss: "behest",
    aud: "behest",
    iat,
    nbf: iat,
    exp: iat + ttl,
    jti: crypto.randomUUID(),
    sid: sessionId,
    ...(mint.tier === undefined ? {} : { tier: mint.tier }),
  };
  const text = [{ alg: "RS256", typ: "JWT", kid: names.kid }, claims]
    .map((part) => base64url(new TextEncoder().encode(JSON.stringify(part))))
    .join(".");
  const signature = await crypto.subtle.sign(RS256.name, key, new TextEncoder().encode(text));
  return { token: `${text}.${base64url(new Uint8Array(signature))}`, ttl, sessionId, expiresAt: claims.exp };
}

function decoded(base64: string): string {
  try {
    return atob(base64.replace(/\s/g, ""));
  } catch {
    return "";
  }
}

function bytes(binary: string): Uint8Array<ArrayBuffer> {
  return Uint8Array.from(binary, (character) => character.charCodeAt(0));
}

function base64url(of: Uint8Array): string {
  const binary = Array.from(of, (byte) => String.fromCharCode(byte)).join("");
  return btoa(binary).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}
