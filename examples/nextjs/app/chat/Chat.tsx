"use client";

import { useSearchParams } from "next/navigation";
import { useEffect, useState } from "react";
import { explain } from "weir-client/explain";
import { useConversation, useMe } from "weir-client/react";
import { Conversation } from "@/components/Conversation";
import { useWeir } from "@/lib/useWeir";
import { Threads } from "./Threads";

/**
 * A conversation that the gateway keeps, and the list of all of them. The id of the open one is in
 * the address (?thread=…), so that a reload, a bookmark and the Back button lead to it.
 */
export function Chat({ gateway, email }: { gateway: string; email: string }) {
  const client = useWeir(gateway);
  const opened = useSearchParams().get("thread");
  const [fresh, setFresh] = useState(newId); // of the conversation that is begun here
  const threadId = opened ?? fresh;
  const { turns, send, stop, retry, writing } = useConversation(client, {
    threadId,
    restore: threadId !== fresh,
    explain,
  });
  const me = useMe(client, writing);

  useEffect(() => {
    // Coming back to the one that was begun here shows what was said in it.
    if (opened && opened !== fresh) setFresh(newId());
  }, [opened, fresh]);

  function open(id: string | null) {
    if (id === null) setFresh(newId());
    history.pushState(null, "", id === null ? "/chat" : `/chat?thread=${encodeURIComponent(id)}`);
    document.getElementById("message")?.focus();
  }

  function ask(question: string) {
    send(question);
    if (!opened) history.replaceState(null, "", `/chat?thread=${fresh}`);
  }

  return (
    <div className="with-threads">
      <Threads client={client} current={threadId} after={writing} onOpen={open} />
      <Conversation
        key={threadId}
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

function newId(): string {
  return crypto.randomUUID();
}
