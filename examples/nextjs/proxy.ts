/** A Content-Security-Policy for each page, with a nonce for the scripts that Next writes into it. */
import { NextResponse, type NextRequest } from "next/server";
import { gatewayUrl } from "@/lib/settings";

const IS_DEVELOPMENT = process.env.NODE_ENV === "development";

export function proxy(request: NextRequest) {
  const nonce = btoa(crypto.randomUUID());
  const policy = [
    "default-src 'none'",
    // React needs eval to show where an error came from; only while developing.
    `script-src 'self' 'nonce-${nonce}' 'strict-dynamic'${IS_DEVELOPMENT ? " 'unsafe-eval'" : ""}`,
    // While developing, Next brings styles of its own for the page that shows an error.
    `style-src 'self' ${IS_DEVELOPMENT ? "'unsafe-inline'" : `'nonce-${nonce}'`}`,
    "img-src 'self' data:",
    "font-src 'self'",
    `connect-src 'self' ${gatewayUrl()}`,
    "form-action 'self'",
    "base-uri 'none'",
    "frame-ancestors 'none'",
  ].join("; ");

  const headers = new Headers(request.headers);
  headers.set("Content-Security-Policy", policy); // from which Next takes the nonce
  const response = NextResponse.next({ request: { headers } });
  response.headers.set("Content-Security-Policy", policy);
  return response;
}

export const config = { matcher: "/((?!api|_next/static|_next/image).*)" };
