/** The body of every error of the gateway (docs/errors.md). */
export interface ErrorEnvelope {
  error: {
    message: string;
    code: string;
    type?: string;
    param?: string | null;
    details?: Record<string, unknown>;
    request_id?: string;
  };
}

interface Facts {
  code: string;
  status?: number | undefined;
  type?: string | undefined;
  requestId?: string | undefined;
  retryAfter?: number | undefined;
  details?: Record<string, unknown> | undefined;
  cause?: unknown;
}

/** A request that was refused or failed, or an answer that ended early. Decide by `code`. */
export class WeirError extends Error {
  /** As in docs/errors.md; of this package: "stream_cut", "origin_not_allowed", "no_token". */
  readonly code: string;
  /** Of the HTTP reply; undefined inside a stream, which had its 200 already. */
  readonly status: number | undefined;
  readonly type: string | undefined;
  /** Finds the request in the gateway's logs. */
  readonly requestId: string | undefined;
  /** Seconds. */
  readonly retryAfter: number | undefined;
  readonly details: Record<string, unknown>;

  constructor(message: string, { cause, ...facts }: Facts) {
    super(message, { cause });
    this.name = "WeirError";
    this.code = facts.code;
    this.status = facts.status;
    this.type = facts.type;
    this.requestId = facts.requestId;
    this.retryAfter = facts.retryAfter;
    this.details = facts.details ?? {};
  }

  /** Why, where one code has several reasons: of a 401, say. */
  get reason(): string | undefined {
    return this.details["reason"] as string | undefined;
  }

  /** Reads a reply that is not 2xx, whoever made it. */
  static async from(reply: Response): Promise<WeirError> {
    const text = await reply.text().catch(() => "");
    let body: Partial<ErrorEnvelope> & { message?: string } = {};
    try {
      body = JSON.parse(text) ?? {};
    } catch {
      // a proxy's HTML
    }
    return WeirError.of(body, reply);
  }

  static of(body: Partial<ErrorEnvelope> & { message?: string; code?: string }, reply?: Response): WeirError {
    const { error } = body;
    const retryAfter = Number(reply?.headers.get("retry-after") ?? NaN);
    return new WeirError(error?.message ?? body.message ?? `The reply has status ${reply?.status}.`, {
      code: error?.code ?? body.code ?? "unknown",
      status: reply?.status,
      type: error?.type,
      requestId: error?.request_id ?? reply?.headers.get("x-request-id") ?? undefined,
      retryAfter: retryAfter >= 0 ? retryAfter : undefined,
      details: error?.details,
    });
  }
}
