/**
 * Return whether a request comes from a page of this app. SameSite=Lax is not enough: on localhost
 * every port belongs to the same site, and so do all subdomains of a domain.
 */
export function isFromThisApp(request: Request): boolean {
  const site = request.headers.get("sec-fetch-site");
  if (site) return site === "same-origin";
  const origin = request.headers.get("origin"); // of an old browser; a server sends neither
  return !origin || origin === "null" ? origin === null : new URL(origin).host === request.headers.get("host");
}
