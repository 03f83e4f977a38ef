import { faults } from "mishap/vitest";
import { defineConfig } from "vitest/config";

export default defineConfig({ plugins: [faults({ policies: "policies.yaml" })] });
