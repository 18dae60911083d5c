/** The site's own sign-in. It has nothing to do with the chat, except that it says who is asking. */
import { useState, type SubmitEvent } from "react";
import { createPortal } from "react-dom";

export function Account({ email, onChange }: { email: string | null; onChange: () => Promise<void> }) {
  const [error, setError] = useState("");

  async function submit(event: SubmitEvent<HTMLFormElement>) {
    event.preventDefault();
    setError("");
    const reply = await fetch("/api/sign-in", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(Object.fromEntries(new FormData(event.currentTarget))),
    }).catch(() => undefined);
    if (reply?.ok) await onChange();
    else setError(reply ? ((await reply.json()) as { message: string }).message : "This site cannot be reached.");
  }

  async function leave() {
    await fetch("/api/sign-out", { method: "POST" });
    await onChange();
  }

  return createPortal(
    email ? (
      <p>
        You are signed in as {email}.{" "}
        <button className="plain" onClick={() => void leave()}>
          Sign out
        </button>
      </p>
    ) : (
      <form className="account" onSubmit={(event) => void submit(event)}>
        <p className="quiet">Sign in to chat with us.</p>
        <label>
          E-mail
          <input name="email" type="email" autoComplete="username" required />
        </label>
        <label>
          Password
          <input
            name="password"
            type="password"
            autoComplete="current-password"
            required
            aria-describedby="sign-in-error"
          />
        </label>
        <p id="sign-in-error" role="alert" className="error">
          {error}
        </p>
        <button>Sign in</button>
      </form>
    ),
    document.getElementById("account")!,
  );
}
