import type { Metadata, Viewport } from "next";
import type { ReactNode } from "react";
import "./styles.css";
import "./threads.css";

export const metadata: Metadata = { title: "Weir chat", icons: { icon: "data:," } };
export const viewport: Viewport = { colorScheme: "light dark", interactiveWidget: "resizes-content" };

export default function Layout({ children }: { children: ReactNode }) {
  return (
    <html lang="en">
      <body>{children}</body>
    </html>
  );
}
