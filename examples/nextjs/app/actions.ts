"use server";

/** Signing in and out. Next refuses a server action that another origin's page calls. */
import { redirect } from "next/navigation";
import { beginSession, endSession } from "@/lib/session";

/** Return why it failed. Otherwise the browser goes to the chat. */
export async function signIn(_last: string, form: FormData): Promise<string> {
  const { email = "", password = "" } = Object.fromEntries(form) as Record<string, string>;
  const known = await beginSession(email, password);
  if (!known) return "The e-mail address or the password is wrong.";
  redirect("/chat");
}

export async function signOut(): Promise<void> {
  await endSession();
  redirect("/");
}
