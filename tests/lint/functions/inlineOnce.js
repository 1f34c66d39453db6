// Report an object with properties, or a list of three values or more, that is written out in two places of a document.
const NOTES = new Set(["description", "deprecated", "example", "examples", "title", "default"]);

function* schemasOf(node, path) {
  if (node === null || typeof node !== "object") return;
  if (!Array.isArray(node) && (hasProperties(node) || hasValues(node)))
    yield { node, path };
  for (const [key, child] of Object.entries(node))
    if (key !== "example" && key !== "examples") yield* schemasOf(child, [...path, key]);
}

function hasProperties(node) {
  return node.type === "object" && node.properties && Object.keys(node.properties).length > 0;
}

function hasValues(node) {
  return Array.isArray(node.enum) && node.enum.filter((value) => value !== null).length > 2;
}

function meaning(schema) {
  return JSON.stringify(schema, (key, value) => (NOTES.has(key) && typeof value !== "object" ? undefined : value));
}

export default function inlineOnce(document) {
  const seen = new Map();
  const found = [];
  for (const { node, path } of schemasOf(document, [])) {
    const key = meaning(node);
    if (seen.has(key)) found.push({ message: `${path.join(".")} is written out in ${seen.get(key)}, too`, path });
    else seen.set(key, path.join("."));
  }
  return found;
}
