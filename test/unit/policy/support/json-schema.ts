// The part of JSON Schema (draft 2020-12) that mishap's own schemas use; a keyword it does not know is an error.

type Schema = Readonly<Record<string, unknown>>;

const ANNOTATIONS = new Set(["$schema", "$defs", "title", "description", "examples", "default"]);

export function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** Whether a schema takes a value; `root` is where its references begin. */
export function accepts(schema: unknown, value: unknown, root: unknown = schema): boolean {
  if (typeof schema === "boolean") return schema;
  if (!isRecord(schema)) throw new Error(`no schema: ${JSON.stringify(schema)}`);
  return Object.entries(schema).every(([keyword, argument]) => {
    if (ANNOTATIONS.has(keyword)) return true;
    const check = KEYWORDS[keyword];
    if (check === undefined) throw new Error(`a keyword that this test does not know: ${keyword}`);
    return check(argument, value, (inner, part) => accepts(inner, part, root), schema, root);
  });
}

type Check = (
  argument: unknown,
  value: unknown,
  takes: (schema: unknown, value: unknown) => boolean,
  schema: Schema,
  root: unknown,
) => boolean;

const list = (argument: unknown): unknown[] => {
  if (!Array.isArray(argument)) throw new Error(`no list: ${JSON.stringify(argument)}`);
  return argument;
};

const TYPES: Readonly<Record<string, (value: unknown) => boolean>> = {
  string: (value) => typeof value === "string",
  integer: Number.isInteger,
  boolean: (value) => typeof value === "boolean",
  array: Array.isArray,
  object: isRecord,
};

const KEYWORDS: Readonly<Record<string, Check>> = {
  type: (types, value) => (Array.isArray(types) ? types : [types]).some((type) => TYPES[String(type)]?.(value)),
  enum: (words, value) => list(words).includes(value),
  const: (word, value) => word === value,
  pattern: (pattern, value) => typeof value !== "string" || new RegExp(String(pattern), "u").test(value),
  minLength: (limit, value) => typeof value !== "string" || [...value].length >= Number(limit),
  maxLength: (limit, value) => typeof value !== "string" || [...value].length <= Number(limit),
  minimum: (limit, value) => typeof value !== "number" || value >= Number(limit),
  maximum: (limit, value) => typeof value !== "number" || value <= Number(limit),
  minItems: (limit, value) => !Array.isArray(value) || value.length >= Number(limit),
  maxItems: (limit, value) => !Array.isArray(value) || value.length <= Number(limit),
  items: (schema, value, takes) => !Array.isArray(value) || value.every((item) => takes(schema, item)),
  required: (keys, value) => !isRecord(value) || list(keys).every((key) => Object.hasOwn(value, String(key))),
  properties: (shape, value, takes) =>
    !isRecord(value) ||
    !isRecord(shape) ||
    Object.entries(shape).every(([key, schema]) => !Object.hasOwn(value, key) || takes(schema, value[key])),
  additionalProperties: (schema, value, takes, { properties }) =>
    !isRecord(value) ||
    Object.entries(value).every(
      ([key, each]) => (isRecord(properties) && Object.hasOwn(properties, key)) || takes(schema, each),
    ),
  propertyNames: (schema, value, takes) => !isRecord(value) || Object.keys(value).every((key) => takes(schema, key)),
  anyOf: (schemas, value, takes) => list(schemas).some((schema) => takes(schema, value)),
  oneOf: (schemas, value, takes) => list(schemas).filter((schema) => takes(schema, value)).length === 1,
  $ref: (reference, value, takes, _, root) => {
    const keys = String(reference).replace(/^#\//, "").split("/");
    return takes(
      keys.reduce<unknown>((at, key) => (isRecord(at) ? at[key] : undefined), root),
      value,
    );
  },
};
