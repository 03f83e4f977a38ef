/** `mishap completion`: completion for a shell, made from the command tree, so that it knows every flag. */

import { Argument, type Command, type Option } from "commander";

const SHELLS = ["bash", "zsh", "fish"] as const;

interface Entry {
  readonly word: string;
  readonly help: string;
  readonly takesValue: boolean;
}

interface Subcommand {
  readonly name: string;
  readonly help: string;
  readonly flags: readonly Entry[];
  /** What may follow it at once: the words of its argument, or commands of its own. */
  readonly words: readonly string[];
  /** Files may follow those. */
  readonly takesFiles: boolean;
}

/** Adds `completion` to the program. */
export function define(program: Command): void {
  program
    .command("completion")
    .summary("print completion for a shell")
    .description("Prints completion for a shell; load it from the shell's start-up file.")
    .addArgument(new Argument("<shell>", "the shell").choices(SHELLS))
    .addHelpText("after", '\nExamples:\n  eval "$(mishap completion bash)"\n  mishap completion fish | source')
    .action(async (shell: (typeof SHELLS)[number]) => {
      const { buildProgram } = await import("./program.js");
      process.stdout.write(completionFor(shell, await buildProgram()));
    });
}

/** The script that completes mishap's command line in a shell. */
export function completionFor(shell: (typeof SHELLS)[number], program: Command): string {
  const commands = program.commands.map((command): Subcommand => {
    const own = command.commands;
    const flags = new Map(
      [command, ...own]
        .flatMap(({ options }) => options.filter(({ hidden }) => !hidden))
        .map((option) => [option.long, option]),
    );
    const choices = command.registeredArguments.flatMap(({ argChoices }) => argChoices ?? []);
    return {
      name: command.name(),
      help: command.summary(),
      flags: [...[...flags.values()].map(entryOf), HELP],
      words: [...choices, ...own.map((each) => each.name())],
      takesFiles: own.length > 0,
    };
  });
  if (shell === "bash") return bash(commands);
  return shell === "zsh" ? zsh(commands) : fish(commands);
}

const HELP: Entry = { word: "--help", help: "print help", takesValue: false };

function entryOf(option: Option): Entry {
  return { word: option.long ?? option.flags, help: option.description, takesValue: option.required };
}

/** After `run` comes somebody else's command line: its program and arguments complete as they always do. */
function bash(commands: readonly Subcommand[]): string {
  const cases = commands.map(({ name, flags, words }) => {
    const valued = flags.filter(({ takesValue }) => takesValue).map(({ word }) => word);
    return `    ${name})
      words="${flags.map(({ word }) => word).join(" ")}"
      first="${words.join(" ")}"
      valued=" ${valued.join(" ")} " ;;`;
  });
  return `# mishap's completion for bash: eval "$(mishap completion bash)"
_mishap() {
  local current="\${COMP_WORDS[COMP_CWORD]}" words="" first="" valued="" at
  COMPREPLY=()
  if [ "$COMP_CWORD" -eq 1 ]; then
    COMPREPLY=($(compgen -W "${[...commands.map(({ name }) => name), "help", "--version", "--help"].join(" ")}" -- "$current"))
    return
  fi
  case "\${COMP_WORDS[1]}" in
${cases.join("\n")}
    *) return ;;
  esac
  if [ "\${COMP_WORDS[1]}" = run ]; then
    for ((at = 2; at < COMP_CWORD; at++)); do
      case "\${COMP_WORDS[at]}" in
        --) COMPREPLY=($(compgen -c -- "$current") $(compgen -f -- "$current")); return ;;
        -*) [[ "$valued" == *" \${COMP_WORDS[at]} "* ]] && at=$((at + 1)) ;;
        *) COMPREPLY=($(compgen -f -- "$current")); return ;;
      esac
    done
    if [ "$at" -gt "$COMP_CWORD" ]; then
      COMPREPLY=($(compgen -f -- "$current"))
      return
    fi
  fi
  [ "$COMP_CWORD" -eq 2 ] && words="$words $first"
  [ -z "$current" ] && [ "$COMP_CWORD" -gt 2 ] && [ -n "$first" ] && return
  COMPREPLY=($(compgen -W "$words" -- "$current"))
}
complete -o bashdefault -o default -F _mishap mishap
`;
}

function zsh(commands: readonly Subcommand[]): string {
  const quoted = (text: string): string => text.replaceAll("'", "'\\''").replace(/[[\]:]/g, "\\$&");
  const cases = commands.map(({ name, flags, words, takesFiles }) => {
    const specs = flags.map(({ word, help, takesValue }) => {
      return `'${word === "--target" ? "*" : ""}${word}[${quoted(help)}]${takesValue ? ":value:_files" : ""}'`;
    });
    const first = words.length > 0 ? [`'1:value:(${words.join(" ")})'`] : [];
    const rest = name === "run" ? ["'*::: :_normal'"] : [...first, ...(takesFiles ? ["'*:file:_files'"] : [])];
    return `    ${name}) _arguments -S ${[...specs, ...rest].join(" \\\n      ")} ;;`;
  });
  return `#compdef mishap
# mishap's completion for zsh: source <(mishap completion zsh)
_mishap() {
  local -a commands
  commands=(${commands.map(({ name, help }) => `'${name}:${quoted(help)}'`).join(" ")})
  if (( CURRENT == 2 )); then
    _describe command commands
    return
  fi
  local command=\${words[2]}
  shift words
  (( CURRENT-- ))
  case $command in
${cases.join("\n")}
  esac
}
compdef _mishap mishap
`;
}

function fish(commands: readonly Subcommand[]): string {
  const quoted = (text: string): string => `'${text.replaceAll("\\", "\\\\").replaceAll("'", "\\'")}'`;
  const lines = commands.flatMap(({ name, help, flags, words }) => {
    const seen = `__fish_seen_subcommand_from ${name}`;
    const here = `complete -c mishap -n '${seen}'`;
    const next = words.join(" ");
    return [
      `complete -c mishap -f -n __fish_use_subcommand -a ${name} -d ${quoted(help)}`,
      ...flags.map(({ word, help: text, takesValue }) => {
        return `${here} -l ${quoted(word.slice(2))} -d ${quoted(text)}${takesValue ? " -r" : ""}`;
      }),
      ...(words.length > 0
        ? [`complete -c mishap -n '${seen}; and not __fish_seen_subcommand_from ${next}' -f -a ${quoted(next)}`]
        : []),
    ];
  });
  return `# mishap's completion for fish: mishap completion fish | source\n${lines.join("\n")}\n`;
}
