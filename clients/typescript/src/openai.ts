import type { Client } from "./index.js";

/** Return the options for `new OpenAI(…)` in a page, of the package `openai` from version 6 on. */
export function openaiOptions(client: Client) {
  return {
    baseURL: `${client.baseUrl}/v1`,
    apiKey: async () => (await client.token()).token,
    fetch: client.fetch,
    // Safe here: this is no API key, but a token for one user and a few minutes.
    dangerouslyAllowBrowser: true,
  };
}
