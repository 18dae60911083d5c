import { StrictMode, useEffect, useState } from "react";
import { createRoot } from "react-dom/client";
import { Account } from "./Account";
import { ChatWidget } from "./ChatWidget";
import "./styles.css";
import "./widget.css";

/** What this site's server says of itself and its visitor. */
export interface Site {
  email: string | null;
  gateway: string;
  model: string;
}

function Page() {
  const [site, setSite] = useState<Site>();
  const look = async () => setSite((await (await fetch("/api/session")).json()) as Site);
  useEffect(() => void look(), []);
  if (!site) return null;
  return (
    <>
      <Account email={site.email} onChange={look} />
      {site.email && <ChatWidget key={site.email} gateway={site.gateway} model={site.model} />}
    </>
  );
}

createRoot(document.getElementById("weir-chat")!).render(
  <StrictMode>
    <Page />
  </StrictMode>,
);
