/** What visitors read, for the errors of the packages as those packages throw them. */
import assert from "node:assert/strict";
import test from "node:test";
import { load } from "./built.mjs";
import { begin, clock, collect, FRAME, gateway, refusal, tokens } from "./gateway.mjs";

const { createClient } = await load("weir-client");
const { creditsLeft, explain } = await load("weir-client/explain");
const { openaiOptions } = await load("weir-client/openai");
const { languageModelOptions } = await load("weir-client/ai");
const { default: OpenAI } = await load("openai");
const { createOpenAICompatible } = await load("@ai-sdk/openai-compatible");
const { generateText, streamText } = await load("ai");

const MESSAGES = [{ role: "user", content: "Hello" }];

/** How each package is used; each throws what it throws. */
const PACKAGES = {
  "weir-client": (client) => collect(client.chat({ messages: MESSAGES })),
  openai: async (client) => {
    const openai = new OpenAI({ ...openaiOptions(client), maxRetries: 0 });
    await collect(await openai.chat.completions.create({ model: "", messages: MESSAGES, stream: true }));
  },
  "the AI SDK": async (client) => {
    const model = createOpenAICompatible(languageModelOptions(client))("default");
    let failure;
    const onError = ({ error }) => (failure = error);
    await streamText({ model, messages: MESSAGES, maxRetries: 0, onError }).consumeStream();
    if (failure) throw failure;
  },
  "the AI SDK, after retries": async (client) => {
    const model = createOpenAICompatible(languageModelOptions(client))("default");
    await generateText({ model, messages: MESSAGES, maxRetries: 0 });
  },
};
const STREAMS = Object.keys(PACKAGES).slice(0, 3);

async function explained(use, client) {
  return explain(await use(client).then(() => assert.fail("nothing was thrown"), (error) => error));
}

for (const [name, use] of Object.entries(PACKAGES)) {
  for (const [status, code, headers, expected] of [
    [402, "quota_exceeded", { "retry-after": "10800" }, /^You have used up your allowance for now\. Try again after \w+ .*\d{1,2}:\d\d/],
    [402, "quota_exceeded", {}, /^You have used up your allowance for now\. Please ask whoever runs this page\.$/],
    [429, "rate_limited", { "retry-after": "17" }, /^You are sending messages too fast\. Try again in 17 seconds\.$/],
    [429, "rate_limited", { "retry-after": "600" }, /Try again in 10 minutes\.$/],
    [429, "rate_limited", {}, /Please wait a moment and try again\.$/],
    [401, "invalid_token", {}, /^Your session has ended\. Please sign in again\.$/],
    [403, "forbidden", {}, /may not use this chat/],
    [400, "context_length_exceeded", {}, /too long for the model/],
    [400, "validation_error", {}, /^It is validation_error\.$/], // about the request: as it is
    [503, "upstream_rate_limited", { "retry-after": "1" }, /^The chat cannot answer at the moment\. Try again in 1 second\.$/],
    [502, "upstream_error", {}, /Please try again in a moment\.$/],
  ]) {
    test(`${name}: ${status} ${code} ${headers["retry-after"] ?? ""}`, async (t) => {
      const server = await gateway(t, (reply) => refusal(reply, status, code, {}, headers));
      const client = createClient({ baseUrl: server.baseUrl, getToken: tokens() });
      assert.match(await explained(use, client), expected);
    });
  }

  test(`${name}: a limit's time of renewal, without Retry-After`, async (t) => {
    const details = { resets_at: Math.floor(Date.now() / 1000) + 40 * 86_400 };
    const server = await gateway(t, (reply) => refusal(reply, 402, "quota_exceeded", { details }));
    const client = createClient({ baseUrl: server.baseUrl, getToken: tokens() });
    assert.match(await explained(use, client), /Try again after \w+ \d{1,2}/);
  });

  test(`${name}: a gateway that is not there`, async (t) => {
    t.mock.method(console, "error", () => {});
    const client = createClient({ baseUrl: "http://127.0.0.1:1", getToken: tokens() });
    assert.match(await explained(use, client), /cannot be reached/);
  });
}

for (const name of STREAMS) {
  test(`${name}: an error within the stream`, async (t) => {
    const server = await gateway(t, (reply) => {
      begin(reply, FRAME);
      reply.end('data: {"error":{"message":"x","type":"api_error","param":null,"code":"upstream_error"}}\n\n');
    });
    const client = createClient({ baseUrl: server.baseUrl, getToken: tokens() });
    assert.match(await explained(PACKAGES[name], client), /cannot answer at the moment/);
  });
}

test("an answer that was cut", async (t) => {
  const server = await gateway(t, (reply) => (begin(reply, FRAME), reply.end()));
  const client = createClient({ baseUrl: server.baseUrl, getToken: tokens() });
  assert.match(await explained(PACKAGES["weir-client"], client), /^The answer was cut off: /);
});

test("an abort is no failure", () => {
  assert.equal(explain(new DOMException("aborted", "AbortError")), "The answer was stopped.");
});

test("a wait that is over is not mentioned", (t) => {
  clock(t);
  const past = { status: 402, code: "quota_exceeded", details: { resets_at: Date.now() / 1000 - 5 } };
  assert.match(explain(past), /Please ask/);
});

for (const value of [undefined, null, "text", 7, {}, [], new Error(""), { cause: null }]) {
  test(`anything has an answer: ${JSON.stringify(value) ?? "undefined"}`, () => {
    assert.equal(explain(value), "Something went wrong. Please try again.");
  });
}

test("the page's own errors are in its own words", () => {
  assert.equal(explain(new Error("The password is wrong.")), "The password is wrong.");
});

test("causes that go round in a circle end", () => {
  const error = new Error("x");
  error.cause = error;
  assert.equal(explain(error), "x");
});

test("what is left is of the limit that ends soonest, in a visitor's words", () => {
  const limits = [
    { limit_name: "rpm", limit: 10, left: 0 },
    { limit_name: "requests_per_day", limit: 100, left: 7 },
    { limit_name: "tokens_per_month", limit: 1000, left: 900 },
  ];
  assert.equal(creditsLeft({ limits, budget: null }), "7 messages left today.");
  const budget = { limit_usd: 5, remaining_usd: 0.1 };
  assert.equal(creditsLeft({ limits, budget }), "$0.10 left this month.");
  assert.equal(creditsLeft({ budget: null }), "");
  assert.equal(creditsLeft(undefined), "");
});
