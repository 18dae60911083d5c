"use client";

import { useChat, type UIMessage } from "@ai-sdk/react";
import Link from "next/link";
import { useMemo } from "react";
import { chatTransport } from "weir-client/ai";
import { explain } from "weir-client/explain";
import { useMe, type Turn } from "weir-client/react";
import { Conversation } from "@/components/Conversation";
import { useWeir } from "@/lib/useWeir";

/** The same chat with `useChat` of the AI SDK. Its transport calls the gateway: no route is needed. */
export function AiChat({ gateway, email }: { gateway: string; email: string }) {
  const client = useWeir(gateway);
  const transport = useMemo(() => chatTransport(client), [client]);
  const { messages, status, error, sendMessage, stop, regenerate } = useChat({ transport });
  const writing = status === "submitted" || status === "streaming";
  const me = useMe(client, writing);

  return (
    <Conversation
      email={email}
      navigation={<Link href="/chat">Chats</Link>}
      turns={turnsOf(messages, writing, error)}
      writing={writing}
      me={me}
      onSend={(text) => void sendMessage({ text })}
      onStop={() => void stop()}
      onRetry={() => void regenerate()}
    />
  );
}

/** Pair each question with its answer. Only the last answer can be unfinished or have failed. */
function turnsOf(messages: UIMessage[], writing: boolean, error: Error | undefined): Turn[] {
  const turns: Turn[] = [];
  for (const { role, parts } of messages) {
    const text = parts.map((part) => (part.type === "text" ? part.text : "")).join("");
    const last = turns.at(-1);
    if (role === "user") turns.push({ question: text, answer: "", state: "done", note: "" });
    else if (last) last.answer += text;
  }
  const last = turns.at(-1);
  if (last && writing) last.state = "writing";
  else if (last && error) Object.assign(last, { state: "failed", note: explain(error) });
  return turns;
}
