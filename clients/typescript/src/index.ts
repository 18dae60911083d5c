/** The browser core: a token that renews itself, a `fetch` for every SDK, and a chat that streams. */
export { createClient } from "./client.js";
export type {
  ChatCompletionChunk,
  ChatInit,
  ChatMessage,
  ChatRequest,
  ChunkChoice,
  Client,
  ClientOptions,
  TokenReply,
  Usage,
} from "./client.js";
export { WeirError } from "./error.js";
export type { WeirErrorFields } from "./error.js";
export { readEvents } from "./events.js";
