import { redirect } from "next/navigation";
import { GATEWAY } from "@/lib/gateway";
import { currentUser } from "@/lib/session";
import { AiChat } from "./AiChat";

export default async function Page() {
  const user = await currentUser();
  if (!user) redirect("/");
  return <AiChat gateway={GATEWAY} email={user.email} />;
}
