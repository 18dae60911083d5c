/** Tokens for the page, a page without a framework, and one route that chats from the server. */
import "./env.js";
import { fileURLToPath } from "node:url";
import express, { type NextFunction, type Request, type Response } from "express";
import { WeirError } from "weir-client/server";
import { requireSameOrigin, requireSignedInUser, signIn } from "./auth.js"; // your app's session check
import { answerFor, behest } from "./chat.js";

const PORT = Number(process.env.PORT || 3001);
const HERE = fileURLToPath(new URL("..", import.meta.url));

const app = express();
app.disable("x-powered-by");
app.use(express.json({ limit: "200kb" }));

app.post("/api/weir/token", requireSameOrigin, async (request, response) => {
  // From your verified session, never from request.body.
  const user = requireSignedInUser(request);
  if (!user) return void response.status(401).json({ message: "Sign in first." });
  const { token, ttl, sessionId, expiresAt } = await behest.auth.mint({
    user_id: user.id,
    tier: user.plan ?? 1,
    ttl: 900,
  });
  response.set("Cache-Control", "no-store").json({ token, ttl, sessionId, expiresAt });
});

app.post("/api/summary", requireSameOrigin, async (request, response) => {
  const user = requireSignedInUser(request);
  if (!user) return void response.status(401).json({ message: "Sign in first." });
  const { conversation } = (request.body ?? {}) as { conversation?: unknown };
  if (typeof conversation !== "string") return void response.status(400).json({ message: "Send a conversation." });
  const left = new AbortController(); // nothing is paid for that is not read
  response.on("close", () => left.abort());
  const question = `${conversation}\n\nSummarise this conversation in two sentences.`;
  const summary = await answerFor(user.id, question, left.signal);
  response.json({ summary });
});

app.post("/api/sign-in", requireSameOrigin, (request, response) => {
  const { email, password } = (request.body ?? {}) as { email?: unknown; password?: unknown };
  const name = signIn(response, email, password);
  if (name) response.json({ email: name });
  else response.status(401).json({ message: "The e-mail address or the password is wrong." });
});

app.post("/api/sign-out", requireSameOrigin, (_request, response) => {
  response.clearCookie("session").json({});
});

/** What the page needs to know at its start. */
app.get("/api/session", (request, response) => {
  response.json({ email: requireSignedInUser(request)?.email ?? null, gateway: behest.baseUrl });
});

app.use((_request, response, next) => {
  response.set({
    "Content-Security-Policy": [
      "default-src 'none'",
      "script-src 'self'",
      "style-src 'self'",
      "img-src data:",
      `connect-src 'self' ${behest.baseUrl}`,
      "base-uri 'none'",
      "form-action 'none'",
      "frame-ancestors 'none'",
      // Only DOMPurify can make the HTML that the page shows.
      "require-trusted-types-for 'script'",
      "trusted-types dompurify",
    ].join("; "),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
  });
  next();
});
app.use(express.static(`${HERE}/public`));
app.use("/modules/weir-client", express.static(`${HERE}/node_modules/weir-client/dist`));
app.use("/modules/marked", express.static(`${HERE}/node_modules/marked/lib`));
app.use("/modules/dompurify", express.static(`${HERE}/node_modules/dompurify/dist`));

/** Pass on what is about the user; keep to the log what is about this server's own settings. */
app.use((error: unknown, _request: Request, response: Response, _next: NextFunction) => {
  if (response.headersSent || response.closed) return;
  const { status, type } = error as { status?: number; type?: string };
  if (error instanceof WeirError && [400, 402, 429].includes(status ?? 0)) {
    const { code, message, details, retryAfter } = error;
    if (retryAfter !== undefined) response.set("Retry-After", String(retryAfter));
    return void response.status(status!).json({ error: { code, message, details } });
  }
  // What express.json refuses: no JSON, or more than its limit.
  if (!(error instanceof WeirError) && type?.startsWith("entity.")) {
    return void response.status(status ?? 400).json({ message: "This request cannot be read." });
  }
  console.error(error instanceof WeirError ? `${error.code}: ${error.message}` : error);
  response.status(503).json({ message: "The chat is not available now. Try again later." });
});

app.listen(PORT, "127.0.0.1", () => console.log(`http://localhost:${PORT}`));
