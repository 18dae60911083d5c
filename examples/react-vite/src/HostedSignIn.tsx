import { useEffect, useState, type FormEvent } from "react";
import { explain } from "weir-client/explain";
import type { SignedIn } from "./App";
import type { Config } from "./config";
import { handleCallback, isCallback, signIn } from "./hosted";
import { weirClient } from "./weir";

interface Props {
  config: Config;
  /** Why the last session ended, if it did by itself. */
  notice: string;
  onSignedIn: (signedIn: SignedIn) => void;
}

/** In the place of SignIn.tsx where VITE_COGNITO_DOMAIN is set: no password is typed here. */
export function HostedSignIn({ config, notice, onSignedIn }: Props) {
  const [error, setError] = useState("");
  const [busy, setBusy] = useState(isCallback);

  function failed(failure: unknown) {
    setError(explain(failure));
    setBusy(false);
  }

  useEffect(() => {
    async function finish() {
      const session = await handleCallback(config);
      if (!session) return;
      const client = weirClient(config, session);
      await client.token(); // what is wrong with the gateway shows here, and the first answer is quicker
      onSignedIn({ session, client });
    }
    finish().catch(failed);
    // Back from Cognito's page without an answer: the browser may show this page as it was left.
    const again = (event: PageTransitionEvent) => event.persisted && setBusy(false);
    addEventListener("pageshow", again);
    return () => removeEventListener("pageshow", again);
  }, []);

  function submit(event: FormEvent) {
    event.preventDefault();
    if (busy) return;
    setBusy(true);
    setError("");
    signIn(config).catch(failed);
  }

  return (
    <main className="sign-in">
      <form onSubmit={submit} aria-busy={busy}>
        <h1>
          <span className="mark" aria-hidden="true" /> Weir chat
        </h1>
        <p className="quiet">{notice || "Sign in to talk to the model."}</p>
        <p role="alert" className="error">
          {error}
        </p>
        {/* Not `disabled`: a button that is loses the focus. */}
        <button autoFocus aria-disabled={busy}>
          {busy ? "Signing in …" : "Sign in"}
        </button>
      </form>
    </main>
  );
}
