/** A chat in the corner of the page, which talks to the gateway directly. */
import { useEffect, useMemo, useRef, useState, type KeyboardEvent } from "react";
import { createClient, WeirError, type Client, type TokenReply } from "weir-client";
import { creditsLeft, explain } from "weir-client/explain";
import { useConversation, useMe } from "weir-client/react";
import { Markdown } from "./Markdown";

export function ChatWidget({ gateway, model }: { gateway: string; model: string }) {
  const client = useMemo(() => createClient({ baseUrl: gateway, getToken: clientToken }), [gateway]);
  const [open, setOpen] = useState(false);
  const launcher = useRef<HTMLButtonElement>(null);

  function close() {
    setOpen(false);
    launcher.current?.focus();
  }

  return (
    <aside className="widget">
      {open && <Conversation client={client} model={model} onClose={close} />}
      <button
        ref={launcher}
        className="launcher"
        aria-expanded={open}
        aria-controls="chat-panel"
        onClick={() => (open ? close() : setOpen(true))}
      >
        {open ? "Close chat" : "Chat"}
      </button>
    </aside>
  );
}

/** Asks this site's server, which knows by its own cookie who the visitor is. */
async function clientToken() {
  const reply = await fetch("/api/chat-token", { method: "POST" });
  if (!reply.ok) throw await WeirError.from(reply);
  return (await reply.json()) as TokenReply;
}

interface Props {
  client: Client;
  model: string;
  onClose: () => void;
}

function Conversation({ client, model, onClose }: Props) {
  const { turns, send, stop, retry, writing } = useConversation(client, { model, explain });
  const me = useMe(client, writing);
  const [text, setText] = useState("");
  const input = useRef<HTMLTextAreaElement>(null);
  const log = useRef<HTMLDivElement>(null);
  const last = turns.at(-1);

  useEffect(() => {
    log.current?.scrollTo({ top: log.current.scrollHeight });
  }, [turns]);

  function submit() {
    if (writing || !text.trim()) return;
    send(text.trim());
    setText("");
    input.current?.focus();
  }

  function onKeyDown(event: KeyboardEvent) {
    if (event.key !== "Escape") return;
    if (writing) stop();
    else onClose();
  }

  return (
    <section id="chat-panel" className="panel" role="dialog" aria-label="Chat" onKeyDown={onKeyDown}>
      <div ref={log} className="log" role="log" aria-label="Conversation" aria-busy={writing} tabIndex={0}>
        {turns.length === 0 && <p className="quiet">Ask us about a parcel.</p>}
        {turns.map((turn, number) => (
          <section key={number} className="turn">
            <p className="question">
              <b className="unseen">You: </b>
              {turn.question}
            </p>
            {(turn.answer || turn.state === "writing") && (
              <div className={`answer ${turn.state}`}>
                <b className="unseen">Assistant: </b>
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
        {writing ? "The assistant is answering." : last?.state === "done" ? "The answer is complete." : ""}
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
          onKeyDown={(event) => {
            if (event.nativeEvent.isComposing || event.key !== "Enter" || event.shiftKey) return;
            event.preventDefault();
            submit();
          }}
        />
        {writing ? (
          <button key="stop" type="button" className="stop" onClick={stop}>
            Stop
          </button>
        ) : (
          <button key="send">Send</button>
        )}
      </form>
    </section>
  );
}
