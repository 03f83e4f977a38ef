/** The tables of docs/policies.md, written from the schema and the presets, so that the page says what they say. */

import { z } from "zod";
import { fieldAbout, unwrap } from "./fields.js";
import { PRESETS } from "./presets.js";
import { schedule } from "./schedule.js";
import { policyFields } from "./schema.js";
import { ruleFields } from "./targets.js";

/** The page with its tables made anew; each stands between `<!-- NAME -->` and `<!-- end NAME -->`. */
export function withTables(page: string): string {
  const tables: Readonly<Record<string, string>> = {
    fields: fieldTable(rowsOf(policyFields.shape, "")),
    rules: fieldTable(rowsOf(ruleFields.shape, "")),
    schedules: fieldTable(schedule.options.flatMap((option) => rowsOf(option.shape, ""))),
    presets: presetTable(),
  };
  return page.replace(/(<!-- (\w+) -->\n)[\s\S]*?(<!-- end \2 -->)/g, (_, start: string, name: string, end: string) => {
    const table = tables[name];
    if (table === undefined) throw new Error(`docs/policies.md asks for a table ${name}, which there is not`);
    return `${start}${table}${end}`;
  });
}

type Row = readonly [field: string, form: string, standard: string, units: string, meaning: string];

function rowsOf(shape: Readonly<Record<string, z.core.$ZodType>>, parent: string): Row[] {
  return Object.entries(shape).flatMap(([key, optional]): Row[] => {
    const schema = unwrap(optional);
    const about = fieldAbout.get(schema);
    if (about === undefined) throw new Error(`${parent}${key} has no help`);
    const meaning = about.rule === undefined ? about.help : `${about.help}; ${about.rule}`;
    const form = (about.words ?? [about.example]).map(code);
    const row: Row = [code(parent + key), form.join(", "), defaultOf(optional), about.units ?? "", meaning];
    return [row, ...(schema instanceof z.ZodObject ? rowsOf(schema.shape, `${parent}${key}.`) : [])];
  });
}

function defaultOf(schema: z.core.$ZodType): string {
  if (!(schema instanceof z.ZodPrefault)) return "";
  const value: unknown = schema.def.defaultValue;
  return value === "" ? "empty" : code(String(value));
}

function fieldTable(rows: readonly Row[]): string {
  const head = ["| field | such as | default | units | meaning |", "|---|---|---|---|---|"];
  return `${[...head, ...rows.map((row) => `| ${row.map(cell).join(" | ")} |`)].join("\n")}\n`;
}

function presetTable(): string {
  const rows = Object.entries(PRESETS).map(
    ([name, { description, source }]) => `| ${code(name)} | ${cell(description)} | ${cell(source)} |`,
  );
  return `${["| preset | what it is | source |", "|---|---|---|", ...rows].join("\n")}\n`;
}

const code = (text: string): string => `\`${text}\``;
/** A table cell: Markdown's column separator must not end it early. */
const cell = (text: string): string => text.replaceAll("|", "\\|");
