/** What an error carries that is of use to a visitor, whichever package threw it. */
interface Told {
  status?: number | undefined;
  code?: string | undefined;
  reason?: string | undefined;
  /** Seconds. */
  wait?: number | undefined;
  /** Unix seconds. */
  resetsAt?: number | undefined;
  message?: string | undefined;
}

type Fields = Record<string, unknown>;

/**
 * Say in one or two sentences what went wrong, for the visitor of a page: for a WeirError, an
 * `APIError` of the package `openai`, an `APICallError` of the AI SDK, and a fetch that failed.
 */
export function explain(error: unknown): string {
  const told = read(error);
  const again = whenAgain(told);
  switch (told.code) {
    case "stream_cut":
      return "The answer was cut off: the connection ended too early.";
    case "cancelled":
    case "aborted":
      return "The answer was stopped.";
    case "no_token":
    case "invalid_token":
    case "token_expired":
      return SIGN_IN;
    case "context_length_exceeded":
    case "request_too_large":
      return "This conversation is too long for the model. Shorten your message, or start a new conversation.";
    case "content_filter":
      return "The provider of the model does not allow this content. Please change your message.";
    case "origin_not_allowed":
    case "client_token_origin_mismatch":
      return "This page is not allowed to use the chat. Please tell whoever runs the page.";
  }
  if (told.reason === "origin_not_allowed") return explain({ code: told.reason });
  if (told.reason === "unreachable" || told.reason === "network" || told.code === "unreachable") {
    return "The chat cannot be reached. Check the connection and try again.";
  }
  switch (told.status) {
    case 401:
      return SIGN_IN;
    case 402:
      return `You have used up your allowance for now. ${again || "Please ask whoever runs this page."}`;
    case 403:
      return "You may not use this chat at the moment. Please ask whoever runs this page.";
    case 429:
      return `You are sending messages too fast. ${again || "Please wait a moment and try again."}`;
  }
  if (told.status === undefined ? told.code !== undefined : told.status >= 500) {
    return `The chat cannot answer at the moment. ${again || "Please try again in a moment."}`;
  }
  // The page's own words, or the gateway's about what is wrong with the request.
  return told.message ?? "Something went wrong. Please try again.";
}

const SIGN_IN = "Your session has ended. Please sign in again.";

/** Gather what is known from the error, and from what it was caused by. */
function read(error: unknown, depth = 0): Told {
  if (typeof error !== "object" || error === null || depth > 4) return {};
  const own = error as Fields;
  const headers = own.headers ?? own.responseHeaders;
  const body = bodyOf(own);
  const inner = isFields(body?.error) ? body.error : (body ?? {});
  const details = isFields(own.details) ? own.details : isFields(inner.details) ? inner.details : {};
  const below = read(own.cause ?? own.lastError, depth + 1);
  const name = text(own.name) ?? "";
  const failedFetch =
    // The AI SDK's, of a call that had no answer.
    (/APIConnection|AI_APICallError/.test(name) && own.statusCode === undefined) ||
    // As Chromium, Firefox, Safari and Node put it; other TypeErrors are mistakes in a program.
    (name === "TypeError" && /fetch|network|load failed/i.test(text(own.message) ?? ""));
  return {
    status: number(own.status) ?? number(own.statusCode) ?? below.status,
    code:
      text(own.code) ??
      text(inner.code) ??
      (name === "AbortError" || name === "APIUserAbortError" ? "aborted" : undefined) ??
      below.code ??
      (failedFetch ? "unreachable" : undefined),
    reason: text(own.reason) ?? text(details.reason) ?? below.reason,
    wait: number(own.retryAfter) ?? number(header(headers, "retry-after")) ?? below.wait,
    resetsAt: number(details.resets_at) ?? below.resetsAt,
    message: text(inner.message) ?? text(own.message),
  };
}

/** Find the gateway's JSON: `error` of the openai package, `responseBody` or `data` of the AI SDK. */
function bodyOf(error: Fields): Fields | undefined {
  try {
    const parsed: unknown = JSON.parse(error.responseBody as string);
    if (isFields(parsed)) return parsed;
  } catch {
    // It is another package's error, or the body is no JSON.
  }
  return [error.error, error.data].find(isFields);
}

function whenAgain({ wait, resetsAt }: Told): string {
  const seconds = wait ?? (resetsAt === undefined ? undefined : resetsAt - Date.now() / 1000);
  if (seconds === undefined || !(seconds > 0)) return "";
  if (seconds < 90) return `Try again in ${plural(Math.ceil(seconds), "second")}.`;
  if (seconds < 5_400) return `Try again in ${plural(Math.ceil(seconds / 60), "minute")}.`;
  const at = new Date(Date.now() + seconds * 1000);
  const day: Intl.DateTimeFormatOptions =
    seconds < 86_400 ? { weekday: "long" } : { day: "numeric", month: "long" };
  return `Try again after ${at.toLocaleString("en", { ...day, hour: "numeric", minute: "2-digit" })}.`;
}

function plural(count: number, unit: string): string {
  return `${count} ${unit}${count === 1 ? "" : "s"}`;
}

function header(headers: unknown, name: string): unknown {
  if (headers instanceof Headers) return headers.get(name);
  return isFields(headers) ? headers[name] : undefined;
}

function isFields(value: unknown): value is Fields {
  return typeof value === "object" && value !== null;
}

function text(value: unknown): string | undefined {
  return typeof value === "string" && value ? value : undefined;
}

function number(value: unknown): number | undefined {
  if (value === null || value === undefined || value === "") return undefined;
  const parsed = Number(value);
  return Number.isFinite(parsed) ? parsed : undefined;
}

const PERIODS: Record<string, string> = { day: "today", month: "this month" };

/**
 * Say what is left of the limit of a day or month that ends soonest, for the visitor: "$4.96 left this
 * month." `me` is the reply of GET /v1/me. Return "" if there is no such limit.
 */
export function creditsLeft(me: unknown): string {
  const { limits = [], budget } = (me ?? {}) as {
    limits?: { limit_name: string; limit: number; left: number }[];
    budget?: { limit_usd: number; remaining_usd: number } | null;
  };
  const lasting = limits.filter(({ limit_name, limit }) => /_per_(day|month)$/.test(limit_name) && limit > 0);
  if (budget && budget.limit_usd > 0 && !lasting.some(({ limit_name }) => limit_name === "usd_per_month")) {
    lasting.push({ limit_name: "usd_per_month", limit: budget.limit_usd, left: budget.remaining_usd });
  }
  const [least] = lasting.sort((a, b) => a.left / a.limit - b.left / b.limit);
  if (!least) return "";
  const [what = "", period = ""] = least.limit_name.split("_per_");
  const amount =
    what === "usd"
      ? least.left.toLocaleString(undefined, { style: "currency", currency: "USD" })
      : `${Math.floor(least.left).toLocaleString()} ${what === "requests" ? "messages" : what}`;
  return `${amount} left ${PERIODS[period]}.`;
}
