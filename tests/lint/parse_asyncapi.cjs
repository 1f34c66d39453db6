// Print what AsyncAPI's own parser says of a document, as a JSON list, and after it the number of its operations.
// The directory with the packages and the document are the arguments.
const { readFileSync } = require("node:fs");
const { createRequire } = require("node:module");

const [packages, path] = process.argv.slice(2);
const { Parser } = createRequire(`${packages}/`)("@asyncapi/parser");

new Parser().parse(readFileSync(path, "utf8")).then(({ document, diagnostics }) => {
  console.log(JSON.stringify({ diagnostics, operations: document ? document.operations().all().length : 0 }));
});
