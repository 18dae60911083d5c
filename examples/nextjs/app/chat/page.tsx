import { redirect } from "next/navigation";
import { currentUser } from "@/lib/session";
import { gatewayUrl } from "@/lib/settings";
import { Chat } from "./Chat";

export default async function Page({ searchParams }: { searchParams: Promise<{ thread?: string | string[] }> }) {
  const user = await currentUser();
  if (!user) redirect("/");
  const { thread } = await searchParams;
  return <Chat gateway={gatewayUrl()} email={user.email} thread={typeof thread === "string" ? thread : undefined} />;
}
