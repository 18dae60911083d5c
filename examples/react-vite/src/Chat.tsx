import { useLayoutEffect, useRef, useState, type KeyboardEvent } from "react";
import { creditsLeft, explain } from "weir-client/explain";
import { useConversation, useMe } from "weir-client/react";
import type { SignedIn } from "./App";
import { Markdown } from "./Markdown";
import { SessionEnded } from "./session";

interface Props extends SignedIn {
  onLeave: (why: string) => void;
}

export function Chat({ session, client, onLeave }: Props) {
  const [thread, setThread] = useState(threadOfAddress);
  const { turns, send, stop, retry, writing } = useConversation(client, {
    ...thread,
    explain: (error) => {
      if (!(error instanceof SessionEnded)) return explain(error);
      onLeave(`${error.message} Please sign in again.`);
      return error.message;
    },
  });
  const me = useMe(client, writing);
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
    send(text.trim());
    setText("");
    input.current?.focus();
  }

  function stopHere() {
    stop();
    input.current?.focus();
  }

  function startAnew() {
    stop();
    setThread(newThread());
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
        <span className="quiet who">{session.email}</span>
        <button className="plain" onClick={startAnew}>
          New chat
        </button>
        <button className="plain" onClick={() => onLeave("You are signed out.")}>
          Sign out
        </button>
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
                  <button className="plain" onClick={retry}>
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

/** The conversation's id stands in the address, so that a reload comes back to it. */
function threadOfAddress() {
  const threadId = /^#([\w-]{1,64})$/.exec(location.hash)?.[1];
  return threadId ? { threadId, restore: true } : newThread();
}

function newThread() {
  const threadId = crypto.randomUUID();
  history.replaceState(null, "", `#${threadId}`);
  return { threadId, restore: false };
}
