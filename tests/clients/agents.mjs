// The OpenAI Agents SDK, which only today's Node runs: as the clients of use.mjs.

import {
  Agent,
  OpenAIChatCompletionsModel,
  run,
  setTracingDisabled,
  tool,
} from "@openai/agents";
import OpenAI from "openai";
import { PARAMETERS } from "./stream.mjs";
import { WEATHER } from "./use.mjs";

setTracingDisabled(true);

export class Agents {
  constructor(url, token) {
    this.url = url;
    this.token = token;
  }

  agent(more = {}, headers = {}) {
    const client = new OpenAI({
      baseURL: this.url + "/v1",
      apiKey: this.token,
      defaultHeaders: headers,
    });
    return new Agent({
      name: "test",
      model: new OpenAIChatCompletionsModel(client, "default"),
      ...more,
    });
  }

  async whole(content) {
    return (await run(this.agent(), content)).finalOutput;
  }

  async tools(content, weather) {
    const tools = [
      tool({
        name: "weather",
        description: "Tell the weather.",
        parameters: { ...PARAMETERS, additionalProperties: false },
        execute: ({ city }) => weather(city),
      }),
    ];
    return (await run(this.agent({ tools }), content)).finalOutput;
  }

  async structured(content) {
    const outputType = { type: "json_schema", name: "weather", strict: true, schema: WEATHER };
    return (await run(this.agent({ outputType }), content)).finalOutput;
  }

  async stream(content, headers, heard) {
    const stop = new AbortController();
    const running = await run(this.agent({}, headers), content, {
      stream: true,
      signal: stop.signal,
    });
    for await (const event of running) {
      if (event.data?.type !== "output_text_delta") continue;
      if (!(await heard(event.data.delta))) stop.abort();
    }
    await running.completed;
  }
}

// As the clients of stream.mjs.
export async function streamAgents(base, token, scenario, shown) {
  const client = new OpenAI({ baseURL: base, apiKey: token, maxRetries: 0 });
  const agent = new Agent({
    name: "test",
    model: new OpenAIChatCompletionsModel(client, "default"),
    toolUseBehavior: "stop_on_first_tool",
    tools: scenario.tools
      ? [
          tool({
            name: "weather",
            description: "",
            strict: false,
            parameters: { ...PARAMETERS, additionalProperties: true },
            execute(input) {
              shown.tools.push(["weather", JSON.stringify(input)]);
              return "sunny";
            },
          }),
        ]
      : [],
  });
  const running = await run(agent, scenario.content, { stream: true, maxTurns: 1 });
  for await (const event of running) {
    if (event.data?.type === "output_text_delta") shown.text += event.data.delta;
  }
  await running.completed;
  shown.total_tokens = running.state.usage.totalTokens;
  shown.ended = true;
}
