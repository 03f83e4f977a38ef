#!/usr/bin/env node
/** `mishap`: runs the command line and ends with its exit code. */

import { main } from "./program.js";

process.exit(await main(process.argv.slice(2)));
