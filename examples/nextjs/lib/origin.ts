/**
 * Return whether a request comes from a page of this app. SameSite=Lax is not enough: on localhost
 * every port belongs to the same site, and so do all subdomains of a domain.
 */
export function isFromThisApp({ headers }: Request): boolean {
  const site = headers.get("sec-fetch-site");
  if (site) return site === "same-origin";
  // Old browsers send an Origin alone; what is no browser sends neither, and has no one's cookie.
  const origin = headers.get("origin");
  return !origin || origin.replace(/^https?:\/\//, "") === headers.get("host");
}
