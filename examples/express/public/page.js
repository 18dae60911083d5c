/** The page, without a framework or a build: sign in, then a conversation that streams. */
import { createClient, WeirError } from "/modules/weir-client/index.js";
import { creditsLeft, explain } from "/modules/weir-client/explain.js";
import { showMarkdown } from "./markdown.js";

/** @typedef {{ role: "user" | "assistant", content: string }} Message */

const signInPage = element("sign-in");
const account = element("account", HTMLFormElement);
const chat = element("chat");
const log = element("log");
const status = element("status");
const input = element("message", HTMLTextAreaElement);
const summarise = element("summarise", HTMLButtonElement);

const { email, gateway } = await (await fetch("/api/session")).json();
/** For one user: it keeps their token. */
let client = newClient();

/** @type {Message[]} The questions that were answered, and their answers. */
let history = [];
/** @type {AbortController | undefined} Of the answer that is being written. */
let running;

function newClient() {
  return createClient({
    baseUrl: gateway,
    // This app's cookie says who is asking. The client keeps the token in memory only, and calls
    // this again a minute before it ends.
    getToken: async () => (await post("/api/weir/token")).json(),
  });
}

/** @param {string} path @param {object} [body] @param {AbortSignal} [signal] */
async function post(path, body = {}, signal) {
  const reply = await fetch(path, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
    signal: signal ?? null,
  });
  if (reply.ok) return reply;
  if (reply.status === 401 && path !== "/api/sign-in") leave("Your session has ended. Please sign in again.");
  throw await WeirError.from(reply);
}

// ---------------------------------------------------------------- signing in and out

/** @param {string | null} who The address of the user who is signed in. */
function show(who) {
  signInPage.hidden = who !== null;
  chat.hidden = who === null;
  element("who").textContent = who;
  if (who === null) return account.email.focus();
  input.focus();
  void showCredits();
}

/** @param {string} notice */
function leave(notice) {
  running?.abort();
  running = undefined;
  client = newClient();
  history = [];
  for (const turn of log.querySelectorAll(".turn")) turn.remove();
  element("welcome").hidden = false;
  element("notice").textContent = notice;
  setWriting(false);
  show(null);
}

account.addEventListener("submit", async (event) => {
  event.preventDefault();
  const error = element("sign-in-error");
  error.textContent = "";
  try {
    const reply = await post("/api/sign-in", { email: account.email.value, password: account.password.value });
    account.reset();
    show((await reply.json()).email);
  } catch (failure) {
    // Its 401 is about the password, and not about a session.
    error.textContent = failure instanceof WeirError ? failure.message : explain(failure);
    account.password.select();
  }
});

element("sign-out").addEventListener("click", async () => {
  await post("/api/sign-out").catch(() => undefined);
  leave("You are signed out.");
});

// ---------------------------------------------------------------- the conversation

/** @param {string} question */
async function ask(question) {
  const turn = addTurn(question);
  /** @type {Message[]} */
  const messages = [...history, { role: "user", content: question }];
  const answer = await write(turn, async (say, signal) => {
    for await (const chunk of client.chat({ messages }, { signal })) {
      const choice = chunk.choices[0];
      if (choice?.delta.content) say(choice.delta.content);
      if (choice?.finish_reason === "length") turn.note("The answer ends here because it reached its length limit.");
    }
  }, () => ask(question));
  if (answer) history = [...messages, { role: "assistant", content: answer }];
  summarise.hidden = history.length === 0;
}

/** Have this app's server ask, which calls answerFor() in src/chat.ts. */
async function askForSummary() {
  const conversation = history.map(({ role, content }) => `${role}: ${content}`).join("\n\n");
  await write(addTurn("Summarise our conversation."), async (say, signal) => {
    say((await (await post("/api/summary", { conversation }, signal)).json()).summary);
  }, askForSummary);
}

/**
 * Show an answer while it is written. Return its text, or "" if it failed or its user has gone.
 *
 * @param {ReturnType<typeof addTurn>} turn
 * @param {(say: (piece: string) => void, signal: AbortSignal) => Promise<void>} answer
 * @param {() => void} again
 */
async function write(turn, answer, again) {
  const controller = (running = new AbortController());
  let text = "";
  let failed = false;
  setWriting(true);
  try {
    await answer((piece) => turn.show((text += piece)), controller.signal);
    status.textContent = "The answer is complete.";
  } catch (error) {
    status.textContent = "";
    failed = !controller.signal.aborted;
    if (failed) turn.fail(explain(error), again);
    else turn.note("Stopped.");
  }
  turn.end();
  if (running !== controller) return ""; // signed out meanwhile
  running = undefined;
  setWriting(false);
  void showCredits();
  return failed ? "" : text;
}

/** @param {boolean} writing */
function setWriting(writing) {
  element("send").hidden = writing;
  element("stop").hidden = !writing;
  summarise.hidden = writing || history.length === 0;
  log.setAttribute("aria-busy", String(writing)); // read aloud when it is whole, not piece by piece
  if (writing) status.textContent = "The model is answering.";
}

/** @param {string} question */
function addTurn(question) {
  element("welcome").hidden = true;
  const section = append(log, "section", "turn");
  const asked = append(section, "p", "question");
  append(asked, "b", "unseen").textContent = "You: ";
  asked.append(question);
  const answer = append(section, "div", "answer writing");
  append(answer, "b", "unseen").textContent = "Model: ";
  const words = append(answer, "div", "markdown");
  log.scrollTop = log.scrollHeight;
  return {
    /** @param {string} text */
    show(text) {
      const atBottom = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
      showMarkdown(words, text);
      if (atBottom) log.scrollTop = log.scrollHeight; // unless its reader has scrolled up
    },
    end() {
      answer.classList.remove("writing");
      if (!words.textContent) answer.remove();
    },
    /** @param {string} text */
    note(text) {
      append(section, "p", "quiet note").textContent = text;
    },
    /** @param {string} text @param {() => void} again */
    fail(text, again) {
      const alert = append(section, "p", "error");
      alert.setAttribute("role", "alert");
      alert.textContent = `${text} `;
      const button = append(alert, "button", "plain");
      button.textContent = "Try again";
      button.addEventListener("click", () => {
        section.remove();
        again();
      });
      log.scrollTop = log.scrollHeight;
    },
  };
}

async function showCredits() {
  // Nice to know, and not worth an error.
  element("left").textContent = creditsLeft(await client.json("/v1/me").catch(() => undefined));
}

function send() {
  const question = input.value.trim();
  if (running || !question) return;
  // Only the last question can be asked again.
  log.querySelector(".error button")?.remove();
  input.value = "";
  input.focus();
  void ask(question);
}

function stop() {
  running?.abort();
  input.focus();
}

element("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  send();
});
input.addEventListener("keydown", (event) => {
  if (event.isComposing || event.key !== "Enter" || event.shiftKey) return; // Enter ends a Japanese word, too
  event.preventDefault();
  send();
});
element("stop").addEventListener("click", stop);
summarise.addEventListener("click", () => {
  input.focus();
  void askForSummary();
});
chat.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && running) stop();
});

show(email);

// ---------------------------------------------------------------- the document

/**
 * @template {HTMLElement} Kind
 * @param {string} id
 * @param {new () => Kind} kind
 * @returns {Kind}
 */
function element(id, kind = /** @type {new () => Kind} */ (HTMLElement)) {
  const found = document.getElementById(id);
  if (!(found instanceof kind)) throw new Error(`There is no #${id}.`);
  return found;
}

/** @param {HTMLElement} parent @param {string} tag */
function append(parent, tag, classes = "") {
  const child = document.createElement(tag);
  child.className = classes;
  parent.append(child);
  return child;
}
