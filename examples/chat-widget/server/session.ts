/**
 * Who is signed in: one demo account, and a signed, HttpOnly cookie.
 *
 * This file stands for what your site has already. The rest of the example needs `userOf` only.
 */
import { createHash, createHmac, randomBytes, timingSafeEqual } from "node:crypto";
import type { NextFunction, Request, Response } from "express";

const SECRET = process.env["SESSION_SECRET"] ?? randomBytes(32).toString("hex");
const HOURS = 12;

export interface User {
  /** What the gateway knows this user by: stable, and without the e-mail address in it. */
  id: string;
  email: string;
}

export function userOf(request: Request): User | undefined {
  const cookie = /(?:^|; )session=([^;]*)/.exec(request.headers.cookie ?? "")?.[1];
  const [payload, signature] = (cookie ?? "").split(".");
  if (!payload || !signature || !same(signature, sign(payload))) return undefined;
  const { email, until } = JSON.parse(Buffer.from(payload, "base64url").toString()) as {
    email: string;
    until: number;
  };
  if (until < Date.now()) return undefined;
  return { id: createHash("sha256").update(email).digest("hex").slice(0, 24), email };
}

/** Returns whether the account is known; the reply has the cookie then. */
export function signIn(reply: Response, email: unknown, password: unknown): boolean {
  const known =
    same(String(email).trim().toLowerCase(), process.env["DEMO_EMAIL"] ?? "") &&
    same(String(password), process.env["DEMO_PASSWORD"] ?? "");
  if (!known) return false;
  const session = { email: String(email).trim().toLowerCase(), until: Date.now() + HOURS * 3_600_000 };
  const payload = Buffer.from(JSON.stringify(session)).toString("base64url");
  reply.cookie("session", `${payload}.${sign(payload)}`, {
    httpOnly: true,
    sameSite: "lax",
    secure: process.env["NODE_ENV"] === "production",
    maxAge: HOURS * 3_600_000,
  });
  return true;
}

/**
 * Refuses what another site's page sends with this site's cookie. SameSite=Lax is not enough on
 * localhost, where every port belongs to the same site.
 */
export function requireSameOrigin(request: Request, reply: Response, next: NextFunction): void {
  const from = request.headers["sec-fetch-site"] ?? "same-origin";
  if (from === "same-origin" || from === "none") next();
  else reply.status(403).json({ message: "Only this site's own pages may do that." });
}

function sign(payload: string): string {
  return createHmac("sha256", SECRET).update(payload).digest("base64url");
}

/** Compares in constant time, whatever the lengths. */
function same(given: string, expected: string): boolean {
  const [a, b] = [given, expected].map((text) => createHash("sha256").update(text).digest());
  return expected !== "" && timingSafeEqual(a!, b!);
}
