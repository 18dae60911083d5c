"use client";

import Link from "next/link";
import { useEffect, useState, type MouseEvent } from "react";
import type { Client } from "weir-client";
import { explain } from "weir-client/explain";

/** What the list needs of a thread (docs/threads.md). */
interface Thread {
  id: string;
  title: string;
}

interface Props {
  client: Client;
  current: string;
  /** The list is read again whenever this changes. */
  after: unknown;
  /** Open a thread; with null, a new one. */
  onOpen: (id: string | null) => void;
}

/** The user's chats: beside the open one, or, on a phone, behind a button. */
export function Threads({ client, current, after, onOpen }: Props) {
  const [threads, setThreads] = useState<Thread[]>([]);
  const [error, setError] = useState("");

  useEffect(() => {
    const leaving = new AbortController();
    client.json<Thread[]>("/v1/threads", { signal: leaving.signal }).then(setThreads, () => {
      // The conversation itself shows what is wrong, and the list is read again after it.
    });
    return () => leaving.abort();
  }, [client, after]);

  async function remove({ id }: Thread) {
    setError("");
    try {
      await client.json(`/v1/threads/${encodeURIComponent(id)}`, { method: "DELETE" });
    } catch (failure) {
      setError(explain(failure));
      return;
    }
    setThreads((now) => now.filter((thread) => thread.id !== id));
    if (id === current) onOpen(null);
  }

  function show(event: MouseEvent, id: string | null) {
    if (event.metaKey || event.ctrlKey || event.shiftKey) return; // in a tab of its own
    event.preventDefault();
    document.getElementById("threads")?.hidePopover();
    onOpen(id);
  }

  return (
    <nav id="threads" popover="auto" aria-label="Chats">
      <a className="new" href="/chat" onClick={(event) => show(event, null)}>
        New chat
      </a>
      <ul>
        {threads.map((thread) => (
          <li key={thread.id}>
            <a
              href={`/chat?thread=${encodeURIComponent(thread.id)}`}
              aria-current={thread.id === current ? "page" : undefined}
              onClick={(event) => show(event, thread.id)}
            >
              {thread.title}
            </a>
            <button className="plain" aria-label={`Delete ${thread.title}`} onClick={() => void remove(thread)}>
              <span aria-hidden="true">×</span>
            </button>
          </li>
        ))}
      </ul>
      <p className="error" role="alert">
        {error}
      </p>
      <Link className="quiet" href="/ai" prefetch={false}>
        The same with useChat
      </Link>
    </nav>
  );
}
