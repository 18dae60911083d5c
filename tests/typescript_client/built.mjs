/** Import the built package and what it is used with, from where it was built (WEIR_CLIENT). */
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const from = createRequire(`${process.env.WEIR_CLIENT}/package.json`);

/** The package by its own name, or one that its tests need. */
export function load(name) {
  return import(pathToFileURL(from.resolve(name)));
}
