// node run.mjs PYODIDE SCRIPT ROOT RUNTIME_ROOT: runs SCRIPT on ROOT, in place, with CPython in WebAssembly.
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const [pyodidePath, script, root, runtimeRoot] = process.argv.slice(2);
const { loadPyodide } = await import(pathToFileURL(pyodidePath));
const python = await loadPyodide({ env: { HOME: "/home/pyodide", PYTHONHASHSEED: "0" } });
python.mountNodeFS("/tree", root);
python.pyimport("sys").argv = python.toPy([script, "/tree", runtimeRoot]);
python.runPython(readFileSync(script, "utf8"));
