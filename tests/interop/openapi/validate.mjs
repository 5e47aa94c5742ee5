// Judges an OpenAPI document by the schema of its version: validate.mjs FILE. The modules are beside it, or in NODE_MODULES' folder.
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const require = createRequire(process.argv[2] + "/");
const { Validator } = await import(pathToFileURL(require.resolve("@seriousme/openapi-schema-validator")).href);
const validator = new Validator();
const result = await validator.validate(JSON.parse(readFileSync(process.argv[3], "utf8")));
console.log(result.valid ? `valid ${validator.version}` : JSON.stringify(result.errors, null, 1));
process.exit(result.valid ? 0 : 1);
