/** The openai package and the AI SDK on the client's fetch, and the transport of useChat. */
import assert from "node:assert/strict";
import test from "node:test";
import { load } from "./built.mjs";
import { begin, collect, DONE, FRAME, gateway, json, refusal, STOP, tokens } from "./gateway.mjs";

const { createClient } = await load("weir-client");
const { openaiOptions } = await load("weir-client/openai");
const { chatTransport, languageModelOptions } = await load("weir-client/ai");
const { default: OpenAI } = await load("openai");
const { createOpenAICompatible } = await load("@ai-sdk/openai-compatible");
const { AbstractChat, streamText } = await load("ai");

const MESSAGES = [{ role: "user", content: "Hello" }];
const clientOf = (server) => createClient({ baseUrl: server.baseUrl, getToken: tokens() });

// --- openai -------------------------------------------------------------------------------------

const openaiOf = (server, more) => new OpenAI({ ...openaiOptions(clientOf(server)), ...more });
const stream = { model: "", messages: MESSAGES, stream: true };

test("openai: an answer streams, and is not cancelled", async (t) => {
  const server = await gateway(t);
  const chunks = await collect(await openaiOf(server).chat.completions.create(stream));
  assert.equal(chunks[0].choices[0].delta.content, "Hi");
  assert.equal(server.chats()[0].headers.authorization, "Bearer t1");
  assert.deepEqual(server.cancels(), []);
});

test("openai: a refused token is renewed once", async (t) => {
  const server = await gateway(t, (reply, call, number) =>
    number === 1 ? refusal(reply, 401, "invalid_token") : (begin(reply, FRAME, STOP), reply.end(DONE)),
  );
  await collect(await openaiOf(server, { maxRetries: 0 }).chat.completions.create(stream));
  assert.deepEqual(server.chats().map((call) => call.headers.authorization), ["Bearer t1", "Bearer t2"]);
});

test("openai: each of its retries has an id of its own", async (t) => {
  const server = await gateway(t, (reply, call, number) =>
    number < 3 ? refusal(reply, 503, "busy", {}, { "retry-after-ms": "1" }) : json(reply, 200, { choices: [] }),
  );
  await openaiOf(server).chat.completions.create({ model: "", messages: MESSAGES });
  assert.equal(new Set(server.chats().map((call) => call.headers["x-client-request-id"])).size, 3);
});

test("openai: a timeout cancels the attempt that it gives up, and only that", async (t) => {
  const server = await gateway(t, (reply, call, number) => number === 2 && json(reply, 200, { choices: [] }));
  await openaiOf(server, { timeout: 200, maxRetries: 1 }).chat.completions.create({ model: "", messages: MESSAGES });
  await server.until(() => server.cancels().length === 1);
  assert.ok(server.cancels()[0].url.includes(server.chats()[0].headers["x-client-request-id"]));
});

for (const [name, leave] of [
  ["leaving the loop", () => {}],
  ["stream.controller.abort()", (stream) => stream.controller.abort()],
]) {
  test(`openai: ${name} cancels the answer`, async (t) => {
    const server = await gateway(t, (reply) => begin(reply, FRAME));
    const answer = await openaiOf(server).chat.completions.create(stream);
    for await (const _ of answer) {
      leave(answer);
      break;
    }
    await server.until(() => server.cancels().length === 1);
  });
}

// --- the AI SDK ---------------------------------------------------------------------------------

test("streamText: an answer streams, with its usage", async (t) => {
  const usage = { prompt_tokens: 3, completion_tokens: 1, total_tokens: 4 };
  const server = await gateway(t, (reply) => {
    begin(reply, FRAME, STOP, `data: ${JSON.stringify({ choices: [], usage })}\n\n`);
    reply.end(DONE);
  });
  const model = createOpenAICompatible(languageModelOptions(clientOf(server)))("default");
  const result = streamText({ model, messages: MESSAGES });
  assert.equal(await result.text, "Hi");
  assert.equal((await result.usage).totalTokens, 4);
  assert.equal(server.chats()[0].headers.authorization, "Bearer t1");
  assert.deepEqual(server.cancels(), []);
});

test("streamText: an abort cancels the answer", async (t) => {
  const server = await gateway(t, (reply) => begin(reply, FRAME));
  const model = createOpenAICompatible(languageModelOptions(clientOf(server)))("default");
  const controller = new AbortController();
  const result = streamText({ model, messages: MESSAGES, abortSignal: controller.signal });
  for await (const _ of result.textStream) controller.abort();
  await server.until(() => server.cancels().length === 1);
});

// --- useChat ------------------------------------------------------------------------------------

/** What useChat is around, without React. */
class Chat extends AbstractChat {
  constructor(init) {
    const state = {
      status: "ready",
      messages: [],
      error: undefined,
      pushMessage: (message) => (state.messages = [...state.messages, message]),
      popMessage: () => (state.messages = state.messages.slice(0, -1)),
      replaceMessage: (index, message) => (state.messages = state.messages.with(index, message)),
      snapshot: (value) => structuredClone(value),
    };
    super({ ...init, state });
  }
}

const textOf = (message) => message.parts.filter(({ type }) => type === "text").map(({ text }) => text).join("");

function chatOf(server, options) {
  const errors = [];
  const transport = chatTransport(clientOf(server), options);
  const chat = new Chat({ id: "chat-1", transport, onError: (error) => errors.push(error) });
  return { chat, errors };
}

test("useChat: an answer comes as a message, and the next request has it", async (t) => {
  const server = await gateway(t);
  const { chat, errors } = chatOf(server);
  await chat.sendMessage({ text: "one" });
  await chat.sendMessage({ text: "two" });
  assert.deepEqual(errors, []);
  assert.equal(chat.status, "ready");
  assert.deepEqual(chat.messages.map(textOf), ["one", "Hi", "two", "Hi"]);
  const { messages, stream: streams } = JSON.parse(server.chats()[1].body);
  assert.equal(streams, true);
  assert.deepEqual(messages, [
    { role: "user", content: "one" },
    { role: "assistant", content: "Hi" },
    { role: "user", content: "two" },
  ]);
  assert.equal(server.chats()[1].headers["x-thread-id"], undefined);
});

test("useChat: in a thread only the newest message is sent, and all for a new answer", async (t) => {
  const server = await gateway(t);
  const { chat } = chatOf(server, { threads: true, model: "m" });
  await chat.sendMessage({ text: "one" });
  await chat.sendMessage({ text: "two" });
  await chat.regenerate();
  const bodies = server.chats().map((call) => JSON.parse(call.body));
  assert.deepEqual(bodies.map(({ messages }) => messages.length), [1, 1, 3]);
  assert.equal(bodies[0].model, "m");
  assert.equal(server.chats()[2].headers["x-thread-id"], "chat-1");
});

test("useChat: images are sent, reasoning is a part of its own", async (t) => {
  const thought = 'data: {"choices":[{"index":0,"delta":{"reasoning_content":"Hm"},"finish_reason":null}]}\n\n';
  const server = await gateway(t, (reply) => (begin(reply, thought, FRAME, STOP), reply.end(DONE)));
  const { chat } = chatOf(server);
  const url = "data:image/png;base64,AA==";
  await chat.sendMessage({ text: "look", files: [{ type: "file", mediaType: "image/png", url }] });
  const [{ content }] = JSON.parse(server.chats()[0].body).messages;
  assert.deepEqual(content.find(({ type }) => type === "image_url"), { type: "image_url", image_url: { url } });
  const parts = chat.messages[1].parts.filter(({ type }) => type !== "step-start");
  assert.deepEqual(parts.map(({ type, text }) => [type, text]), [["reasoning", "Hm"], ["text", "Hi"]]);
});

test("useChat: a refusal reaches onError as it was thrown", async (t) => {
  const server = await gateway(t, (reply) => refusal(reply, 429, "rate_limited", {}, { "retry-after": "7" }));
  const { chat, errors } = chatOf(server);
  await chat.sendMessage({ text: "one" });
  assert.equal(chat.status, "error");
  assert.deepEqual(errors.map(({ name, code, retryAfter }) => [name, code, retryAfter]), [["WeirError", "rate_limited", 7]]);
});

test("useChat: an error within the stream does, too, and what came before it stays", async (t) => {
  const server = await gateway(t, (reply) => {
    begin(reply, FRAME);
    reply.end('data: {"error":{"message":"x","type":"api_error","code":"upstream_error"}}\n\n');
  });
  const { chat, errors } = chatOf(server);
  await chat.sendMessage({ text: "one" });
  assert.equal(errors[0].code, "upstream_error");
  assert.equal(textOf(chat.messages[1]), "Hi");
});

test("useChat: Stop cancels the answer at the gateway, and is no error", async (t) => {
  const server = await gateway(t, (reply) => begin(reply, FRAME));
  const { chat, errors } = chatOf(server);
  const sent = chat.sendMessage({ text: "one" });
  await server.until(() => server.chats().length === 1);
  while (chat.messages.length < 2) await new Promise(setImmediate);
  await chat.stop();
  await sent;
  await server.until(() => server.cancels().length === 1);
  assert.deepEqual(errors, []);
  assert.equal(chat.status, "ready");
});
