"use client";

import dynamic from "next/dynamic";
import { useLayoutEffect, useRef, useState, type KeyboardEvent, type ReactNode } from "react";
import { creditsLeft } from "weir-client/explain";
import type { Me, Turn } from "weir-client/react";
import { signOut } from "@/app/actions";

// In the browser only: what it is made safe with needs a document.
const Markdown = dynamic(() => import("./Markdown").then((module) => module.Markdown), { ssr: false });

interface Props {
  email: string;
  /** What leads to the user's other chats. */
  navigation: ReactNode;
  turns: readonly Turn[];
  writing: boolean;
  me: Me | undefined;
  onSend: (question: string) => void;
  onStop: () => void;
  onRetry: () => void;
}

/** What is said, and the form to say more. */
export function Conversation({ email, navigation, turns, writing, me, onSend, onStop, onRetry }: Props) {
  const [text, setText] = useState("");
  const log = useRef<HTMLDivElement>(null);
  const atBottom = useRef(true);
  const input = useRef<HTMLTextAreaElement>(null);
  const last = turns.at(-1);

  useLayoutEffect(() => {
    // Follows the answer, unless its reader has scrolled up.
    if (log.current && atBottom.current) log.current.scrollTop = log.current.scrollHeight;
  }, [turns]);

  function submit() {
    if (writing || !text.trim()) return;
    atBottom.current = true;
    onSend(text.trim());
    setText("");
    input.current?.focus();
  }

  function stopHere() {
    onStop();
    input.current?.focus();
  }

  function onKeyDown(event: KeyboardEvent) {
    if (event.nativeEvent.isComposing) return; // Enter ends a Japanese word, not the message
    if (event.key === "Enter" && !event.shiftKey) {
      event.preventDefault();
      submit();
    }
  }

  return (
    <main className="chat" onKeyDown={(event) => event.key === "Escape" && writing && stopHere()}>
      <header>
        <h1>
          <span className="mark" aria-hidden="true" /> Weir chat
        </h1>
        <span className="quiet who">{email}</span>
        {navigation}
        <form action={signOut}>
          <button className="plain">Sign out</button>
        </form>
      </header>

      <div
        ref={log}
        className="log"
        role="log"
        aria-label="Conversation"
        aria-busy={writing /* read aloud when it is whole, not piece by piece */}
        tabIndex={0}
        onScroll={({ currentTarget: at }) => {
          atBottom.current = at.scrollHeight - at.scrollTop - at.clientHeight < 40;
        }}
      >
        {turns.length === 0 && (
          <p className="welcome">
            Ask the model something.
            <span className="quiet">Its answer streams from the gateway straight into this page.</span>
          </p>
        )}
        {turns.map((turn, number) => (
          <section key={number} className="turn">
            <p className="question">
              <b className="unseen">You: </b>
              {turn.question}
            </p>
            {(turn.answer || turn.state === "writing") && (
              <div className={`answer ${turn.state}`}>
                <b className="unseen">Model: </b>
                <Markdown text={turn.answer} />
              </div>
            )}
            {turn.state === "failed" ? (
              <p className="error" role="alert">
                {turn.note}{" "}
                {turn === last && (
                  <button className="plain" onClick={onRetry}>
                    Try again
                  </button>
                )}
              </p>
            ) : (
              turn.note && <p className="quiet note">{turn.note}</p>
            )}
          </section>
        ))}
      </div>
      <p className="unseen" role="status">
        {writing ? "The model is answering." : last?.state === "done" ? "The answer is complete." : ""}
      </p>

      <form
        onSubmit={(event) => {
          event.preventDefault();
          submit();
        }}
      >
        <p className="quiet ai">
          You are talking to an AI. Its answers can be wrong. <span className="left">{creditsLeft(me)}</span>
        </p>
        <label className="unseen" htmlFor="message">
          Message
        </label>
        <textarea
          ref={input}
          id="message"
          rows={1}
          autoFocus
          placeholder="Write a message"
          value={text}
          onChange={(event) => setText(event.target.value)}
          onKeyDown={onKeyDown}
          aria-describedby="keys"
        />
        {writing ? (
          <button key="stop" type="button" className="stop" onClick={stopHere}>
            Stop
          </button>
        ) : (
          <button key="send">Send</button>
        )}
        <p id="keys" className="quiet">
          Enter sends, Shift + Enter makes a new line, Escape stops an answer.
        </p>
      </form>
    </main>
  );
}
