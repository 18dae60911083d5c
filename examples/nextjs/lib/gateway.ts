/** The gateway's address, without /v1. Read when the server runs, so that one build fits every stage. */
export const GATEWAY = (process.env.WEIR_BASE_URL || process.env.BEHEST_BASE_URL || "").replace(/(\/v1)?\/*$/, "");
