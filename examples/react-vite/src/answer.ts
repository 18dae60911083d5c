/** One question to the model, answered in pieces. The browser speaks to the gateway directly. */
import OpenAI from "openai";
import type { ChatCompletionMessageParam } from "openai/resources/chat/completions";
import type { Config } from "./config";
import { AnswerCut, whyNoAnswer } from "./errors";
import type { Token, TokenSource } from "./token";

/** Resolves with the finish reason. After an abort, it rejects or resolves: look at the signal. */
export async function streamAnswer(
  config: Config,
  tokens: TokenSource,
  messages: ChatCompletionMessageParam[],
  signal: AbortSignal,
  onText: (text: string) => void,
): Promise<string> {
  const stream = await open(config, tokens, messages, signal).catch(async (error) => {
    throw error instanceof OpenAI.APIConnectionError ? await whyNoAnswer(config) : error;
  });
  let finishReason: string | null = null;
  try {
    for await (const chunk of stream) {
      const choice = chunk.choices[0];
      if (choice?.delta.content) onText(choice.delta.content);
      finishReason = choice?.finish_reason ?? finishReason;
    }
  } catch (error) {
    // The gateway's last words, in an error frame; anything else is a connection that broke.
    throw error instanceof OpenAI.APIError ? error : new AnswerCut();
  }
  // A connection that was closed in order looks to the SDK like the end of an answer.
  if (finishReason === null) throw new AnswerCut();
  return finishReason;
}

async function open(
  config: Config,
  tokens: TokenSource,
  messages: ChatCompletionMessageParam[],
  signal: AbortSignal,
) {
  const ask = (token: Token) =>
    new OpenAI({
      apiKey: token.token,
      baseURL: `${config.baseUrl}/v1`,
      // Safe here: this is no API key, but a token for one user and a few minutes.
      dangerouslyAllowBrowser: true,
      defaultHeaders: { "X-Session-Id": token.sessionId },
      // A person is watching: better to say at once what is wrong than to wait in silence.
      maxRetries: 0,
      // An empty name is the project's default model.
    }).chat.completions.create({ model: "", messages, stream: true }, { signal });

  const token = await tokens.get();
  try {
    return await ask(token);
  } catch (error) {
    if (!(error instanceof OpenAI.AuthenticationError)) throw error;
    tokens.forget(token); // revoked, or expired while this machine slept: once, with a new one
    return ask(await tokens.get());
  }
}
