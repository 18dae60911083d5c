/** Errors and limits in words for a visitor, whichever SDK they come from. */

/** Of WeirError, of OpenAI's APIError, and of the AI SDK's APICallError. */
interface Failure {
  name?: string;
  message?: string;
  code?: string | null;
  status?: number;
  statusCode?: number;
  details?: Record<string, unknown>;
  retryAfter?: number;
  error?: unknown;
  responseBody?: string;
  headers?: unknown;
  responseHeaders?: Record<string, string>;
  cause?: unknown;
  lastError?: unknown;
}

/** Returns one or two sentences about what failed, and when it is worth another try. */
export function explain(error: unknown): string {
  if (typeof error !== "object" || error === null) return String(error);
  const failure = error as Failure;
  const body = bodyOf(failure);
  const code = body?.code ?? failure.code;
  const details = body?.details ?? failure.details ?? {};
  const status = failure.status ?? failure.statusCode;
  const words = body?.message ?? failure.message ?? "";
  if (code === "origin_not_allowed") return `This page is not allowed to use the chat. ${words}`;
  if (code === "stream_cut") return "The answer was cut off: the connection ended too early.";
  if (status === 402 || code === "quota_exceeded" || code === "budget_exceeded") return usedUp(details, words);
  const inner = failure.lastError ?? failure.cause;
  if (body === undefined && status === undefined && inner) return explain(inner);
  if (error instanceof TypeError || failure.name === "TypeError") {
    return "The chat cannot be reached. Check the connection and try again.";
  }
  return withWait(words || "The chat failed.", waitOf(failure));
}

function bodyOf(failure: Failure): { message?: string; code?: string; details?: Record<string, unknown> } | undefined {
  if (typeof failure.error === "object" && failure.error !== null) return failure.error;
  if (!failure.responseBody) return undefined;
  try {
    return (JSON.parse(failure.responseBody) as { error?: object }).error;
  } catch {
    return undefined; // a proxy's HTML
  }
}

/** Seconds. */
function waitOf({ retryAfter, headers, responseHeaders }: Failure): number {
  const named = headers instanceof Headers ? headers.get("retry-after") : responseHeaders?.["retry-after"];
  return retryAfter ?? Number(named ?? 0);
}

function usedUp(details: Record<string, unknown>, words: string): string {
  const at = Number(details["resets_at"]);
  if (details["scope"] === undefined) return words;
  const whose = details["scope"] === "user" ? "What you may use is used up" : "This chat's budget is used up";
  return at > 0 ? `${whose} until ${date(at)}.` : `${whose} for now.`;
}

function date(seconds: number): string {
  return new Date(seconds * 1000).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });
}

/** How long to wait, exactly, in the place of a "Try again later." */
function withWait(words: string, seconds: number): string {
  if (!(seconds > 0)) return words;
  const wait =
    seconds < 90 ? `${seconds} ${seconds === 1 ? "second" : "seconds"}` : `${Math.round(seconds / 60)} minutes`;
  return `${words.replace(/ Try again[^.]*\.$/, "")} Try again in ${wait}.`;
}

const PERIODS: Record<string, string> = { minute: "this minute", day: "today", month: "this month" };

/** Returns what is left of the limit that ends soonest, from the reply of GET /v1/me; "" if there is none. */
export function creditsLeft(me: unknown): string {
  const { limits, budget } = (me ?? {}) as {
    limits?: { limit_name: string; limit: number; left: number }[];
    budget?: { limit_usd: number; remaining_usd: number } | null;
  };
  const lasting = (limits ?? [])
    .filter(({ limit_name, limit }) => /_per_(day|month)$/.test(limit_name) && limit > 0)
    .map((limit) => ({ ...limit, share: limit.left / limit.limit }));
  if (budget && !lasting.some(({ limit_name }) => limit_name === "usd_per_month") && budget.limit_usd > 0) {
    const share = budget.remaining_usd / budget.limit_usd;
    lasting.push({ limit_name: "usd_per_month", limit: budget.limit_usd, left: budget.remaining_usd, share });
  }
  const least = lasting.sort((a, b) => a.share - b.share)[0];
  if (!least) return "";
  const [what, period] = least.limit_name.split("_per_") as [string, string];
  const amount =
    what === "usd"
      ? least.left.toLocaleString(undefined, { style: "currency", currency: "USD" })
      : `${Math.floor(least.left).toLocaleString()} ${what === "requests" ? "messages" : what}`;
  return `${amount} left ${PERIODS[period]}.`;
}
