"use client";

import { useState } from "react";
import { createClient, WeirError, type Client, type TokenReply } from "weir-client";

/** Return the gateway's client. It lives as long as the page of the user whose token it keeps. */
export function useWeir(gateway: string): Client {
  const [client] = useState(() => createClient({ baseUrl: gateway, getToken }));
  return client;
}

/** The client keeps the token in memory, and calls this again a minute before it ends. */
async function getToken() {
  const reply = await fetch("/api/weir/token", { method: "POST" }); // the session's cookie goes along
  if (reply.status === 401) location.assign("/?ended");
  if (!reply.ok) throw await WeirError.from(reply);
  return (await reply.json()) as TokenReply;
}
