/** The settings of .env.example, read when they are needed, so that one build fits every stage. */
export function required(...names: string[]): string {
  const value = names.map((name) => process.env[name]).find(Boolean);
  if (!value) throw new Error(`${names[0]} is not set: see .env.example.`);
  return value;
}

/** Return the gateway's address, without /v1. */
export function gatewayUrl(): string {
  return required("BEHEST_BASE_URL", "WEIR_BASE_URL").replace(/(\/v1)?\/*$/, "");
}
