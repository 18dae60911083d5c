import type { Client } from "./index.js";

/**
 * Returns the options of OpenAI's package: `new OpenAI(openaiOptions(client))`. Every request has a
 * token that is good, aborting one stops the provider, and a refused token is renewed once.
 */
export function openaiOptions(client: Client) {
  return {
    baseURL: `${client.baseUrl}/v1`,
    apiKey: async () => (await client.token()).token,
    fetch: client.fetch,
    // It is no API key: it lives for minutes and works for one user.
    dangerouslyAllowBrowser: true,
  };
}
