import type { NextConfig } from "next";

export default {
  poweredByHeader: false,
  devIndicators: false,
  // The page by this name has another origin, which the gateway does not know: it should say so.
  allowedDevOrigins: ["127.0.0.1"],
  headers: async () => [
    {
      source: "/:path*",
      headers: [
        { key: "X-Content-Type-Options", value: "nosniff" },
        { key: "Referrer-Policy", value: "no-referrer" },
      ],
    },
  ],
} satisfies NextConfig;
