/**
 * The JSON Schema of policy files, made from the schema that checks them, for editors (a `$schema` line) and for
 * `mishap policy schema`. It knows the form of every field; the rules between fields are the loader's.
 */

import { inputJson, type JsonSchema } from "./fields.js";
import { policyFields } from "./schema.js";

/** JSON Schema, draft 2020-12, of a file of policies. */
export const policyFileSchema: JsonSchema = {
  $schema: "https://json-schema.org/draft/2020-12/schema",
  title: "mishap policies",
  description: "Policies by name: what a network does to a program's flows.",
  type: "object",
  properties: { $schema: { type: "string", description: "where this schema is, for editors" } },
  propertyNames: { minLength: 1 },
  additionalProperties: { $ref: "#/$defs/policy" },
  $defs: { policy: inputJson(policyFields) },
};
