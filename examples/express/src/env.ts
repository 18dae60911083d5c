/** Read .env, if there is one. Import this before what reads the environment. */
import { existsSync } from "node:fs";

if (existsSync(".env")) process.loadEnvFile();

export function required(name: string): string {
  const value = process.env[name];
  if (!value) throw new Error(`${name} is not set: see .env.example.`);
  return value;
}
