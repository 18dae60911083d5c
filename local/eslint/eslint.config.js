// What the compiler lets pass: promises that nothing waits for, `any` that spreads, checks that are
// always true. typescript-eslint needs the compiler in JavaScript, which is TypeScript 6; the code is
// compiled and checked with TypeScript 7.
import tseslint from "typescript-eslint";

export default tseslint.config(tseslint.configs.strictTypeChecked, {
  languageOptions: { parserOptions: { projectService: true, tsconfigRootDir: process.cwd() } },
  rules: {
    // With noUncheckedIndexedAccess on, what stays is known to be there, or came from outside.
    "@typescript-eslint/no-non-null-assertion": "off",
    "@typescript-eslint/restrict-template-expressions": ["error", { allowNumber: true }],
    "@typescript-eslint/no-confusing-void-expression": ["error", { ignoreArrowShorthand: true }],
    "@typescript-eslint/no-unused-vars": ["error", { varsIgnorePattern: "^_", argsIgnorePattern: "^_" }],
  },
});
