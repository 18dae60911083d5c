/**
 * Who is signed in: one demo account, and a signed, HttpOnly cookie.
 *
 * This file stands for what your app has already: Passport, Auth0, Clerk. The rest of the example
 * needs `requireSignedInUser` and `requireSameOrigin` only.
 */
import { createHash, createHmac, randomBytes, timingSafeEqual } from "node:crypto";
import type { NextFunction, Request, Response } from "express";
import { required } from "./env.js";

// Without SESSION_SECRET a restart ends all sessions.
const SECRET = process.env.SESSION_SECRET || randomBytes(32).toString("hex");
const LASTS_MS = 12 * 3_600_000;

export interface User {
  /** What the gateway knows this user by: stable, and without the e-mail address in it. */
  id: string;
  email: string;
  /** From your own records: one of the project's tiers. */
  plan?: number;
}

/** Return the user of the session, or undefined if there is none. */
export function requireSignedInUser(request: Request): User | undefined {
  const cookie = /(?:^|; )session=([^;]*)/.exec(request.headers.cookie ?? "")?.[1];
  const [payload, signature] = (cookie ?? "").split(".");
  if (!payload || !signature || !equal(signature, sign(payload))) return undefined;
  const { email, until } = JSON.parse(Buffer.from(payload, "base64url").toString()) as {
    email: string;
    until: number;
  };
  if (until < Date.now()) return undefined;
  return { id: `u_${createHash("sha256").update(email).digest("hex").slice(0, 24)}`, email };
}

/** Begin a session if the account is known; return its address. */
export function signIn(response: Response, email: unknown, password: unknown): string | undefined {
  const name = String(email).trim().toLowerCase();
  const known = equal(name, required("DEMO_EMAIL")) && equal(String(password), required("DEMO_PASSWORD"));
  if (!known) return undefined;
  const session = { email: name, until: Date.now() + LASTS_MS };
  const payload = Buffer.from(JSON.stringify(session)).toString("base64url");
  response.cookie("session", `${payload}.${sign(payload)}`, {
    httpOnly: true,
    sameSite: "lax",
    secure: process.env.NODE_ENV === "production",
    maxAge: LASTS_MS,
  });
  return name;
}

/**
 * Refuse what another site's page sends with this app's cookie. SameSite=Lax is not enough: on
 * localhost every port belongs to the same site, and so do all subdomains of a domain.
 */
export function requireSameOrigin(request: Request, response: Response, next: NextFunction): void {
  const { origin, host, "sec-fetch-site": site } = request.headers;
  // Old browsers send an Origin alone; what is no browser sends neither, and has no one's cookie.
  const isOurs = site ? site === "same-origin" : !origin || origin.replace(/^https?:\/\//, "") === host;
  if (isOurs) next();
  else response.status(403).json({ message: "Only this app's own pages may do that." });
}

function sign(payload: string): string {
  return createHmac("sha256", SECRET).update(payload).digest("base64url");
}

/** Compare in constant time, whatever the lengths. */
function equal(given: string, expected: string): boolean {
  const [a, b] = [given, expected].map((text) => createHash("sha256").update(text).digest());
  return timingSafeEqual(a!, b!);
}
