import { redirect } from "next/navigation";
import { GATEWAY } from "@/lib/gateway";
import { currentUser } from "@/lib/session";
import { Chat } from "./Chat";

export default async function Page() {
  const user = await currentUser();
  if (!user) redirect("/");
  return <Chat gateway={GATEWAY} email={user.email} />;
}
