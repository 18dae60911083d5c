import { redirect } from "next/navigation";
import { GATEWAY } from "@/lib/gateway";
import { currentUser } from "@/lib/session";
import { Chat } from "./Chat";

export default async function Page({ searchParams }: { searchParams: Promise<{ thread?: string | string[] }> }) {
  const user = await currentUser();
  if (!user) redirect("/");
  const { thread } = await searchParams;
  return <Chat gateway={GATEWAY} email={user.email} thread={typeof thread === "string" ? thread : undefined} />;
}
