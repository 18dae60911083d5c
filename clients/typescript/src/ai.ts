/** For Vercel's AI SDK: a model, and a transport with which `useChat` needs no backend. */
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { convertToModelMessages, streamText, type ChatTransport, type UIMessage } from "ai";
import { explain } from "./explain.js";
import type { Client } from "./index.js";

/** Returns a model for `streamText`, `generateText` and the other functions of the AI SDK. */
export function languageModel(client: Client, model = "default") {
  return createOpenAICompatible({
    name: "weir",
    baseURL: `${client.baseUrl}/v1`,
    fetch: client.fetch,
    includeUsage: true,
    supportsStructuredOutputs: true,
  })(model);
}

/** Returns a transport: `useChat({ transport: chatTransport(client) })`. */
export function chatTransport<Message extends UIMessage>(
  client: Client,
  options: { model?: string; system?: string } = {},
): ChatTransport<Message> {
  return {
    async sendMessages({ messages, abortSignal }) {
      const answer = streamText({
        model: languageModel(client, options.model),
        messages: await convertToModelMessages(messages),
        ...(options.system ? { system: options.system } : {}),
        ...(abortSignal ? { abortSignal } : {}),
        maxRetries: 0, // a person is watching: better to say at once what is wrong
        onError: () => undefined, // which would write it to the console
      });
      return answer.toUIMessageStream<Message>({ onError: explain });
    },
    // An answer belongs to its connection; there is nothing to come back to.
    reconnectToStream: () => Promise.resolve(null),
  };
}
