import { useEffect, useLayoutEffect, useRef, useState, type KeyboardEvent } from "react";
import type { SignedIn } from "./App";
import { streamAnswer } from "./answer";
import type { Config } from "./config";
import { explain } from "./errors";
import { SessionEnded } from "./session";

interface Turn {
  question: string;
  answer: string;
  state: "writing" | "done" | "stopped" | "failed";
  /** What the reader should know about the answer: why it ended early. */
  note: string;
}

interface Props extends SignedIn {
  config: Config;
  onLeave: (why: string) => void;
}

export function Chat({ config, session, tokens, onLeave }: Props) {
  const [turns, setTurns] = useState<Turn[]>([]);
  const [text, setText] = useState("");
  const running = useRef<AbortController>(null);
  const log = useRef<HTMLDivElement>(null);
  const atBottom = useRef(true);
  const input = useRef<HTMLTextAreaElement>(null);
  const last = turns.at(-1);
  const writing = last?.state === "writing";

  useEffect(() => () => running.current?.abort(), []); // signed out while an answer is written

  useLayoutEffect(() => {
    // Follows the answer, unless its reader has scrolled up.
    if (log.current && atBottom.current) log.current.scrollTop = log.current.scrollHeight;
  }, [turns]);

  async function ask(question: string, earlier: Turn[]) {
    const controller = new AbortController();
    running.current = controller;
    atBottom.current = true;
    let turn: Turn = { question, answer: "", state: "writing", note: "" };
    const show = (change: Partial<Turn>) => {
      turn = { ...turn, ...change };
      setTurns([...earlier, turn]);
    };
    show({});
    try {
      const reason = await streamAnswer(
        config,
        tokens,
        conversation(earlier, question),
        controller.signal,
        (piece) => show({ answer: turn.answer + piece }),
      );
      show({ state: "done", note: NOTES[reason] ?? "" });
    } catch (error) {
      if (controller.signal.aborted) show({ state: "stopped", note: "Stopped." });
      else if (error instanceof SessionEnded) onLeave(`${error.message} Please sign in again.`);
      else show({ state: "failed", note: explain(error) });
    }
  }

  function send() {
    if (writing || !text.trim()) return;
    setText("");
    input.current?.focus();
    void ask(text.trim(), turns);
  }

  function stop() {
    running.current?.abort();
    input.current?.focus();
  }

  function onKeyDown(event: KeyboardEvent) {
    if (event.nativeEvent.isComposing) return; // Enter ends a Japanese word, not the message
    if (event.key === "Enter" && !event.shiftKey) {
      event.preventDefault();
      send();
    }
  }

  return (
    <main className="chat" onKeyDown={(event) => event.key === "Escape" && writing && stop()}>
      <header>
        <h1>
          <span className="mark" aria-hidden="true" /> Weir chat
        </h1>
        <span className="quiet who">{session.email}</span>
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
              <p className={`answer ${turn.state}`}>
                <b className="unseen">Model: </b>
                {turn.answer}
              </p>
            )}
            {turn.state === "failed" ? (
              <p className="error" role="alert">
                {turn.note}{" "}
                {turn === last && (
                  <button className="plain" onClick={() => ask(turn.question, turns.slice(0, -1))}>
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
          send();
        }}
      >
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
          <button key="stop" type="button" className="stop" onClick={stop}>
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

const NOTES: Record<string, string> = {
  length: "The answer ends here because it reached its length limit.",
  content_filter: "The provider ended this answer: its content filter objected.",
};

/** What the model is told: questions that were answered, with the part that was, then the new one. */
function conversation(earlier: Turn[], question: string) {
  const answered = earlier.filter((turn) => turn.answer && turn.state !== "failed");
  return [
    ...answered.flatMap((turn) => [
      { role: "user" as const, content: turn.question },
      { role: "assistant" as const, content: turn.answer },
    ]),
    { role: "user" as const, content: question },
  ];
}
