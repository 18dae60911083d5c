"use client";

import { useActionState } from "react";
import { signIn } from "./actions";

export function SignIn({ notice }: { notice: string }) {
  const [error, submit, busy] = useActionState(signIn, "");
  return (
    <main className="sign-in">
      <form action={submit} aria-busy={busy}>
        <h1>
          <span className="mark" aria-hidden="true" /> Weir chat
        </h1>
        <p className="quiet">{notice}</p>
        <label>
          E-mail
          <input name="email" type="email" autoComplete="username" required autoFocus />
        </label>
        <label>
          Password
          <input
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
