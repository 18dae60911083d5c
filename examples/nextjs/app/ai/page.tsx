import { redirect } from "next/navigation";
import { currentUser } from "@/lib/session";
import { gatewayUrl } from "@/lib/settings";
import { AiChat } from "./AiChat";

export default async function Page() {
  const user = await currentUser();
  if (!user) redirect("/");
  return <AiChat gateway={gatewayUrl()} email={user.email} />;
}
