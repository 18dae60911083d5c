import { useState } from "react";
import type { Client } from "weir-client";
import { Chat } from "./Chat";
import type { Config } from "./config";
import { HostedSignIn } from "./HostedSignIn";
import type { Session } from "./session";
import { SignIn } from "./SignIn";

export interface SignedIn {
  session: Session;
  /** Of the gateway, for the user of the session. */
  client: Client;
}

export function App({ config }: { config: Config }) {
  const [signedIn, setSignedIn] = useState<SignedIn>();
  const [notice, setNotice] = useState("");

  function leave(why: string) {
    signedIn?.session.signOut();
    setSignedIn(undefined);
    setNotice(why);
  }

  const Entrance = config.cognitoDomain ? HostedSignIn : SignIn;
  return signedIn ? (
    <Chat {...signedIn} onLeave={leave} />
  ) : (
    <Entrance config={config} notice={notice} onSignedIn={setSignedIn} />
  );
}
