/** Both halves against the running gateway: its own tokens, refusals, ids and cancellation. */
import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import test from "node:test";
import { load } from "./built.mjs";
import { collect } from "./gateway.mjs";

const { createClient } = await load("weir-client");
const { Weir } = await load("weir-client/server");
const { chatTransport } = await load("weir-client/ai");
const { openaiOptions } = await load("weir-client/openai");
const { default: OpenAI } = await load("openai");

const CHAT = "/v1/chat/completions";
const { TEST_REACHED, TEST_SIGNING, TEST_ORIGIN, TEST_FC_KEY, TEST_FC_MODEL } = process.env;
const weir = new Weir();
const HELLO = [{ role: "user", content: "Hello" }];
/** An answer of one word, and then nothing: the provider waits until the tests have ended. */
const steps = (...all) => [{ role: "user", content: JSON.stringify({ do: "steps", steps: all }) }];
const HELD = steps({ text: "begun" }, { point: "hold" });
const SILENT = steps({ point: "reached" }, { point: "hold" }, { text: "late" });

let users = 0;
/** A user of their own for each test, with a client that keeps what its fetch has got. */
function page(name = `u_ts_${users++}`) {
  const calls = [];
  const client = createClient({
    baseUrl: weir.baseUrl,
    getToken: () => weir.auth.mint({ user_id: name }),
    fetch: async (url, init) => {
      const reply = await fetch(url, init);
      calls.push({ url: `${url}`, status: reply.status, body: reply.clone() });
      return reply;
    },
  });
  return { client, calls, name, cancelled: () => until(() => calls.find(({ url }) => url.endsWith("/cancel"))) };
}

async function until(look, withinMs = 10_000) {
  const giveUp = Date.now() + withinMs;
  while (Date.now() < giveUp) {
    const found = await look();
    if (found) return found;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  throw new Error(`It never came true: ${look}`);
}

const textOf = (chunks) => chunks.map(({ choices }) => choices[0]?.delta.content ?? "").join("");

test("a page with a minted token gets an answer", async () => {
  const { client } = page();
  assert.ok(textOf(await collect(client.chat({ messages: HELLO }))));
  assert.equal((await client.json("/v1/me")).object, "me");
});

test("a token that was revoked is renewed, and the same request goes through", async () => {
  const { client, calls, name } = page();
  const { token } = await client.token();
  const revoked = await fetch(`${weir.baseUrl}/v1/auth/revoke`, {
    method: "POST",
    headers: { authorization: `Bearer ${process.env.WEIR_KEY}` },
    body: JSON.stringify({ token }),
  });
  assert.equal((await revoked.json()).revoked, true);
  assert.ok(textOf(await collect(client.chat({ messages: HELLO }, { headers: { "X-Client-Request-Id": `r-${name}` } }))));
  assert.deepEqual(calls.map(({ status }) => status), [401, 200]);
});

test("an answer that is left is cancelled at the gateway, once", async () => {
  const { client, calls, cancelled } = page();
  const controller = new AbortController();
  await assert.rejects(async () => {
    for await (const _ of client.chat({ messages: HELD }, { signal: controller.signal })) controller.abort();
  }, { name: "AbortError" });
  const { status, body } = await cancelled();
  assert.equal(status, 200);
  assert.equal((await body.json()).cancelled, true);
  assert.equal(calls.length, 2);
});

test("an answer that is left before its first byte is cancelled, too", async () => {
  const { client, cancelled } = page();
  const controller = new AbortController();
  const reply = collect(client.chat({ messages: SILENT }, { signal: controller.signal }));
  await until(() => existsSync(TEST_REACHED));
  controller.abort();
  await assert.rejects(reply, { name: "AbortError" });
  assert.equal((await cancelled()).status, 200);
});

test("an SDK's retry does not collide with the attempt that it gave up", async () => {
  const { client, calls } = page();
  const openai = new OpenAI({ ...openaiOptions(client), maxRetries: 1, timeout: 1_000 });
  await assert.rejects(openai.chat.completions.create({ model: "", messages: SILENT }), { name: "Error", message: /timed out/i });
  await until(() => calls.filter(({ url, status }) => url.endsWith("/cancel") && status === 200).length === 2);
  assert.ok(calls.every(({ status }) => status !== 409));
});

test("an id that the caller sets twice collides, so that a mistake is seen", async () => {
  const { client, name } = page();
  const controller = new AbortController();
  const headers = { "X-Client-Request-Id": `twice-${name}` };
  const open = client.chat({ messages: HELD }, { signal: controller.signal, headers })[Symbol.asyncIterator]();
  await open.next();
  await assert.rejects(collect(client.chat({ messages: HELLO }, { headers })), { status: 409, code: "conflict" });
  await open.return();
});

test("an error within the stream is thrown, after what came before it", async () => {
  const seen = [];
  await assert.rejects(async () => {
    for await (const chunk of page().client.chat({ messages: steps({ text: "half" }) })) seen.push(chunk);
  }, { name: "WeirError", code: "upstream_error", status: undefined });
  assert.equal(textOf(seen), "half");
});

test("useChat's transport streams, and keeps its thread", async () => {
  const { client, name } = page();
  const transport = chatTransport(client, { threads: true });
  const messages = [{ id: "m", role: "user", parts: [{ type: "text", text: "Hello" }] }];
  const stream = await transport.sendMessages({ trigger: "submit-message", chatId: `th_${name}`, messageId: undefined, messages, abortSignal: undefined });
  const parts = [];
  for await (const part of stream) parts.push(part.type);
  assert.deepEqual([parts[0], parts.at(-1)], ["start", "finish"]);
  const kept = await until(async () => {
    const all = await client.json(`/v1/threads/th_${name}/messages`).catch(() => []);
    return all.length === 2 && all;
  });
  assert.equal(kept[0].content, "Hello");
});

test("a server chats for a user", async () => {
  const request = { user_id: "u_ts_server", messages: HELLO };
  assert.ok((await weir.chat.completions.create(request)).choices[0].message.content);
  assert.ok(textOf(await collect(await weir.chat.completions.create({ ...request, stream: true }))));
});

test("what a server has signed is believed", async () => {
  const signs = new Weir(JSON.parse(TEST_SIGNING));
  assert.ok((await signs.chat.completions.create({ user_id: "u_ts_signed", messages: HELLO })).id);
  const { user_id } = await createClient({
    baseUrl: weir.baseUrl,
    getToken: () => signs.auth.mint({ user_id: "u_ts_signed", tier: "pro" }),
  }).json("/v1/me");
  assert.equal(user_id, "u_ts_signed");
});

test("a customer is made, and a client token of theirs chats from its page", async () => {
  const ringside = new Weir({ key: TEST_FC_KEY });
  const id = "user/42 ü".replace("/", "-");
  assert.equal((await ringside.customers.put(id, { budget_usd: 5 })).external_id, id);
  assert.equal((await ringside.customers.put(id, { budget_usd: 6 })).budget_usd, 6);
  const client = createClient({
    baseUrl: weir.baseUrl,
    getToken: () => ringside.clientTokens.mint(id, { origin_allowlist: [TEST_ORIGIN], bind_ip: false }),
    // As a browser would send it.
    fetch: (url, init) => fetch(url, { ...init, headers: { ...Object.fromEntries(new Headers(init.headers)), origin: TEST_ORIGIN } }),
  });
  assert.ok(textOf(await collect(client.chat({ model: TEST_FC_MODEL, messages: HELLO }))));
});
