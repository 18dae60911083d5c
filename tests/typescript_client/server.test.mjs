/** The server half, over real HTTP and real signatures. */
import assert from "node:assert/strict";
import { createHmac, createPublicKey, generateKeyPairSync, verify } from "node:crypto";
import test from "node:test";
import { load } from "./built.mjs";
import { begin, collect, DONE, FRAME, gateway, json, refusal, STOP } from "./gateway.mjs";

const { Weir, verifyWebhook, WeirError } = await load("weir-client/server");

const KEY = "behest_sk_live_0123456789abcdef0123456789abcdef";
const VARIABLES = /^(WEIR|BEHEST|FC)_/;
for (const name of Object.keys(process.env)) if (VARIABLES.test(name) && name !== "WEIR_CLIENT") delete process.env[name];

// --- settings -----------------------------------------------------------------------------------

function set(t, variables) {
  Object.assign(process.env, variables);
  t.after(() => Object.keys(variables).forEach((name) => delete process.env[name]));
}

test("what is missing is named", () => {
  assert.throws(() => new Weir(), { code: "misconfigured", message: /WEIR_KEY \(or BEHEST_KEY/ });
  assert.throws(() => new Weir({ key: KEY }), { code: "misconfigured", message: /WEIR_BASE_URL/ });
  const signing = { key: "behest_pk_x", baseUrl: "https://weir.example" };
  assert.throws(() => new Weir(signing), { code: "misconfigured", message: /WEIR_KID/ });
});

for (const prefix of ["WEIR", "BEHEST", "FC"]) {
  test(`${prefix}_ variables are read`, (t) => {
    set(t, { [prefix === "FC" ? "FC_API_KEY" : `${prefix}_KEY`]: KEY, [`${prefix}_BASE_URL`]: "https://weir.example/v1/" });
    assert.equal(new Weir().baseUrl, "https://weir.example");
  });
}

test("the key is in no JSON and no inspection", async () => {
  const { inspect } = await import("node:util");
  const weir = new Weir({ key: KEY, baseUrl: "https://weir.example" });
  for (const text of [JSON.stringify(weir), inspect(weir, { depth: 9, showHidden: true })]) assert.ok(!text.includes("0123456789abcdef"));
});

// --- mint ---------------------------------------------------------------------------------------

const minted = (call) => ({
  jwt: `jwt-of-${JSON.parse(call.body).user_id}`,
  token: `jwt-of-${JSON.parse(call.body).user_id}`,
  ttl: JSON.parse(call.body).ttl,
  sessionId: "s_1",
  expiresAt: 1,
});

/** A gateway that mints, and answers everything else as `answer` says. */
function minting(t, answer, others = () => false) {
  return gateway(t, answer, (reply, call) => {
    if (others(reply, call)) return true;
    if (call.url !== "/v1/auth/mint") return false;
    json(reply, 200, minted(call));
    return true;
  });
}

test("mint asks with the API key, and returns what a page needs", async (t) => {
  const server = await minting(t);
  const weir = new Weir({ key: KEY, baseUrl: server.baseUrl });
  const reply = await weir.auth.mint({ user_id: "u_1", tier: "pro" });
  assert.deepEqual(reply, { token: "jwt-of-u_1", ttl: 900, sessionId: "s_1", expiresAt: 1 });
  const [{ headers, body }] = server.calls;
  assert.equal(headers.authorization, `Bearer ${KEY}`);
  assert.deepEqual(JSON.parse(body), { user_id: "u_1", tier: "pro", ttl: 900 });
});

for (const [name, options] of [
  ["no user", {}],
  ["an empty user", { user_id: "" }],
  ["a number", { user_id: 7 }],
  ["a reserved user", { user_id: "Admin" }],
  ["a line break", { user_id: "a\nb" }],
  ["a bidirectional override", { user_id: "a\u202eb" }],
  ["a lone surrogate", { user_id: "a\ud800" }],
  ["256 characters", { user_id: "x".repeat(256) }],
  ["a short ttl", { user_id: "u", ttl: 59 }],
  ["a fraction", { user_id: "u", ttl: 90.5 }],
  ["an empty session", { user_id: "u", session_id: "" }],
]) {
  test(`mint refuses ${name} before it calls`, async (t) => {
    const server = await minting(t);
    const weir = new Weir({ key: KEY, baseUrl: server.baseUrl });
    await assert.rejects(weir.auth.mint(options), { name: "WeirError", code: "validation_error" });
    assert.equal(server.calls.length, 0);
  });
}

test("255 letters of several bytes are an identifier", async (t) => {
  const server = await minting(t);
  await new Weir({ key: KEY, baseUrl: server.baseUrl }).auth.mint({ user_id: "𝄞".repeat(255) });
});

test("a refusal of mint is a WeirError", async (t) => {
  const server = await gateway(t, undefined, (reply) => (refusal(reply, 401, "invalid_token"), true));
  const weir = new Weir({ key: KEY, baseUrl: server.baseUrl });
  const error = await weir.auth.mint({ user_id: "u" }).catch((thrown) => thrown);
  assert.ok(error instanceof WeirError);
  assert.equal(error.status, 401);
});

// --- signing ------------------------------------------------------------------------------------

const pair = generateKeyPairSync("rsa", { modulusLength: 2048 });
const PEM = pair.privateKey.export({ type: "pkcs8", format: "pem" });
const base64 = (text) => Buffer.from(text).toString("base64");
const SIGNING = { baseUrl: "https://weir.example", kid: "sk_1", tenantId: "t_1", projectId: "shop" };

for (const [name, key] of Object.entries({
  "base64 of a PEM": base64(PEM),
  "a PEM": PEM,
  "behest_pk_ and a PEM": `behest_pk_${PEM}`,
  "behest_pk_ and base64 of a PEM": `behest_pk_${base64(PEM)}`,
  "a PEM with \\n, as in an environment file": PEM.replaceAll("\n", "\\n"),
  "a PEM on one line": `behest_pk_${PEM.replaceAll("\n", " ")}`,
})) {
  test(`a token is signed with ${name}`, async () => {
    const before = Math.floor(Date.now() / 1000);
    const reply = await new Weir({ ...SIGNING, key }).auth.mint({ user_id: "ü_1", tier: 2, ttl: 600, session_id: "s_1" });
    const [head, body, signature] = reply.token.split(".");
    const read = (part) => JSON.parse(Buffer.from(part, "base64url"));
    assert.deepEqual(read(head), { alg: "RS256", typ: "JWT", kid: "sk_1" });
    const { iat, nbf, exp, jti, ...claims } = read(body);
    assert.deepEqual(claims, { tid: "t_1", pid: "shop", uid: "ü_1", role: "user", scp: [], iss: "behest", aud: "behest", sid: "s_1", tier: 2 });
    assert.ok(iat >= before && nbf === iat && exp === iat + 600 && jti);
    assert.ok(verify("RSA-SHA256", Buffer.from(`${head}.${body}`), createPublicKey(pair.privateKey), Buffer.from(signature, "base64url")));
    assert.deepEqual({ ...reply, token: "" }, { token: "", ttl: 600, sessionId: "s_1", expiresAt: exp });
  });
}

for (const [name, key, message] of [
  ["PKCS#1", pair.privateKey.export({ type: "pkcs1", format: "pem" }), /openssl pkcs8 -topk8/],
  ["a public key", pair.publicKey.export({ type: "spki", format: "pem" }), /PUBLIC KEY/],
  ["an encrypted key", pair.privateKey.export({ type: "pkcs8", format: "pem", cipher: "aes-256-cbc", passphrase: "x" }), /ENCRYPTED/],
  ["an elliptic key", generateKeyPairSync("ec", { namedCurve: "P-256" }).privateKey.export({ type: "pkcs8", format: "pem" }), /no RSA/],
  ["text", "not a key!", /neither a PEM/],
]) {
  test(`${name} is refused clearly as a signing key`, async () => {
    const weir = new Weir({ ...SIGNING, key });
    await assert.rejects(weir.auth.mint({ user_id: "u" }), { code: "misconfigured", message });
  });
}

test("a signing key makes no customers", async () => {
  await assert.rejects(new Weir({ ...SIGNING, key: PEM }).customers.put("u"), { code: "misconfigured" });
});

// --- chat ---------------------------------------------------------------------------------------

test("each user's chats share one token, and no two users do", async (t) => {
  const server = await minting(t, (reply) => json(reply, 200, { id: "c", choices: [] }));
  const weir = new Weir({ key: KEY, baseUrl: server.baseUrl });
  const messages = [{ role: "user", content: "Hello" }];
  for (const user_id of ["u_1", "u_2", "u_1"]) {
    assert.equal((await weir.chat.completions.create({ user_id, messages })).id, "c");
  }
  assert.deepEqual(server.chats().map((call) => call.headers.authorization), ["Bearer jwt-of-u_1", "Bearer jwt-of-u_2", "Bearer jwt-of-u_1"]);
  assert.equal(server.calls.length, 5);
  assert.deepEqual(JSON.parse(server.chats()[0].body), { messages });
});

test("a chat streams, and a thread is named", async (t) => {
  const server = await minting(t, (reply) => (begin(reply, FRAME, STOP), reply.end(DONE)));
  const weir = new Weir({ key: KEY, baseUrl: server.baseUrl });
  const request = { user_id: "u_1", messages: [], stream: true };
  const chunks = await collect(await weir.chat.completions.create(request, { threadId: "th_1" }));
  assert.equal(chunks[0].choices[0].delta.content, "Hi");
  assert.equal(server.chats()[0].headers["x-thread-id"], "th_1");
});

test("a chat without a user is refused", () => {
  const weir = new Weir({ key: KEY, baseUrl: "https://weir.example" });
  assert.throws(() => weir.chat.completions.create({ messages: [] }), { code: "validation_error" });
});

// --- customers ----------------------------------------------------------------------------------

test("a customer's id is encoded, and ext: is put before it once", async (t) => {
  const server = await gateway(t, undefined, (reply, call) => {
    json(reply, 200, call.url.endsWith("client_tokens") ? { token: "ct", expires_at: 5, expires_in: 900 } : { id: "cust_1" });
    return true;
  });
  const weir = new Weir({ key: "sk_live_x", baseUrl: server.baseUrl });
  assert.deepEqual(await weir.customers.put("a/../ext:admin", { budget_usd: 5 }), { id: "cust_1" });
  const token = await weir.clientTokens.mint("ext:user_42", { origin_allowlist: ["https://a.example"] });
  assert.deepEqual(token, { token: "ct", expires_at: 5, expires_in: 900, expiresAt: 5, ttl: 900 });
  assert.deepEqual(server.calls.map(({ method, url }) => `${method} ${url}`), [
    "PUT /v1/customers/ext:a%2F..%2Fext%3Aadmin",
    "POST /v1/customers/ext:user_42/client_tokens",
  ]);
  assert.equal(server.calls[0].headers.authorization, "Bearer sk_live_x");
});

// --- webhooks -----------------------------------------------------------------------------------

const SECRET = "whsec_test";
const BODY = '{"id":"evt_1","note":"ü"}';
const now = () => Math.floor(Date.now() / 1000);
const sign = (at, secret = SECRET, body = BODY) => createHmac("sha256", secret).update(`${at}.${body}`).digest("hex");

test("a webhook of Weir's is verified, as text and as bytes", async () => {
  const at = now();
  const header = `t=${at},v1=${sign(at)}`;
  const bytes = new TextEncoder().encode(BODY);
  for (const body of [BODY, bytes, bytes.buffer, Buffer.from(BODY)]) assert.equal(await verifyWebhook(SECRET, header, body), true);
});

test("one of two signatures is enough, in any order", async () => {
  const at = now();
  const [old, mine] = [sign(at, "whsec_old"), sign(at)];
  for (const header of [`t=${at},v1=${old},v1=${mine}`, `v1=${mine}, v1=${old}, t=${at}`]) {
    assert.equal(await verifyWebhook(SECRET, header, BODY), true);
  }
});

for (const [name, make] of Object.entries({
  "no header": () => null,
  "an empty header": () => "",
  "no time": () => `v1=${sign(now())}`,
  "another secret": () => `t=${now()},v1=${sign(now(), "whsec_other")}`,
  "another body": () => `t=${now()},v1=${sign(now(), SECRET, "{}")}`,
  "another time than the signed one": () => `t=${now()},v1=${sign(now() - 1)}`,
  "an old one": () => `t=${now() - 302},v1=${sign(now() - 302)}`,
  "one from the future": () => `t=${now() + 302},v1=${sign(now() + 302)}`,
  "a time that is no whole number": () => `t=${now()}.0,v1=${sign(`${now()}.0`)}`,
  "a cut signature": () => `t=${now()},v1=${sign(now()).slice(2)}`,
  "an empty signature": () => `t=${now()},v1=`,
  "another version": () => `t=${now()},v0=${sign(now())}`,
})) {
  test(`a webhook with ${name} is refused`, async () => {
    assert.equal(await verifyWebhook(SECRET, make(), BODY), false);
  });
}

test("an empty secret verifies nothing", async () => {
  assert.equal(await verifyWebhook("", `t=${now()},v1=${"0".repeat(64)}`, BODY), false);
});
