/** Chat from the server: for webhooks, background jobs, or where only the server has the data. */
import "./env.js";
import { Weir as Behest } from "weir-client/server";

export const behest = new Behest(); // reads BEHEST_KEY and BEHEST_BASE_URL

export async function answerFor(userId: string, question: string, signal?: AbortSignal): Promise<string> {
  // With user_id on the call, the client mints a token for this user, and keeps it while it is good.
  const stream = await behest.chat.completions.create(
    {
      messages: [{ role: "user", content: question }],
      stream: true,
      user_id: userId,
    },
    { signal },
  );

  let full = "";
  for await (const chunk of stream) full += chunk.choices[0]?.delta.content ?? "";
  return full;
}
