// Takes published JavaScript clients through the scenarios of streams, in Node and in a browser.
//
// What `stream` returns is read by tests/clients/scenarios.py.

import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { ChatOpenAI } from "@langchain/openai";
import { jsonSchema, readUIMessageStream, streamText, tool } from "ai";
import OpenAI from "openai";

const HANGS_AFTER_MS = 30_000;
export const PARAMETERS = {
  type: "object",
  properties: { city: { type: "string" } },
  required: ["city"],
};
export const TOOL = {
  type: "function",
  function: { name: "weather", description: "Tell the weather.", parameters: PARAMETERS },
};

export function codeOf(error) {
  for (let one = error; one; one = one.cause ?? one.lastError) {
    const code = [one.code, one.error?.code, one.data?.error?.code, one.data?.code];
    const found = code.find((each) => typeof each === "string");
    if (found) return found;
  }
  return null;
}

export function failed(shown, error) {
  shown.errors.push({
    type: error?.constructor?.name ?? typeof error,
    code: codeOf(error),
    message: String(error?.message ?? error).slice(0, 200),
  });
}

function request(scenario) {
  return {
    model: "default",
    messages: [{ role: "user", content: scenario.content }],
    ...(scenario.usage && { stream_options: { include_usage: true } }),
    ...(scenario.tools && { tools: [TOOL] }),
  };
}

// Reads chunks as the quickstarts do: `choices[0]` without a look whether there are choices.
function taker(shown) {
  const calls = new Map();
  return {
    take(chunk) {
      if (chunk.usage) shown.total_tokens = chunk.usage.total_tokens;
      const choice = chunk.choices[0];
      shown.text += choice?.delta?.content ?? "";
      shown.finish = choice?.finish_reason ?? shown.finish;
      for (const call of choice?.delta?.tool_calls ?? []) {
        const known = calls.get(call.index) ?? ["", ""];
        calls.set(call.index, [
          known[0] + (call.function.name ?? ""),
          known[1] + (call.function.arguments ?? ""),
        ]);
      }
    },
    end() {
      shown.tools = [...calls.values()];
      shown.ended = true;
    },
  };
}

function openai(base, token) {
  return new OpenAI({
    apiKey: token,
    baseURL: base,
    maxRetries: 0,
    dangerouslyAllowBrowser: true,
  });
}

async function openaiCreate(base, token, scenario, shown) {
  const { take, end } = taker(shown);
  const chunks = await openai(base, token).chat.completions.create({
    ...request(scenario),
    stream: true,
  });
  for await (const chunk of chunks) take(chunk);
  end();
}

async function openaiStream(base, token, scenario, shown) {
  const stream = openai(base, token).chat.completions.stream(request(scenario));
  stream.on("content", (delta) => (shown.text += delta));
  const whole = await stream.finalChatCompletion();
  shown.finish = whole.choices[0].finish_reason;
  shown.total_tokens = whole.usage?.total_tokens ?? null;
  shown.tools = (whole.choices[0].message.tool_calls ?? []).map((call) => [
    call.function.name,
    call.function.arguments,
  ]);
  shown.ended = true;
}

function streamed(model, scenario, shown) {
  return streamText({
    model,
    messages: [{ role: "user", content: scenario.content }],
    maxRetries: 0,
    ...(scenario.tools && {
      tools: { weather: tool({ description: "", inputSchema: jsonSchema(PARAMETERS) }) },
    }),
    onError() {}, // else it prints them
  });
}

// The parts of `fullStream`: an error is one of them, and so is the end.
async function aiSdk(model, scenario, shown) {
  for await (const part of streamed(model, scenario, shown).fullStream) {
    if (part.type === "text-delta") shown.text += part.text;
    if (part.type === "tool-call") shown.tools.push([part.toolName, JSON.stringify(part.input)]);
    if (part.type === "error") failed(shown, part.error);
    if (part.type === "finish") {
      shown.finish = part.finishReason.replace("-", "_");
      shown.total_tokens = part.totalUsage.totalTokens ?? null;
      shown.ended = part.finishReason !== "error";
    }
  }
}

const aiSdkOpenai = (base, token, scenario, shown) =>
  aiSdk(createOpenAI({ apiKey: token, baseURL: base }).chat("default"), scenario, shown);

const aiSdkCompatible = (base, token, scenario, shown) =>
  aiSdk(
    createOpenAICompatible({
      name: "weir",
      apiKey: token,
      baseURL: base,
      includeUsage: scenario.usage,
    })("default"),
    scenario,
    shown,
  );

// What a route handler sends to `useChat`, and what that shows.
async function aiSdkUi(base, token, scenario, shown) {
  const model = createOpenAI({ apiKey: token, baseURL: base }).chat("default");
  const stream = streamed(model, scenario, shown).toUIMessageStream({
    onError: (error) => codeOf(error) ?? "",
  });
  let finish;
  const seen = stream.pipeThrough(
    new TransformStream({
      transform(part, controller) {
        if (part.type === "finish") finish = part.finishReason;
        controller.enqueue(part);
      },
    }),
  );
  let message;
  const onError = (error) =>
    shown.errors.push({ type: error.constructor.name, code: error.message, message: "" });
  for await (message of readUIMessageStream({ stream: seen, onError }));
  for (const part of message?.parts ?? []) {
    if (part.type === "text") shown.text += part.text;
    if (part.type === "tool-weather") shown.tools.push(["weather", JSON.stringify(part.input)]);
  }
  shown.finish = finish?.replace("-", "_") ?? null;
  shown.ended = shown.errors.length === 0;
}

async function langchain(base, token, scenario, shown) {
  const made = new ChatOpenAI({
    model: "default",
    apiKey: token,
    maxRetries: 0,
    streamUsage: scenario.usage,
    configuration: { baseURL: base, dangerouslyAllowBrowser: true },
  });
  const model = scenario.tools ? made.bindTools([TOOL]) : made;
  let whole;
  for await (const chunk of await model.stream(scenario.content)) {
    shown.text += chunk.content;
    whole = whole ? whole.concat(chunk) : chunk;
  }
  shown.finish = whole?.response_metadata.finish_reason ?? null;
  shown.total_tokens = whole?.usage_metadata?.total_tokens ?? null;
  shown.tools = (whole?.tool_calls ?? []).map((call) => [call.name, JSON.stringify(call.args)]);
  shown.ended = true;
}

// `fetch` and a few lines, as in many a widget.
async function plainFetch(base, token, scenario, shown) {
  const response = await fetch(`${base}/chat/completions`, {
    method: "POST",
    headers: { Authorization: `Bearer ${token}`, "Content-Type": "application/json" },
    body: JSON.stringify({ ...request(scenario), stream: true }),
  });
  if (!response.ok) throw (await response.json()).error;
  const { take, end } = taker(shown);
  let rest = "";
  for await (const text of response.body.pipeThrough(new TextDecoderStream())) {
    const lines = (rest + text).split("\n");
    rest = lines.pop();
    for (const line of lines) {
      if (line.startsWith("data: ") && line !== "data: [DONE]") take(JSON.parse(line.slice(6)));
    }
  }
  end();
}

export const CLIENTS = {
  openai: openaiCreate,
  "openai .stream()": openaiStream,
  "@ai-sdk/openai": aiSdkOpenai,
  "@ai-sdk/openai-compatible": aiSdkCompatible,
  "@ai-sdk/openai, UI stream": aiSdkUi,
  "@langchain/openai": langchain,
  fetch: plainFetch,
};

// Return what the client shows of one scenario.
export async function stream({ client, base_url, token, scenario }, clients = CLIENTS) {
  const shown = {
    text: "",
    ended: false,
    finish: null,
    total_tokens: null,
    tools: [],
    errors: [],
  };
  let timer;
  const hangs = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error("neither an answer nor an error")), HANGS_AFTER_MS);
  });
  try {
    await Promise.race([clients[client](base_url, token, scenario, shown), hangs]);
  } catch (error) {
    failed(shown, error);
  }
  clearTimeout(timer);
  return { client, scenario: scenario.name, outcome: shown };
}
