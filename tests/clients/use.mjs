// Uses published JavaScript clients as people do, with the clients' own defaults, in Node and in a
// browser.
//
// What `use` returns is judged by tests/clients/capabilities.py. The statements that make a client
// or a model are those that docs/clients.md shows.

import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { HumanMessage, ToolMessage } from "@langchain/core/messages";
import { ChatOpenAI } from "@langchain/openai";
import { Output, generateText, jsonSchema, stepCountIs, streamText, tool } from "ai";
import OpenAI from "openai";
import { failed, PARAMETERS, TOOL } from "./stream.mjs";

const HANGS_AFTER_MS = 60_000;
export const WEATHER = {
  type: "object",
  properties: { city: { type: "string" }, degrees: { type: "integer" } },
  required: ["city", "degrees"],
  additionalProperties: false,
};
const inBrowser = typeof document !== "undefined";
const user = (content) => ({ role: "user", content });

// Each client has four methods: `whole` returns the text of an answer that does not stream; `tools`
// the answer after the model has called `weather` and has got its result; `structured` an object
// that the client has parsed; `stream` hands each piece to `heard`, and stops when that is false.

class Openai {
  constructor(url, token) {
    this.client = inBrowser
      ? new OpenAI({ baseURL: url + "/v1", apiKey: token, dangerouslyAllowBrowser: true })
      : new OpenAI({ baseURL: url + "/v1", apiKey: token });
  }

  async whole(content) {
    const answer = await this.client.chat.completions.create({
      model: "default",
      messages: [user(content)],
    });
    return answer.choices[0].message.content;
  }

  async tools(content, weather) {
    const runner = this.client.chat.completions.runTools({
      model: "default",
      messages: [user(content)],
      tools: [
        {
          type: "function",
          function: {
            ...TOOL.function,
            parse: JSON.parse,
            function: ({ city }) => weather(city),
          },
        },
      ],
    });
    return await runner.finalContent();
  }

  async structured(content) {
    const answer = await this.client.chat.completions.parse({
      model: "default",
      messages: [user(content)],
      response_format: {
        type: "json_schema",
        json_schema: { name: "weather", strict: true, schema: WEATHER },
      },
    });
    return JSON.parse(answer.choices[0].message.content);
  }

  async stream(content, headers, heard) {
    const chunks = await this.client.chat.completions.create(
      { model: "default", messages: [user(content)], stream: true },
      { headers },
    );
    for await (const chunk of chunks) {
      if (!(await heard(chunk.choices[0].delta.content ?? ""))) break;
    }
  }
}

class RenewedOpenai extends Openai {
  constructor(url, token) {
    super(url, token);
    const currentToken = async () => token;
    this.client = new OpenAI({
      baseURL: url + "/v1",
      apiKey: currentToken,
      dangerouslyAllowBrowser: true,
    });
  }
}

class AiSdk {
  constructor(model) {
    this.model = model;
  }

  async whole(content) {
    return (await generateText({ model: this.model, prompt: content })).text;
  }

  async tools(content, weather) {
    const { text } = await generateText({
      model: this.model,
      prompt: content,
      stopWhen: stepCountIs(3),
      tools: {
        weather: tool({
          description: "Tell the weather.",
          inputSchema: jsonSchema(PARAMETERS),
          execute: ({ city }) => weather(city),
        }),
      },
    });
    return text;
  }

  async structured(content) {
    const output = Output.object({ schema: jsonSchema(WEATHER) });
    return (await generateText({ model: this.model, prompt: content, output })).output;
  }

  async stream(content, headers, heard) {
    const stop = new AbortController();
    const { fullStream } = streamText({
      model: this.model,
      prompt: content,
      headers,
      abortSignal: stop.signal,
      onError() {}, // else it prints them
    });
    for await (const part of fullStream) {
      if (part.type === "error") throw part.error;
      if (part.type === "text-delta" && !(await heard(part.text))) stop.abort();
    }
  }
}

class AiSdkOpenai extends AiSdk {
  constructor(url, token) {
    super(createOpenAI({ baseURL: url + "/v1", apiKey: token }).chat("default"));
  }
}

class AiSdkCompatible extends AiSdk {
  constructor(url, token) {
    super(
      createOpenAICompatible({
        name: "weir",
        baseURL: url + "/v1",
        apiKey: token,
        includeUsage: true,
        supportsStructuredOutputs: true,
      })("default"),
    );
  }
}

class Langchain {
  constructor(url, token) {
    this.model = inBrowser
      ? new ChatOpenAI({
          model: "default",
          apiKey: token,
          configuration: { baseURL: url + "/v1", dangerouslyAllowBrowser: true },
        })
      : new ChatOpenAI({
          model: "default",
          apiKey: token,
          configuration: { baseURL: url + "/v1" },
        });
  }

  async whole(content) {
    return (await this.model.invoke(content)).content;
  }

  async tools(content, weather) {
    const model = this.model.bindTools([TOOL]);
    const messages = [new HumanMessage(content)];
    const called = await model.invoke(messages);
    messages.push(called);
    for (const call of called.tool_calls) {
      const result = weather(call.args.city);
      messages.push(new ToolMessage({ content: result, tool_call_id: call.id }));
    }
    return (await model.invoke(messages)).content;
  }

  async structured(content) {
    return await this.model.withStructuredOutput(WEATHER, { name: "weather" }).invoke(content);
  }

  async stream(content, headers, heard) {
    const stop = new AbortController();
    // Of `invoke` it is `{ options: { headers } }`.
    const chunks = await this.model.stream(content, { headers, signal: stop.signal });
    for await (const chunk of chunks) {
      if (chunk.content && !(await heard(chunk.content))) {
        stop.abort();
        break;
      }
    }
  }
}

export const CLIENTS = {
  openai: Openai,
  "openai, a function as key": RenewedOpenai,
  "@ai-sdk/openai": AiSdkOpenai,
  "@ai-sdk/openai-compatible": AiSdkCompatible,
  "@langchain/openai": Langchain,
};

async function cancel({ url, token, id }) {
  const reply = await fetch(`${url}/v1/chat/completions/${id}/cancel`, {
    method: "POST",
    headers: { Authorization: `Bearer ${token}` },
  });
  if (!reply.ok) throw new Error(await reply.text());
}

async function act(client, task, shown) {
  const { content, id } = task;
  const weather = (city) => {
    shown.calls.push(city);
    return `sunny in ${city}`;
  };
  const stop = (text) => {
    shown.text += text;
    if (text) shown.stopped_at = Date.now() / 1000;
    return !text;
  };
  const cancelled = async (text) => {
    const first = text && !shown.text;
    shown.text += text;
    if (first) {
      shown.stopped_at = Date.now() / 1000;
      await cancel(task);
    }
    return true;
  };
  switch (task.capability) {
    case "tools":
      shown.text = await client.tools(content, weather);
      break;
    case "structured":
      shown.object = await client.structured(content);
      break;
    case "stop":
      await client.stream(content, {}, stop);
      break;
    case "cancel":
      await client.stream(content, { "X-Client-Request-Id": id }, cancelled);
      break;
    default:
      shown.text = await client.whole(content);
  }
}

// Return what the client shows of one capability.
export async function use(task, clients = CLIENTS) {
  const shown = { text: "", calls: [], object: null, stopped_at: null, errors: [] };
  let timer;
  const hangs = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error("it does not end")), HANGS_AFTER_MS);
  });
  try {
    const client = new clients[task.client](task.url, task.token);
    await Promise.race([act(client, task, shown), hangs]);
  } catch (error) {
    failed(shown, error);
  }
  clearTimeout(timer);
  return { client: task.client, capability: task.capability, shown };
}
