/** The page, without a framework or a build: sign in, then a conversation that streams. */
import { createClient } from "/weir-client/index.js";
import { creditsLeft, explain } from "/weir-client/explain.js";

const $ = (id) => document.getElementById(id);
const post = (path, body) =>
  fetch(path, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body ?? {}),
  });

const { gateway } = await (await fetch("/config.json")).json();
const newClient = () =>
  createClient({
    baseUrl: gateway,
    // This site's cookie says who is asking. A token lasts 15 minutes and stays in memory.
    getToken: async () => {
      const reply = await post("/api/behest/token");
      if (reply.status === 401) leave("Your session has ended. Please sign in again.");
      if (!reply.ok) throw new Error((await reply.json()).message);
      return reply.json();
    },
  });

let client = newClient();
let history = []; // what the model is sent: questions that were answered, and their answers
let running; // the AbortController of the answer that is being written

// ---------------------------------------------------------------- signing in and out

function show(email) {
  $("sign-in").hidden = Boolean(email);
  $("chat").hidden = !email;
  $("who").textContent = email ?? "";
  if (email) {
    $("message").focus();
    void showCredits();
  } else {
    document.querySelector("#sign-in input").focus();
  }
}

function leave(why) {
  running?.abort();
  running = undefined;
  setWriting(false);
  client = newClient(); // the next user's token is not this one's
  history = [];
  document.querySelectorAll(".turn").forEach((turn) => turn.remove());
  $("welcome").hidden = false;
  $("notice").textContent = why;
  show(undefined);
}

document.querySelector("#sign-in form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const form = event.target;
  const typed = Object.fromEntries(new FormData(form));
  $("sign-in-error").textContent = "";
  try {
    const reply = await post("/api/sign-in", typed);
    const said = await reply.json();
    if (!reply.ok) throw new Error(said.message);
    form.reset();
    show(said.email);
  } catch (error) {
    $("sign-in-error").textContent = explain(error);
    form.password.select();
  }
});

$("sign-out").addEventListener("click", async () => {
  await post("/api/sign-out");
  leave("You are signed out.");
});

// ---------------------------------------------------------------- the conversation

/** Yields pieces of text: from the gateway directly, or through this site's server. */
async function* answer(messages, signal) {
  if (!$("through-server").checked) {
    for await (const chunk of client.chat({ messages }, { signal })) {
      yield chunk.choices[0]?.delta?.content ?? "";
    }
    return;
  }
  const reply = await fetch("/api/chat", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ messages }),
    signal,
  });
  if (!reply.ok) throw new Error((await reply.json()).message);
  const reader = reply.body.pipeThrough(new TextDecoderStream()).getReader();
  for (let read = await reader.read(); !read.done; read = await reader.read()) yield read.value;
}

async function ask(question) {
  const turn = addTurn(question);
  const messages = [...history, { role: "user", content: question }];
  const controller = (running = new AbortController());
  setWriting(true);
  let text = "";
  try {
    for await (const piece of answer(messages, controller.signal)) {
      text += piece;
      turn.say(text);
    }
    $("status").textContent = "The answer is complete.";
  } catch (error) {
    if (running !== controller) return; // signed out: the conversation is gone
    if (controller.signal.aborted) turn.note("Stopped.");
    else turn.fail(explain(error), () => ask(question));
    $("status").textContent = "";
  }
  turn.end();
  if (text && !turn.failed) history = [...messages, { role: "assistant", content: text }];
  running = undefined;
  setWriting(false);
  void showCredits();
}

function setWriting(writing) {
  $("send").hidden = writing;
  $("stop").hidden = !writing;
  $("log").setAttribute("aria-busy", String(writing)); // read aloud when it is whole
  if (writing) $("status").textContent = "The model is answering.";
}

/** Only textContent is ever set: whatever the model writes stays text. */
function addTurn(question) {
  $("welcome").hidden = true;
  const section = append($("log"), "section", "turn");
  append(append(section, "p", "question"), "b", "unseen").textContent = "You: ";
  section.firstChild.append(question);
  const paragraph = append(section, "p", "answer writing");
  append(paragraph, "b", "unseen").textContent = "Model: ";
  const words = append(paragraph, "span");
  const log = $("log");
  log.scrollTop = log.scrollHeight;
  return {
    failed: false,
    say(text) {
      const atBottom = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
      words.textContent = text;
      if (atBottom) log.scrollTop = log.scrollHeight;
    },
    end() {
      paragraph.classList.remove("writing");
      if (!words.textContent) paragraph.remove();
    },
    note(text) {
      append(section, "p", "quiet note").textContent = text;
    },
    fail(text, again) {
      this.failed = true;
      const alert = append(section, "p", "error");
      alert.setAttribute("role", "alert");
      alert.textContent = `${text} `;
      const button = append(alert, "button", "plain");
      button.textContent = "Try again";
      button.addEventListener("click", () => {
        section.remove();
        again();
      });
    },
  };
}

function append(parent, tag, classes = "") {
  const element = document.createElement(tag);
  element.className = classes;
  parent.append(element);
  return element;
}

async function showCredits() {
  try {
    $("left").textContent = creditsLeft(await client.json("/v1/me"));
  } catch {
    $("left").textContent = ""; // nice to know, and not worth an error
  }
}

function send() {
  const question = $("message").value.trim();
  if (running || !question) return;
  $("message").value = "";
  $("message").focus();
  void ask(question);
}

function stop() {
  running?.abort();
  $("message").focus();
}

$("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  send();
});
$("message").addEventListener("keydown", (event) => {
  if (event.isComposing || event.key !== "Enter" || event.shiftKey) return;
  event.preventDefault();
  send();
});
$("stop").addEventListener("click", stop);
$("chat").addEventListener("keydown", (event) => event.key === "Escape" && running && stop());

const session = await fetch("/api/session");
show(session.ok ? (await session.json()).email : undefined);
