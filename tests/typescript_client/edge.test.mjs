/** The server half in an edge runtime: no module of Node's, no `process`, no `Buffer`. */
import assert from "node:assert/strict";
import { createHmac, generateKeyPairSync } from "node:crypto";
import test from "node:test";
import { load } from "./built.mjs";
import { begin, DONE, FRAME, gateway, json, STOP } from "./gateway.mjs";

const { EdgeVM } = await load("@edge-runtime/vm");
const { buildSync } = await load("esbuild");

const { outputFiles } = buildSync({
  stdin: { contents: 'export * from "weir-client/server"', resolveDir: process.env.WEIR_CLIENT },
  bundle: true,
  write: false,
  platform: "neutral",
  format: "iife",
  globalName: "server",
});

/** Evaluate the expression, which may await, beside the bundle. */
function inEdge(expression, values = {}) {
  const vm = new EdgeVM();
  vm.evaluate(`${outputFiles[0].text}; globalThis.values = ${JSON.stringify(values)};`);
  return vm.evaluate(`(async () => { const { Weir, verifyWebhook } = server; return ${expression}; })()`);
}

test("the runtime has nothing of Node's", async () => {
  assert.equal(await inEdge("typeof process + typeof Buffer + typeof require"), "undefinedundefinedundefined");
});

test("a token is signed", async () => {
  const key = generateKeyPairSync("rsa", { modulusLength: 2048 }).privateKey.export({ type: "pkcs8", format: "pem" });
  const options = { key, baseUrl: "https://weir.example", kid: "sk_1", tenantId: "t", projectId: "p" };
  const token = await inEdge('(await new Weir(values).auth.mint({ user_id: "u" })).token', options);
  assert.equal(token.split(".").length, 3);
});

test("a webhook is verified", async () => {
  const at = Math.floor(Date.now() / 1000);
  const header = `t=${at},v1=${createHmac("sha256", "whsec").update(`${at}.{}`).digest("hex")}`;
  assert.equal(await inEdge('await verifyWebhook("whsec", values.header, "{}")', { header }), true);
});

test("a token is minted, and a chat streams", async (t) => {
  const server = await gateway(t, (reply) => (begin(reply, FRAME, STOP), reply.end(DONE)), (reply, call) => {
    if (call.url !== "/v1/auth/mint") return false;
    json(reply, 200, { token: "t1", ttl: 900, sessionId: "s_1", expiresAt: 1 });
    return true;
  });
  const options = { key: "behest_sk_live_x", baseUrl: server.baseUrl };
  const text = await inEdge(`await (async () => {
    let text = "";
    const request = { user_id: "u", messages: [], stream: true };
    for await (const chunk of await new Weir(values).chat.completions.create(request)) text += chunk.choices[0].delta.content ?? "";
    return text;
  })()`, options);
  assert.equal(text, "Hi");
  assert.equal(server.chats()[0].headers.authorization, "Bearer t1");
});
