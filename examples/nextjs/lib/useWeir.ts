"use client";

import { useMemo } from "react";
import { createClient, WeirError, type Client } from "weir-client";

/** Return the gateway's client, for the user who is signed in. */
export function useWeir(gateway: string): Client {
  return useMemo(() => createClient({ baseUrl: gateway, getToken }), [gateway]);
}

/** The client keeps the token in memory, and calls this again a minute before it ends. */
async function getToken() {
  const reply = await fetch("/api/weir/token", { method: "POST" }); // the session's cookie goes along
  if (reply.status === 401) location.assign("/?ended");
  if (!reply.ok) throw await WeirError.from(reply);
  return reply.json();
}
