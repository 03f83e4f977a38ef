/**
 * `Symbol.dispose` and `Symbol.asyncDispose` where there are none: Node before 24 adds them to its main context only, so
 * test runners that give each file a context of its own (Jest, vitest's vmForks) have classes whose methods would all be
 * named "undefined". Compilers' `using` looks for these symbols by the same keys.
 */

for (const name of ["dispose", "asyncDispose"] as const) {
  if (Symbol[name] === undefined) Object.defineProperty(Symbol, name, { value: Symbol.for(`Symbol.${name}`) });
}
