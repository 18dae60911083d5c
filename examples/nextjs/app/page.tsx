import { redirect } from "next/navigation";
import { currentUser } from "@/lib/session";
import { SignIn } from "./SignIn";

export default async function Page({ searchParams }: { searchParams: Promise<{ ended?: string }> }) {
  if (await currentUser()) redirect("/chat");
  const { ended } = await searchParams;
  return (
    <SignIn notice={ended === undefined ? "Sign in to talk to the model." : "Your session has ended. Please sign in again."} />
  );
}
