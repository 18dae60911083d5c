/** Where the gateway and the user pool are. None of it is secret. */
export interface Config {
  /** Of the gateway, without /v1. */
  baseUrl: string;
  cognitoClientId: string;
  /** For the password form; not needed with `cognitoDomain`. */
  cognitoEndpoint: string;
  /** Of Cognito's own sign-in page, which is used instead of the password form. "": there is none. */
  cognitoDomain: string;
}

/**
 * From .env.local at build time; or, for one build that serves several deployments, from a
 * /config.json of the same names beside the page.
 */
export async function loadConfig(): Promise<Config> {
  const built: Record<string, string | undefined> = import.meta.env;
  const found = built["VITE_WEIR_BASE_URL"] ? built : await fetchConfig();
  const optional = (name: string): string => (found[name] ?? "").replace(/\/+$/, "");
  const setting = (name: string): string => {
    const value = optional(name);
    if (!value) throw new Error(`${name} is not set: see .env.example.`);
    return value;
  };
  const cognitoDomain = optional("VITE_COGNITO_DOMAIN");
  return {
    baseUrl: setting("VITE_WEIR_BASE_URL"),
    cognitoClientId: setting("VITE_COGNITO_CLIENT_ID"),
    cognitoEndpoint: cognitoDomain ? "" : setting("VITE_COGNITO_ENDPOINT"),
    cognitoDomain,
  };
}

async function fetchConfig(): Promise<Record<string, string | undefined>> {
  try {
    const reply = await fetch("/config.json");
    return reply.ok ? await reply.json() : {};
  } catch {
    return {}; // a server that answers unknown paths with its index.html
  }
}
