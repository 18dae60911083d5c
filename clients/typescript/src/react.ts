/** Two hooks: a conversation, and what the user has left. */
import { useCallback, useEffect, useRef, useState } from "react";
import type { Client } from "./index.js";

export interface Turn {
  question: string;
  answer: string;
  state: "writing" | "done" | "stopped" | "failed";
  /** Why the answer is not whole, for the person who reads it. */
  note: string;
}

export interface ConversationOptions {
  /** Keeps the conversation at the gateway, so that only the new message is sent. */
  threadId?: string;
  /** Shows what was said in this thread before: after a reload, say. */
  restore?: boolean;
  /** The project's default, if there is none. */
  model?: string;
  /** Puts an error into words: `explain` of "weir-client/explain". */
  explain?: (error: unknown) => string;
}

export interface Conversation {
  turns: Turn[];
  /** Does nothing while an answer is being written. */
  send(text: string): void;
  stop(): void;
  /** Asks the last question again. */
  retry(): void;
  writing: boolean;
}

const NOTES: Record<string, string> = {
  length: "The answer ends here because it reached its length limit.",
  content_filter: "The provider ended this answer: its content filter objected.",
};

type Message = { role: string; content: string };

export function useConversation(client: Client, options: ConversationOptions = {}): Conversation {
  const { threadId, restore, model } = options;
  const [turns, setTurns] = useState<Turn[]>([]);
  const running = useRef<AbortController>(undefined);
  const explain = useRef(options.explain);
  explain.current = options.explain;

  useEffect(() => {
    const leaving = new AbortController();
    setTurns([]); // of another thread
    if (threadId !== undefined && restore) {
      earlier(client, threadId, leaving.signal).then(
        (found) => setTurns((now) => (now.length || leaving.signal.aborted ? now : found)),
        () => undefined, // there is no such thread, or it cannot be read now
      );
    }
    return () => {
      leaving.abort();
      running.current?.abort();
    };
  }, [client, threadId, restore]);

  const ask = useCallback(
    async (question: string, before: Turn[]) => {
      const controller = new AbortController();
      running.current = controller;
      let turn: Turn = { question, answer: "", state: "writing", note: "" };
      const show = (change: Partial<Turn>) => {
        turn = { ...turn, ...change };
        if (running.current === controller) setTurns([...before, turn]);
      };
      show({});
      try {
        const messages = threadId === undefined ? conversation(before, question) : conversation([], question);
        const init = { signal: controller.signal, ...(threadId === undefined ? {} : { threadId }) };
        let reason = "";
        for await (const { choices } of client.chat({ messages, ...(model ? { model } : {}) }, init)) {
          const piece = choices[0]?.delta.content;
          if (piece) show({ answer: turn.answer + piece });
          reason = choices[0]?.finish_reason ?? reason;
        }
        show({ state: "done", note: NOTES[reason] ?? "" });
      } catch (error) {
        if (controller.signal.aborted) show({ state: "stopped", note: "Stopped." });
        else show({ state: "failed", note: explain.current?.(error) ?? String(error) });
      }
    },
    [client, threadId, model],
  );

  const last = turns.at(-1);
  const writing = last?.state === "writing";
  return {
    turns,
    writing,
    send: (text) => {
      if (!writing && text.trim()) void ask(text, turns);
    },
    stop: () => running.current?.abort(),
    retry: () => {
      if (last && !writing) void ask(last.question, turns.slice(0, -1));
    },
  };
}

/** Questions that were answered, each with the part that was, and the new one. */
function conversation(turns: Turn[], question: string): Message[] {
  const answered = turns.filter((turn) => turn.answer && turn.state !== "failed");
  return [
    ...answered.flatMap((turn) => [
      { role: "user", content: turn.question },
      { role: "assistant", content: turn.answer },
    ]),
    { role: "user", content: question },
  ];
}

async function earlier(client: Client, threadId: string, signal: AbortSignal): Promise<Turn[]> {
  const path = `/v1/threads/${encodeURIComponent(threadId)}/messages`;
  const turns: Turn[] = [];
  for (const { role, content } of await client.json<Message[]>(path, { signal })) {
    const last = turns.at(-1);
    if (role === "user") turns.push({ question: content, answer: "", state: "done", note: "" });
    else if (role === "assistant" && last) turns.push({ ...turns.pop()!, answer: content });
  }
  return turns;
}

/** What GET /v1/me answers (docs/routes.md). */
export interface Me {
  limits?: { limit_name: string; limit: number; used: number; left: number; resets_at: number | null }[];
  budget: { limit_usd: number; remaining_usd: number; resets_at: number | null } | null;
  [member: string]: unknown;
}

/** Returns the user's limits and what is left of them, read again whenever `after` changes. */
export function useMe(client: Client, after?: unknown): Me | undefined {
  const [me, setMe] = useState<Me>();
  useEffect(() => {
    const leaving = new AbortController();
    client.json<Me>("/v1/me", { signal: leaving.signal }).then(setMe, () => undefined);
    return () => leaving.abort();
  }, [client, after]);
  return me;
}
