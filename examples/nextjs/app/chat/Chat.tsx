"use client";

import { useEffect, useState } from "react";
import { explain } from "weir-client/explain";
import { useConversation, useMe } from "weir-client/react";
import { Conversation } from "@/components/Conversation";
import { useWeir } from "@/lib/useWeir";
import { Threads } from "./Threads";

interface Props {
  gateway: string;
  email: string;
  /** From the page's address. */
  thread: string | undefined;
}

/**
 * A conversation that the gateway keeps, and the list of all of them. The id of the open one is in
 * the address (?thread=…), so that a reload, a bookmark and the Back button lead to it.
 */
export function Chat({ gateway, email, thread: first }: Props) {
  const client = useWeir(gateway);
  const [thread, setThread] = useState(() => threadOf(first));
  const { turns, send, stop, retry, writing } = useConversation(client, { ...thread, explain });
  const me = useMe(client, writing);

  useEffect(() => {
    const onPopState = () => setThread(threadOf(new URLSearchParams(location.search).get("thread")));
    addEventListener("popstate", onPopState);
    return () => removeEventListener("popstate", onPopState);
  }, []);

  function open(id: string | null) {
    setThread(threadOf(id));
    history.pushState(null, "", id === null ? "/chat" : addressOf(id));
    document.getElementById("message")?.focus();
  }

  function ask(question: string) {
    send(question);
    history.replaceState(null, "", addressOf(thread.threadId));
  }

  return (
    <div className="with-threads">
      <Threads client={client} current={thread.threadId} after={writing} onOpen={open} />
      <Conversation
        email={email}
        navigation={
          <button className="plain show-threads" popoverTarget="threads">
            Chats
          </button>
        }
        turns={turns}
        writing={writing}
        me={me}
        onSend={ask}
        onStop={stop}
        onRetry={retry}
      />
    </div>
  );
}

/** A thread is there as soon as a chat has named it, so a new one needs an id and nothing else. */
function threadOf(id: string | null | undefined) {
  return id ? { threadId: id, restore: true } : { threadId: crypto.randomUUID(), restore: false };
}

function addressOf(threadId: string): string {
  return `/chat?thread=${encodeURIComponent(threadId)}`;
}
