/** The gateway's client: this is all that the page needs to talk to the model. */
import { createClient, WeirError, type Client, type TokenReply } from "weir-client";
import type { Config } from "./config";
import { SessionEnded, type Session } from "./session";

export function weirClient(config: Config, session: Session): Client {
  return createClient({
    baseUrl: config.baseUrl,
    // The client keeps the token in memory, and calls this again a minute before it ends.
    getToken: async () => {
      let reply = await exchange(config, await session.idToken());
      if (reply.status === 401) reply = await exchange(config, await session.idToken({ renew: true }));
      if (reply.status === 401) throw new SessionEnded("Your session has ended.");
      if (!reply.ok) throw await WeirError.from(reply);
      return (await reply.json()) as TokenReply;
    },
  });
}

/** No `credentials: "include"`: the ID token says who is asking, and there is no cookie to send. */
function exchange(config: Config, idToken: string): Promise<Response> {
  return fetch(`${config.baseUrl}/api/behest/token`, {
    method: "POST",
    headers: { Authorization: `Bearer ${idToken}` },
  });
}
