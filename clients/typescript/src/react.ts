import { useEffect, useRef, useState } from "react";
import { explain as explainError } from "./explain.js";
import type { ChatMessage, Client } from "./index.js";

/** One question and its answer, which grows while `state` is "writing". */
export interface Turn {
  question: string;
  answer: string;
  state: "writing" | "done" | "stopped" | "failed";
  /** What the reader should know about the answer: why it failed or ended early. Often empty. */
  note: string;
}

export interface ConversationOptions {
  /** The thread that the gateway keeps: only the newest message is sent. */
  threadId?: string | undefined;
  /** Show what was said in the thread before: after a reload, say. */
  restore?: boolean | undefined;
  /** The project's default, unless it is given. */
  model?: string | undefined;
  /** Put an error into words for the reader. */
  explain?: ((error: unknown) => string) | undefined;
}

export interface Conversation {
  turns: readonly Turn[];
  /** Ask a question. Does nothing while an answer is written, or if there is only white space. */
  send: (text: string) => void;
  /** Stop the answer that is being written, at the provider, too. */
  stop: () => void;
  /** Ask the last question again, in place of its answer. */
  retry: () => void;
  writing: boolean;
}

interface Kept {
  client: Client;
  threadId: string | undefined;
  /** Of the last question. */
  controller: AbortController;
  turns: readonly Turn[];
}

const NOTES: Record<string, string> = {
  length: "The answer ends here because it reached its length limit.",
  content_filter: "The provider ended this answer: its content filter objected.",
};

/**
 * Hold a conversation. Another `client` or `threadId` begins a new, empty one; that and leaving the
 * page stop the answer that is being written.
 */
export function useConversation(client: Client, options: ConversationOptions = {}): Conversation {
  const { threadId, restore = false, model, explain = explainError } = options;
  const [kept, setKept] = useState<Kept>();
  const running = useRef<AbortController>(undefined);
  const isOurs = kept?.client === client && kept.threadId === threadId;
  const turns = isOurs ? kept.turns : [];
  const writing = turns.at(-1)?.state === "writing";

  useEffect(() => () => running.current?.abort(), [client, threadId]);

  useEffect(() => {
    if (threadId === undefined || !restore) return undefined;
    const controller = new AbortController();
    turnsOf(client, threadId, controller.signal).then(
      (turns) => {
        if (controller.signal.aborted) return;
        // Not over a question that was asked meanwhile.
        setKept((now) => (now?.client === client && now.threadId === threadId ? now : { client, threadId, controller, turns }));
      },
      () => {}, // there is no such thread, or it cannot be read now
    );
    return () => controller.abort();
  }, [client, threadId, restore]);

  async function ask(question: string, earlier: readonly Turn[], again: boolean): Promise<void> {
    const controller = new AbortController();
    running.current = controller;
    let turn: Turn = { question, answer: "", state: "writing", note: "" };
    const current = () => ({ client, threadId, controller, turns: [...earlier, turn] });
    setKept(current());
    const show = (change: Partial<Turn>) => {
      turn = { ...turn, ...change };
      const next = current();
      // Not over a question that was asked since, in another conversation perhaps.
      setKept((last) => (last?.controller === controller ? next : last));
    };
    try {
      // A thread's last answer is replaced, and not followed, if all that came before it is sent.
      const newest = threadId && !again;
      const messages = newest ? [said("user", question)] : history(earlier, question);
      const body = model ? { messages, model } : { messages };
      let note = "";
      for await (const chunk of client.chat(body, { signal: controller.signal, threadId })) {
        const choice = chunk.choices[0];
        if (choice?.delta.content) show({ answer: turn.answer + choice.delta.content });
        if (choice?.finish_reason) note = NOTES[choice.finish_reason] ?? "";
      }
      show({ state: "done", note });
    } catch (error) {
      if (controller.signal.aborted) show({ state: "stopped", note: "Stopped." });
      else show({ state: "failed", note: explain(error) });
    }
  }

  return {
    turns,
    writing,
    send(text) {
      if (!writing && text.trim()) void ask(text.trim(), turns, false);
    },
    stop() {
      running.current?.abort();
    },
    retry() {
      const last = turns.at(-1);
      if (last && !writing) void ask(last.question, turns.slice(0, -1), true);
    },
  };
}

/** The questions that were answered, with what was answered, and the new one. */
function history(earlier: readonly Turn[], question: string): ChatMessage[] {
  const answered = earlier.filter((turn) => turn.answer && turn.state !== "failed");
  return [
    ...answered.flatMap((turn) => [said("user", turn.question), said("assistant", turn.answer)]),
    said("user", question),
  ];
}

async function turnsOf(client: Client, threadId: string, signal: AbortSignal): Promise<Turn[]> {
  const path = `/v1/threads/${encodeURIComponent(threadId)}/messages`;
  const turns: Turn[] = [];
  for (const { role, content } of await client.json<{ role: string; content: string }[]>(path, { signal })) {
    const last = turns.at(-1);
    if (role === "user") turns.push({ question: content, answer: "", state: "done", note: "" });
    else if (role === "assistant" && last) last.answer = content;
  }
  return turns;
}

function said(role: "user" | "assistant", content: string): ChatMessage {
  return { role, content };
}

/** The reply of GET /v1/me: the caller's limits, and what is left of them. Times are Unix seconds. */
export interface Me {
  object: "me";
  user_id: string;
  project_id: string;
  tier?: string | number | null;
  limits: {
    limit_name: string;
    limit: number;
    used: number;
    left: number;
    resets_at: number | null;
  }[];
  budget: {
    limit_usd: number;
    spent_usd: number;
    reserved_usd: number;
    remaining_usd: number;
    resets_at: number;
  } | null;
  rate_limit: { rpm: number; remaining: number; reset_in: number } | null;
  [field: string]: unknown;
}

/**
 * Return the reply of GET /v1/me, and fetch it again whenever `after` changes, such as the number of
 * finished answers. Undefined until it is there; if a fetch fails, the last reply stays.
 */
export function useMe(client: Client, after?: unknown): Me | undefined {
  const [kept, setKept] = useState<{ client: Client; me: Me }>();
  useEffect(() => {
    const controller = new AbortController();
    client.json<Me>("/v1/me", { signal: controller.signal }).then(
      (me) => {
        if (!controller.signal.aborted) setKept({ client, me });
      },
      () => {}, // what is left is a nicety: the page works without it
    );
    return () => controller.abort();
  }, [client, after]);
  return kept?.client === client ? kept.me : undefined;
}
