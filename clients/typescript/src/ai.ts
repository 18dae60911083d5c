import type { ChatTransport, UIMessage, UIMessageChunk } from "ai";
import type { ChatCompletionChunk, ChatMessage, ChatRequest, Client } from "./index.js";

export interface ChatTransportOptions {
  /** The project's default, unless it is given. */
  model?: string | undefined;
  /** Let the gateway keep the conversation, as the thread that has the chat's id. */
  threads?: boolean | undefined;
}

/**
 * Make a transport with which `useChat` calls the gateway from the page, with no backend in between:
 * `useChat({ transport: chatTransport(client) })`. It carries text, reasoning and images. For tools,
 * give a model made with `languageModelOptions` to the AI SDK's own DirectChatTransport. Errors reach
 * `onError` as they were thrown, for `explain` to put into words.
 */
export function chatTransport<Message extends UIMessage = UIMessage>(
  client: Client,
  options: ChatTransportOptions = {},
): ChatTransport<Message> {
  return {
    async sendMessages({ trigger, messages, chatId, abortSignal, headers, body }) {
      const all = messages.map(messageOf).filter(({ content }) => content?.length);
      // An answer that is asked for again replaces the thread's last one only if all is sent.
      const newest = options.threads && trigger === "submit-message";
      const request: ChatRequest = {
        ...(options.model && { model: options.model }),
        ...body, // other fields, such as max_tokens
        messages: newest ? all.slice(-1) : all,
      };
      const init = { signal: abortSignal, headers, threadId: options.threads ? chatId : undefined };
      const chunks = client.chat(request, init)[Symbol.asyncIterator]();
      // A refusal rejects here, before there is an answer.
      return streamOf(await chunks.next(), chunks);
    },
    // Leaving a page stops its answer, so there is none to come back to.
    reconnectToStream: () => Promise.resolve(null),
  };
}

/** Return the settings for `createOpenAICompatible` of `@ai-sdk/openai-compatible`. */
export function languageModelOptions(client: Client) {
  return { name: "weir", baseURL: `${client.baseUrl}/v1`, fetch: client.fetch, includeUsage: true };
}

type Step = IteratorResult<ChatCompletionChunk, unknown>;

/** Translate chunks of a chat completion into those of `useChat`. */
function streamOf(
  first: Step,
  chunks: AsyncIterator<ChatCompletionChunk>,
): ReadableStream<UIMessageChunk> {
  async function* translated(): AsyncGenerator<UIMessageChunk, void> {
    yield { type: "start" };
    yield { type: "start-step" };
    let part: "text" | "reasoning" | undefined;
    let count = 0;
    let finishReason: string | undefined;
    for (let step = first; !step.done; step = await chunks.next()) {
      const choice = step.value.choices[0];
      const { content, reasoning_content, reasoning } = choice?.delta ?? {};
      for (const [type, delta] of [
        ["reasoning", reasoning_content ?? reasoning],
        ["text", content],
      ] as const) {
        if (typeof delta !== "string" || !delta) continue;
        if (part !== type) {
          if (part) yield { type: `${part}-end`, id: `${count}` };
          part = type;
          yield { type: `${part}-start`, id: `${++count}` };
        }
        yield { type: `${type}-delta`, id: `${count}`, delta };
      }
      finishReason = choice?.finish_reason ?? finishReason;
    }
    if (part) yield { type: `${part}-end`, id: `${count}` };
    yield { type: "finish-step" };
    yield { type: "finish", finishReason: FINISH_REASONS[finishReason ?? ""] ?? "other" };
  }

  const parts = translated();
  return new ReadableStream<UIMessageChunk>({
    async pull(controller) {
      const { done, value } = await parts.next();
      if (done) controller.close();
      else controller.enqueue(value);
    },
    async cancel() {
      await chunks.return?.(); // stops the answer, at the provider, too
    },
  });
}

const FINISH_REASONS: Record<string, "stop" | "length" | "content-filter" | "tool-calls"> = {
  stop: "stop",
  length: "length",
  content_filter: "content-filter",
  tool_calls: "tool-calls",
};

/** Translate a message of `useChat`: its text and its images. */
function messageOf(message: UIMessage): ChatMessage {
  const parts = message.parts.flatMap((part): Record<string, unknown>[] => {
    if (part.type === "text") return part.text ? [{ type: "text", text: part.text }] : [];
    if (part.type !== "file" || message.role !== "user") return [];
    return [{ type: "image_url", image_url: { url: part.url } }];
  });
  const isPlain = parts.every(({ type }) => type === "text");
  return {
    role: message.role,
    content: isPlain ? parts.map(({ text }) => text as string).join("") : parts,
  };
}
