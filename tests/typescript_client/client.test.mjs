/** The browser core over real HTTP, in front of a gateway that each test scripts. */
import assert from "node:assert/strict";
import { getEventListeners } from "node:events";
import test from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { load } from "./built.mjs";
import { begin, CHAT, clock, collect, DONE, FRAME, gateway, json, refusal, STOP, tokens } from "./gateway.mjs";

const { createClient, WeirError } = await load("weir-client");
const BODY = { messages: [{ role: "user", content: "Hello" }] };
const post = (body = JSON.stringify(BODY), more = {}) => ({ method: "POST", body, ...more });
const hold = (reply) => begin(reply, FRAME);

// --- tokens -------------------------------------------------------------------------------------

test("callers at the same time share one token request", async () => {
  const getToken = tokens();
  const client = createClient({ baseUrl: "https://weir.example", getToken });
  const all = await Promise.all([client.token(), client.token(), client.token(true)]);
  assert.deepEqual(all.map(({ token }) => token), ["t1", "t1", "t1"]);
});

test("a token is renewed a minute before it ends", async (t) => {
  const time = clock(t);
  const client = createClient({ baseUrl: "https://weir.example", getToken: tokens() });
  assert.equal((await client.token()).token, "t1");
  time.forward(838);
  assert.equal((await client.token()).token, "t1");
  time.forward(3);
  assert.equal((await client.token()).token, "t2");
});

test("a token of a minute is kept for half of it", async (t) => {
  const time = clock(t);
  const client = createClient({ baseUrl: "https://weir.example", getToken: tokens({ ttl: 60 }) });
  await client.token();
  time.forward(28);
  assert.equal((await client.token()).token, "t1");
  time.forward(3);
  assert.equal((await client.token()).token, "t2");
});

test("the time that a slow token route takes counts as the token's life", async (t) => {
  const time = clock(t);
  let calls = 0;
  const getToken = async () => {
    time.forward(50);
    return { token: `t${++calls}`, ttl: 120 };
  };
  const client = createClient({ baseUrl: "https://weir.example", getToken });
  await client.token();
  time.forward(15);
  assert.equal((await client.token()).token, "t2");
});

test("after a laptop's sleep the token is renewed", async (t) => {
  const time = clock(t);
  const client = createClient({ baseUrl: "https://weir.example", getToken: tokens() });
  await client.token();
  time.forward(8 * 3600);
  assert.equal((await client.token()).token, "t2");
});

test("a clock that is set back ends the belief in the token", async (t) => {
  const time = clock(t);
  const client = createClient({ baseUrl: "https://weir.example", getToken: tokens() });
  await client.token();
  time.forward(-3600);
  assert.equal((await client.token()).token, "t2");
});

test("ttl counts, and not the server's clock", async () => {
  const getToken = tokens({ ttl: 900, expiresAt: 1 });
  const client = createClient({ baseUrl: "https://weir.example", getToken });
  await client.token();
  assert.equal((await client.token()).token, "t1");
});

test("without ttl, expiresAt counts", async (t) => {
  const time = clock(t);
  const getToken = tokens({ expiresAt: Date.now() / 1000 + 900 });
  const client = createClient({ baseUrl: "https://weir.example", getToken });
  await client.token();
  time.forward(800);
  assert.equal((await client.token()).token, "t1");
  time.forward(50);
  assert.equal((await client.token()).token, "t2");
});

test("what getToken throws, the call throws, and the next call tries again", async (t) => {
  const server = await gateway(t);
  let fails = true;
  const getToken = async () => {
    if (fails) throw new Error("signed out");
    return { token: "t", ttl: 900 };
  };
  const client = createClient({ baseUrl: server.baseUrl, getToken });
  await assert.rejects(client.fetch(server.baseUrl + CHAT, post()), /signed out/);
  assert.equal(server.calls.length, 0);
  fails = false;
  assert.equal((await client.fetch(server.baseUrl + CHAT, post())).status, 200);
});

test("a reply without a token is an error that says so", async () => {
  const getToken = async () => ({ error: "signed out" });
  const client = createClient({ baseUrl: "https://weir.example", getToken });
  await assert.rejects(client.token(), { code: "no_token" });
});

test("two clients, as two tabs, share nothing", async () => {
  const getToken = tokens();
  const [one, other] = [0, 1].map(() => createClient({ baseUrl: "https://weir.example", getToken }));
  assert.notEqual((await one.token()).token, (await other.token()).token);
});

// --- fetch --------------------------------------------------------------------------------------

for (const written of ["", "/", "/v1", "/v1/", "/stage", "/stage/v1"]) {
  test(`a base URL that ends in "${written}" is understood`, () => {
    const client = createClient({ baseUrl: `https://weir.example${written}`, getToken: tokens() });
    assert.equal(client.baseUrl, `https://weir.example${written.startsWith("/stage") ? "/stage" : ""}`);
  });
}

test("a chat request carries token, session and an id of its own", async (t) => {
  const server = await gateway(t);
  const client = createClient({ baseUrl: server.baseUrl, getToken: tokens() });
  for (const _ of [1, 2]) await (await client.fetch(server.baseUrl + CHAT, post())).text();
  const [first, second] = server.chats().map((call) => call.headers);
  assert.equal(first.authorization, "Bearer t1");
  assert.equal(first["x-session-id"], "s_1");
  assert.match(first["x-client-request-id"], /^[0-9a-f]{32}$/);
  assert.notEqual(first["x-client-request-id"], second["x-client-request-id"]);
});

test("another address gets neither token nor session", async (t) => {
  const [ours, other] = [await gateway(t), await gateway(t)];
  const client = createClient({ baseUrl: ours.baseUrl, getToken: tokens() });
  await client.fetch(other.baseUrl + CHAT, post());
  // Not our address either, although it begins alike.
  const longer = createClient({ baseUrl: other.baseUrl.slice(0, -1), getToken: tokens() });
  await longer.fetch(other.baseUrl + CHAT, post());
  for (const { headers } of other.calls) {
    assert.equal(headers.authorization, undefined);
    assert.equal(headers["x-session-id"], undefined);
  }
  assert.equal(other.calls.length, 2);
});

for (const [form, headers] of [
  ["an object", { "X-Session-Id": "mine", "X-Client-Request-Id": "r-1", Authorization: "Bearer x" }],
  ["a list", [["x-session-id", "mine"], ["x-client-request-id", "r-1"], ["authorization", "Bearer x"]]],
  ["Headers", new Headers({ "x-session-id": "mine", "x-client-request-id": "r-1", authorization: "Bearer x" })],
]) {
  test(`headers as ${form}: the session and the id stay, the token is ours`, async (t) => {
    const server = await gateway(t);
    const client = createClient({ baseUrl: server.baseUrl, getToken: tokens() });
    await client.fetch(server.baseUrl + CHAT, post(undefined, { headers }));
    const sent = server.chats()[0].headers;
    assert.equal(sent["x-session-id"], "mine");
    assert.equal(sent["x-client-request-id"], "r-1");
    assert.equal(sent.authorization, "Bearer t1");
  });
}

const BODIES = {
  "a string": () => post("body"),
  bytes: () => post(new TextEncoder().encode("body")),
  "a blob": () => post(new Blob(["body"])),
  "a stream": () => post(new Blob(["body"]).stream(), { duplex: "half" }),
  "a Request": (url) => new Request(url, post("body")),
};
for (const [form, make] of Object.entries(BODIES)) {
  test(`a refused token is renewed once, and ${form} is sent again`, async (t) => {
    const server = await gateway(t, (reply, call, number) =>
      number === 1 ? refusal(reply, 401, "invalid_token") : json(reply, 200, { ok: true }),
    );
    const client = createClient({ baseUrl: server.baseUrl, getToken: tokens() });
    const made = make(server.baseUrl + CHAT);
    const reply = await (made instanceof Request ? client.fetch(made) : client.fetch(server.baseUrl + CHAT, made));
    assert.deepEqual(await reply.json(), { ok: true });
    assert.deepEqual(server.chats().map((call) => call.body), ["body", "body"]);
    assert.deepEqual(server.chats().map((call) => call.headers.authorization), ["Bearer t1", "Bearer t2"]);
  });
}

test("a token that is refused twice is not renewed again", async (t) => {
  const server = await gateway(t, (reply) => refusal(reply, 401, "invalid_token"));
  const client = createClient({ baseUrl: server.baseUrl, getToken: tokens() });
  assert.equal((await client.fetch(server.baseUrl + CHAT, post())).status, 401);
  assert.equal(server.chats().length, 2);
});

test("calls that are refused together renew the token once", async (t) => {
  const server = await gateway(t, (reply, call) =>
    call.headers.authorization === "Bearer t1" ? refusal(reply, 401, "invalid_token") : json(reply, 200, {}),
  );
  const getToken = tokens();
  const client = createClient({ baseUrl: server.baseUrl, getToken });
  const replies = await Promise.all([1, 2, 3].map(() => client.fetch(server.baseUrl + CHAT, post())));
  assert.deepEqual(replies.map(({ status }) => status), [200, 200, 200]);
  assert.equal(getToken.calls, 2);
});

for (const status of [400, 403, 404, 429, 500, 503]) {
  test(`a ${status} is no reason to renew the token`, async (t) => {
    const server = await gateway(t, (reply) => refusal(reply, status, "refused"));
    const client = createClient({ baseUrl: server.baseUrl, getToken: tokens() });
    assert.equal((await client.fetch(server.baseUrl + CHAT, post())).status, status);
    assert.equal(server.chats().length, 1);
  });
}

test("a response keeps its address, headers and status", async (t) => {
  const server = await gateway(t);
  const client = createClient({ baseUrl: server.baseUrl, getToken: tokens() });
  const reply = await client.fetch(server.baseUrl + CHAT, post());
  assert.equal(reply.url, server.baseUrl + CHAT);
  assert.equal(reply.headers.get("x-request-id"), "req-1");
  assert.equal(await reply.text(), FRAME + STOP + DONE);
});

// --- abort --------------------------------------------------------------------------------------

test("aborted before it begins, nothing is sent", async (t) => {
  const server = await gateway(t);
  const client = createClient({ baseUrl: server.baseUrl, getToken: tokens() });
  const signal = AbortSignal.abort();
  await assert.rejects(client.fetch(server.baseUrl + CHAT, post(undefined, { signal })), { name: "AbortError" });
  assert.equal(server.calls.length, 0);
});

test("aborted while the token is fetched, it ends at once and nothing is sent", async (t) => {
  const server = await gateway(t);
  const client = createClient({ baseUrl: server.baseUrl, getToken: () => new Promise(() => {}) });
  const controller = new AbortController();
  const reply = client.fetch(server.baseUrl + CHAT, post(undefined, { signal: controller.signal }));
  setImmediate(() => controller.abort());
  await assert.rejects(reply, { name: "AbortError" });
  assert.equal(server.calls.length, 0);
});

test("aborted before the first byte, it is cancelled by its own id", async (t) => {
  const server = await gateway(t, () => {});
  const client = createClient({ baseUrl: server.baseUrl, getToken: tokens() });
  const controller = new AbortController();
  const reply = client.fetch(server.baseUrl + CHAT, post(undefined, { signal: controller.signal }));
  await server.until(() => server.chats().length === 1);
  controller.abort();
  await assert.rejects(reply, { name: "AbortError" });
  await server.until(() => server.cancels().length === 1);
  const id = server.chats()[0].headers["x-client-request-id"];
  assert.equal(server.cancels()[0].url, `${CHAT}/${id}/cancel`);
  assert.equal(server.cancels()[0].headers.authorization, "Bearer t1");
});

test("a cancel that overtook its request is repeated once", async (t) => {
  const server = await gateway(t, () => {}, (reply, call) => {
    if (!call.url.endsWith("/cancel")) return false;
    refusal(reply, 404, "not_found");
    return true;
  });
  const client = createClient({ baseUrl: server.baseUrl, getToken: tokens() });
  const controller = new AbortController();
  const reply = client.fetch(server.baseUrl + CHAT, post(undefined, { signal: controller.signal }));
  await server.until(() => server.chats().length === 1);
  controller.abort();
  await assert.rejects(reply);
  await server.until(() => server.cancels().length === 2);
  await sleep(100);
  assert.equal(server.cancels().length, 2);
});

test("aborted during the answer, it is cancelled once", async (t) => {
  const server = await gateway(t, hold);
  const client = createClient({ baseUrl: server.baseUrl, getToken: tokens() });
  const controller = new AbortController();
  const reply = await client.fetch(server.baseUrl + CHAT, post(undefined, { signal: controller.signal }));
  const reader = reply.body.getReader();
  await reader.read();
  controller.abort();
  await assert.rejects(reader.read(), { name: "AbortError" });
  await reader.cancel().catch(() => {});
  await server.until(() => server.cancels().length === 1);
  await sleep(50);
  assert.equal(server.cancels().length, 1);
});

test("a reader that leaves before the end cancels the answer, too", async (t) => {
  const server = await gateway(t, hold);
  const client = createClient({ baseUrl: server.baseUrl, getToken: tokens() });
  for await (const _ of client.chat(BODY)) break;
  await server.until(() => server.cancels().length === 1);
});

for (const [name, last] of [["its [DONE]", DONE], ["its error frame", 'data: {"error":{"message":"x"}}\n\n']]) {
  test(`after ${name}, an answer is not cancelled any more`, async (t) => {
    // The connection stays open, and the frame comes in two pieces.
    const server = await gateway(t, (reply) => {
      begin(reply, FRAME, STOP + last.slice(0, 8));
      setTimeout(() => reply.write(last.slice(8)), 20);
    });
    const client = createClient({ baseUrl: server.baseUrl, getToken: tokens() });
    const controller = new AbortController();
    const reply = await client.fetch(server.baseUrl + CHAT, post(undefined, { signal: controller.signal }));
    const reader = reply.body.pipeThrough(new TextDecoderStream()).getReader();
    let text = "";
    while (!text.endsWith(last)) text += (await reader.read()).value;
    controller.abort();
    await reader.cancel().catch(() => {});
    await sleep(50);
    assert.equal(server.cancels().length, 0);
  });
}

test("an answer that quotes the end of a stream is not at its end", async (t) => {
  const quoted = JSON.stringify({ choices: [{ index: 0, delta: { content: "\ndata: [DONE]\n\n" }, finish_reason: null }] });
  const server = await gateway(t, (reply) => begin(reply, `data: ${quoted}\n\n`));
  const client = createClient({ baseUrl: server.baseUrl, getToken: tokens() });
  for await (const _ of client.chat(BODY)) break;
  await server.until(() => server.cancels().length === 1);
});

test("a signal that outlives its requests keeps no listener of theirs", async (t) => {
  const server = await gateway(t, (reply, call, number) =>
    number % 2 ? json(reply, 200, {}) : (begin(reply, FRAME, STOP), reply.end(DONE)),
  );
  const client = createClient({ baseUrl: server.baseUrl, getToken: tokens() });
  const { signal } = new AbortController();
  for (let n = 0; n < 4; n++) await (await client.fetch(server.baseUrl + CHAT, post(undefined, { signal }))).text();
  const removed = getEventListeners(signal, "abort").filter((one) => one.name === "onAbort");
  assert.deepEqual(removed, []);
});

test("other routes are not cancelled", async (t) => {
  const server = await gateway(t, undefined, (reply, call) => call.url === "/v1/me");
  const client = createClient({ baseUrl: server.baseUrl, getToken: tokens() });
  const controller = new AbortController();
  const reply = client.json("/v1/me", { signal: controller.signal });
  await server.until(() => server.calls.length === 1);
  controller.abort();
  await assert.rejects(reply, { name: "AbortError" });
  await sleep(50);
  assert.equal(server.calls.length, 1);
  assert.equal(server.calls[0].headers["x-client-request-id"], undefined);
});

// --- fetches that fail --------------------------------------------------------------------------

function heard(t) {
  const own = console.error;
  const words = [];
  console.error = (line) => words.push(line);
  t.after(() => (console.error = own));
  return words;
}

/** A gateway whose chat connections break, and which says this about the page's origin. */
function broken(t, verdict) {
  return gateway(t, (reply) => reply.destroy(), (reply, call) => {
    if (call.url !== "/v1/cors") return false;
    json(reply, 200, verdict);
    return true;
  });
}

test("a page that is not listed is told the command, once a minute", async (t) => {
  const words = heard(t);
  const time = clock(t);
  const verdict = { origin: "https://a.example", allowed: false, message: "It is not listed." };
  const server = await broken(t, verdict);
  const client = createClient({ baseUrl: server.baseUrl, getToken: tokens() });
  const ask = () => assert.rejects(client.fetch(server.baseUrl + CHAT, post()), { name: "TypeError", reason: "origin_not_allowed" });
  await ask();
  await ask();
  assert.equal(words.length, 1);
  assert.match(words[0], /It is not listed\. To allow it: weir origins add https:\/\/a\.example$/);
  time.forward(61);
  await ask();
  assert.equal(words.length, 2);
});

test("a page that is listed is told that the network failed", async (t) => {
  const words = heard(t);
  const server = await broken(t, { origin: "https://a.example", allowed: true, message: "It is allowed." });
  const client = createClient({ baseUrl: server.baseUrl, getToken: tokens() });
  await assert.rejects(client.fetch(server.baseUrl + CHAT, post()), { reason: "network" });
  assert.doesNotMatch(words[0], /origins add/);
});

test("a page without an address is not told to list it", async (t) => {
  const words = heard(t);
  const server = await broken(t, { origin: "null", allowed: false, message: "It cannot be allowed." });
  const client = createClient({ baseUrl: server.baseUrl, getToken: tokens() });
  await assert.rejects(client.fetch(server.baseUrl + CHAT, post()), { reason: "origin_not_allowed" });
  assert.match(words[0], /It cannot be allowed\.$/);
});

test("a gateway that is not there is said to be unreachable", async (t) => {
  const words = heard(t);
  const client = createClient({ baseUrl: "http://127.0.0.1:1", getToken: tokens() });
  await assert.rejects(client.json("/v1/me"), { name: "TypeError", reason: "unreachable" });
  assert.match(words[0], /http:\/\/127\.0\.0\.1:1 cannot be reached/);
});

test("a token route that cannot be reached is not blamed on the gateway", async (t) => {
  const words = heard(t);
  const server = await gateway(t);
  const getToken = () => Promise.reject(new TypeError("Failed to fetch"));
  const client = createClient({ baseUrl: server.baseUrl, getToken });
  await assert.rejects(client.json("/v1/me"), { message: "Failed to fetch" });
  assert.deepEqual(words, []);
});

// --- chat and json ------------------------------------------------------------------------------

test("a chat streams its chunks", async (t) => {
  const server = await gateway(t);
  const client = createClient({ baseUrl: server.baseUrl, getToken: tokens() });
  const chunks = await collect(client.chat(BODY, { threadId: "th_1", headers: { "FC-Tag": "x" } }));
  assert.equal(chunks[0].choices[0].delta.content, "Hi");
  assert.equal(chunks.length, 2);
  const [{ headers, body }] = server.chats();
  assert.deepEqual(JSON.parse(body), { ...BODY, stream: true });
  assert.equal(headers["x-thread-id"], "th_1");
  assert.equal(headers["fc-tag"], "x");
  assert.equal(headers["content-type"], "application/json");
});

test("a refusal is a WeirError with all that the gateway says", async (t) => {
  const details = { reason: "why", limit_name: "rpm" };
  const server = await gateway(t, (reply) =>
    refusal(reply, 429, "rate_limited", { details }, { "retry-after": "7", "x-request-id": "req-2" }),
  );
  const client = createClient({ baseUrl: server.baseUrl, getToken: tokens() });
  const error = await collect(client.chat(BODY)).catch((thrown) => thrown);
  assert.ok(error instanceof WeirError && error instanceof Error);
  const { name, message, status, code, type, requestId, retryAfter, reason } = error;
  assert.deepEqual(
    { name, message, status, code, type, requestId, retryAfter, reason },
    { name: "WeirError", message: "It is rate_limited.", status: 429, code: "rate_limited", type: "api_error", requestId: "req-2", retryAfter: 7, reason: "why" },
  );
  assert.equal(error.details.limit_name, "rpm");
});

test("a refusal that is no JSON is a WeirError, too", async (t) => {
  const server = await gateway(t, (reply) => {
    reply.writeHead(502, { "content-type": "text/html" });
    reply.end("<h1>Bad gateway</h1>");
  });
  const client = createClient({ baseUrl: server.baseUrl, getToken: tokens() });
  await assert.rejects(collect(client.chat(BODY)), { name: "WeirError", status: 502, code: "http_error" });
});

test("an error within the stream is a WeirError, after what came before it", async (t) => {
  const server = await gateway(t, (reply) => {
    begin(reply, FRAME);
    reply.end('data: {"error":{"message":"The provider failed.","type":"api_error","code":"upstream_error"}}\n\n');
  });
  const client = createClient({ baseUrl: server.baseUrl, getToken: tokens() });
  const seen = [];
  await assert.rejects(async () => {
    for await (const chunk of client.chat(BODY)) seen.push(chunk);
  }, { name: "WeirError", code: "upstream_error", message: "The provider failed.", requestId: "req-1", status: undefined });
  assert.equal(seen.length, 1);
});

for (const [name, end] of [
  ["in order", (reply) => reply.end()],
  ["by a broken connection", (reply) => setTimeout(() => reply.destroy(), 20)],
  ["within a frame", (reply) => reply.end('data: {"choices":[{"del')],
  ["with a frame that is no JSON", (reply) => reply.end("data: {oops\n\n")],
]) {
  test(`an answer that ends ${name} without a finish_reason is cut`, async (t) => {
    const server = await gateway(t, (reply) => {
      begin(reply, FRAME);
      end(reply);
    });
    const client = createClient({ baseUrl: server.baseUrl, getToken: tokens() });
    await assert.rejects(collect(client.chat(BODY)), { name: "WeirError", code: "stream_cut", requestId: "req-1" });
  });
}

test("a chat that is aborted throws the AbortError", async (t) => {
  const server = await gateway(t, hold);
  const client = createClient({ baseUrl: server.baseUrl, getToken: tokens() });
  const controller = new AbortController();
  await assert.rejects(async () => {
    for await (const _ of client.chat(BODY, { signal: controller.signal })) controller.abort();
  }, { name: "AbortError" });
  await server.until(() => server.cancels().length === 1);
});

test("json reads an answer, and nothing of a 204", async (t) => {
  const server = await gateway(t, undefined, (reply, call) => {
    if (call.method === "DELETE") reply.writeHead(204).end();
    else json(reply, 200, { object: "me", sent: call.headers["content-type"] });
    return true;
  });
  const client = createClient({ baseUrl: server.baseUrl, getToken: tokens() });
  assert.equal((await client.json("/v1/me")).object, "me");
  assert.equal(await client.json("/v1/threads/x", { method: "DELETE" }), undefined);
  const renamed = await client.json("/v1/threads/x", { method: "PATCH", body: '{"title":"x"}' });
  assert.equal(renamed.sent, "application/json");
});

test("json throws a WeirError, of OAuth's form, too", async (t) => {
  const server = await gateway(t, undefined, (reply) => {
    json(reply, 400, { error: "invalid_request", error_description: "No token.", reason: "malformed" });
    return true;
  });
  const client = createClient({ baseUrl: server.baseUrl, getToken: tokens() });
  await assert.rejects(client.json("/v1/token"), { name: "WeirError", status: 400, code: "invalid_request", message: "No token.", reason: "malformed" });
});
