/**
 * Who is signed in: one demo account, and a signed, HttpOnly cookie.
 *
 * This file stands for what your app has already: Auth.js, Clerk, Supabase. The rest of the example
 * needs `currentUser` only.
 */
import { createHash, createHmac, randomBytes, timingSafeEqual } from "node:crypto";
import { cookies } from "next/headers";
import { required } from "./settings";

const COOKIE = "session";
const SECONDS = 12 * 3600;

// Without SESSION_SECRET a restart ends all sessions. Next loads this module more than once, so the
// secret of this process is kept where every copy finds it.
const kept = globalThis as { sessionSecret?: string };
const SECRET = process.env.SESSION_SECRET || (kept.sessionSecret ??= randomBytes(32).toString("hex"));

export interface User {
  /** What the gateway knows this user by: stable, and without the e-mail address in it. */
  id: string;
  email: string;
  /** The user's plan, from your own records: one of the project's tiers. */
  tier: number;
}

/** Return the user of the session, or undefined if there is none. */
export async function currentUser(): Promise<User | undefined> {
  const [payload, signature] = ((await cookies()).get(COOKIE)?.value ?? "").split(".");
  if (!payload || !signature || !equal(signature, sign(payload))) return undefined;
  const { email, until } = JSON.parse(Buffer.from(payload, "base64url").toString()) as {
    email: string;
    until: number;
  };
  if (until < Date.now()) return undefined;
  return { id: `u_${createHash("sha256").update(email).digest("hex").slice(0, 24)}`, email, tier: 1 };
}

/** Begin a session if the account is known; return whether it is. */
export async function beginSession(email: string, password: string): Promise<boolean> {
  const name = email.trim().toLowerCase();
  const known = equal(name, required("DEMO_EMAIL")) && equal(password, required("DEMO_PASSWORD"));
  if (!known) return false;
  const session = { email: name, until: Date.now() + SECONDS * 1000 };
  const payload = Buffer.from(JSON.stringify(session)).toString("base64url");
  (await cookies()).set(COOKIE, `${payload}.${sign(payload)}`, {
    httpOnly: true,
    sameSite: "lax",
    secure: process.env.NODE_ENV === "production",
    maxAge: SECONDS,
  });
  return true;
}

export async function endSession(): Promise<void> {
  (await cookies()).delete(COOKIE);
}

function sign(payload: string): string {
  return createHmac("sha256", SECRET).update(payload).digest("base64url");
}

/** Compare in constant time, whatever the lengths. */
function equal(given: string, expected: string): boolean {
  const [a, b] = [given, expected].map((text) => createHash("sha256").update(text).digest());
  return timingSafeEqual(a!, b!);
}
