/** Type-checks a script, as `mishap script check` does: strict, with mishap's own types, and Node's where the user has them. */

import { createRequire } from "node:module";
import { dirname } from "node:path";
import { fileURLToPath } from "node:url";
import ts from "typescript";
import type { ScriptProblem } from "./questions.js";

const API_TYPES = fileURLToPath(new URL("./index.d.ts", import.meta.url));

const NOT_ERASABLE = 1294;

/** Everything that the compiler finds wrong with a script and what it imports. */
export function typeProblems(script: string): ScriptProblem[] {
  const program = ts.createProgram([script], {
    target: ts.ScriptTarget.ES2023,
    lib: ["lib.es2023.d.ts"],
    module: ts.ModuleKind.ESNext,
    moduleResolution: ts.ModuleResolutionKind.Bundler,
    moduleDetection: ts.ModuleDetectionKind.Force,
    paths: { "mishap/script": [API_TYPES] },
    types: hasNodeTypes(script) ? ["node"] : [],
    strict: true,
    noEmit: true,
    allowJs: true,
    resolveJsonModule: true,
    allowImportingTsExtensions: true,
    erasableSyntaxOnly: true,
    verbatimModuleSyntax: true,
    skipLibCheck: true,
  });
  return ts.getPreEmitDiagnostics(program).map(problemOf);
}

function problemOf({ code, messageText, file, start }: ts.Diagnostic): ScriptProblem {
  const message =
    code === NOT_ERASABLE
      ? "this is more than a type and would need a build; write it without, only types may be TypeScript's"
      : ts.flattenDiagnosticMessageText(messageText, " ").replace(/\s+/g, " ");
  if (file === undefined || start === undefined) return { message };
  const { line, character } = file.getLineAndCharacterOfPosition(start);
  return { message, file: file.fileName, line: line + 1, column: character + 1 };
}

function hasNodeTypes(script: string): boolean {
  try {
    createRequire(`${dirname(script)}/`).resolve("@types/node/package.json");
    return true;
  } catch {
    return false;
  }
}
