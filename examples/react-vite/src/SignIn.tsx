import { useRef, useState, type SubmitEvent } from "react";
import { explain } from "weir-client/explain";
import type { SignedIn } from "./App";
import type { Config } from "./config";
import { signIn } from "./session";
import { weirClient } from "./weir";

interface Props {
  config: Config;
  /** Why the last session ended, if it did by itself. */
  notice: string;
  onSignedIn: (signedIn: SignedIn) => void;
}

export function SignIn({ config, notice, onSignedIn }: Props) {
  const [error, setError] = useState("");
  const [busy, setBusy] = useState(false);
  const password = useRef<HTMLInputElement>(null);

  async function submit(event: SubmitEvent<HTMLFormElement>) {
    event.preventDefault();
    if (busy) return;
    const typed = Object.fromEntries(new FormData(event.currentTarget)) as Record<string, string>;
    setBusy(true);
    setError("");
    try {
      const session = await signIn(config, typed["email"] ?? "", typed["password"] ?? "");
      const client = weirClient(config, session);
      await client.token(); // what is wrong with the gateway shows here, and the first answer is quicker
      onSignedIn({ session, client });
    } catch (failure) {
      setError(explain(failure));
      setBusy(false);
      password.current?.select();
    }
  }

  return (
    <main className="sign-in">
      <form onSubmit={(event) => void submit(event)} aria-busy={busy}>
        <h1>
          <span className="mark" aria-hidden="true" /> Weir chat
        </h1>
        <p className="quiet">{notice || "Sign in to talk to the model."}</p>
        <label>
          E-mail
          <input name="email" type="email" autoComplete="username" required autoFocus />
        </label>
        <label>
          Password
          <input
            ref={password}
            name="password"
            type="password"
            autoComplete="current-password"
            required
            aria-invalid={error !== ""}
            aria-describedby="sign-in-error"
          />
        </label>
        <p id="sign-in-error" role="alert" className="error">
          {error}
        </p>
        {/* Not `disabled`: a button that is loses the focus. */}
        <button aria-disabled={busy}>{busy ? "Signing in …" : "Sign in"}</button>
      </form>
    </main>
  );
}
