/** The site's server: its pages, its sign-in, and the one route that the widget needs. */
import express, { type NextFunction, type Request, type Response } from "express";
import { Weir, WeirError } from "weir-client/server";
import { requireSameOrigin, signIn, userOf } from "./session";

const PORT = Number(process.env["PORT"] ?? 3002);
const GATEWAY = required("FC_BASE_URL").replace(/\/v1\/?$/, "");
const ORIGIN = process.env["SITE_ORIGIN"] ?? `http://localhost:${PORT}`;

const weir = new Weir({ key: required("FC_API_KEY"), baseUrl: GATEWAY });
const app = express();
app.disable("x-powered-by");
app.use(express.json({ limit: "10kb" }));

app.post("/api/chat-token", requireSameOrigin, async (request, reply) => {
  // The id comes from this site's own session. What the page sends is not looked at.
  const user = userOf(request);
  if (!user) return void reply.status(401).json({ message: "Sign in first." });
  const customer = `user_${user.id}`;
  await weir.customers.put(customer, {}); // made if it is not there, with the project's usual budget
  const { token, expires_in, expires_at } = await weir.clientTokens.mint(customer, {
    ttl_seconds: 900,
    scope: ["chat"],
    origin_allowlist: [ORIGIN],
    bind_ip: true, // to the address of the first request
  });
  reply.set("Cache-Control", "no-store").json({ token, ttl: expires_in, expiresAt: expires_at });
});

app.post("/api/sign-in", requireSameOrigin, (request, reply) => {
  const { email, password } = request.body as { email?: unknown; password?: unknown };
  if (signIn(reply, email, password)) return void reply.json({ email });
  reply.status(401).json({ message: "The e-mail address or the password is wrong." });
});

app.post("/api/sign-out", requireSameOrigin, (_request, reply) => {
  reply.clearCookie("session").json({});
});

app.get("/api/session", (request, reply) => {
  const user = userOf(request);
  reply.json({ email: user?.email ?? null, gateway: GATEWAY, model: required("FC_MODEL") });
});

app.use(
  express.static("dist", {
    setHeaders(reply) {
      reply.setHeader(
        "Content-Security-Policy",
        `default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; connect-src 'self' ${GATEWAY};` +
          " base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
      );
      reply.setHeader("Referrer-Policy", "no-referrer");
    },
  }),
);

app.use((error: unknown, _request: Request, reply: Response, _next: NextFunction) => {
  // What is wrong with the key or the settings is for this server's log, not for a visitor.
  console.error(error instanceof WeirError ? `${error.code}: ${error.message}` : error);
  reply.status(503).json({ message: "The chat is not available now. Try again later." });
});

app.listen(PORT, "127.0.0.1", () => console.log(`http://localhost:${PORT}`));

function required(name: string): string {
  const value = process.env[name];
  if (!value) throw new Error(`${name} is not set: see .env.example.`);
  return value;
}
