/** What the tests of weir-client put into a page: its entries, and a conversation in React. */
import { createElement, StrictMode, useEffect, useState } from "react";
import { createRoot } from "react-dom/client";
import * as weir from "weir-client";
import { explain } from "weir-client/explain";
import { useConversation, useMe, type Conversation } from "weir-client/react";

type Props = { client: weir.Client; threadId?: string | null; first?: string };
let now: Conversation;
let change: (props: Props | undefined) => void;

function Talk({ client, threadId, first }: Props) {
  now = useConversation(client, { threadId: threadId ?? undefined });
  useEffect(() => now.send(first ?? ""), [first]);
  const me = useMe(client, now.turns.filter((turn) => turn.state === "done").length);
  return createElement("pre", { id: "talk" }, JSON.stringify({ turns: now.turns, writing: now.writing, me: me?.user_id }));
}

function Page(props: Props) {
  const [current, setCurrent] = useState<Props | undefined>(props);
  change = setCurrent;
  return current ? createElement(Talk, current) : null;
}

Object.assign(globalThis, {
  weir,
  explain,
  /** Show a conversation in place of the page. */
  show(props: Props) {
    document.body.replaceChildren(document.createElement("main"));
    const page = createElement(StrictMode, null, createElement(Page, props));
    createRoot(document.body.firstElementChild!).render(page);
  },
  /** Show another conversation, or none. */
  change: (props: Props | undefined) => change(props),
  conversation: () => now,
});
