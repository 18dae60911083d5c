/** A token for the user who is signed in: the one route that the pages need. */
import { Weir, WeirError } from "weir-client/server";
import { isFromThisApp } from "@/lib/origin";
import { currentUser } from "@/lib/session";

let weir: Weir | undefined;

export async function POST(request: Request) {
  if (!isFromThisApp(request)) return refusal(403, "Only this app's own pages may do that.");
  // From the verified session. Nothing that the page sends is read.
  const user = await currentUser();
  if (!user) return refusal(401, "Sign in first.");
  try {
    weir ??= new Weir(); // BEHEST_KEY and BEHEST_BASE_URL; not needed while the app is built
    const { token, ttl, sessionId, expiresAt } = await weir.auth.mint({
      user_id: user.id,
      tier: user.tier,
      ttl: 900,
    });
    return Response.json({ token, ttl, sessionId, expiresAt }, { headers: { "Cache-Control": "no-store" } });
  } catch (error) {
    // What is wrong with the key or the settings is for this server's log, not for a visitor.
    console.error(error instanceof WeirError ? `${error.code}: ${error.message}` : error);
    return refusal(503, "The chat is not available now. Try again later.");
  }
}

function refusal(status: number, message: string) {
  return Response.json({ message }, { status });
}
