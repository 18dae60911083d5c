/** What a WeirError can say beside its message. */
export interface WeirErrorFields {
  /** The HTTP status; absent for an error within a stream. */
  status?: number | undefined;
  /** The stable name to decide by: docs/errors.md lists them. */
  code: string;
  type?: string | undefined;
  /** The id that finds the request in the gateway's logs. */
  requestId?: string | undefined;
  /** Seconds to wait before another attempt. */
  retryAfter?: number | undefined;
  /** Why, in more detail than `code`: `details.reason` of the answer. */
  reason?: string | undefined;
  /** For a limit: `limit_name`, `scope`, `resets_at` and others. */
  details?: Record<string, unknown> | undefined;
  cause?: unknown;
}

/** An error that the gateway answered with, or an answer that ended too early (`stream_cut`). */
export class WeirError extends Error {
  declare status?: number;
  declare code: string;
  declare type?: string;
  declare requestId?: string;
  declare retryAfter?: number;
  declare reason?: string;
  declare details?: Record<string, unknown>;

  constructor(message: string, fields: WeirErrorFields) {
    super(message);
    this.name = "WeirError";
    Object.assign(this, fields);
  }

  /** Make one of an answer whose status is not 2xx; its body is read. */
  static async from(response: Response): Promise<WeirError> {
    return errorFrom(await response.json().catch(() => null), response, response.status);
  }
}

/** Make a WeirError of the `error` member of an answer or a stream's last frame. */
export function errorFrom(body: unknown, response: Response, status?: number): WeirError {
  const outer = (body ?? {}) as Record<string, unknown>;
  // OAuth's form, which POST /v1/token answers with, has a string there.
  const inner = (typeof outer.error === "object" ? outer.error : { code: outer.error }) as Record<
    string,
    unknown
  > | null;
  const details = inner?.details as Record<string, unknown> | undefined;
  const wait = response.headers.get("retry-after");
  return new WeirError(
    (inner?.message ?? outer.error_description ?? outer.message ?? `HTTP status ${response.status}`) as string,
    {
      status,
      code: (inner?.code ?? outer.code ?? "http_error") as string,
      type: inner?.type as string | undefined,
      requestId: response.headers.get("x-request-id") ?? undefined,
      retryAfter: wait && +wait >= 0 ? +wait : undefined,
      reason: (details?.reason ?? outer.reason) as string | undefined,
      details,
    },
  );
}
