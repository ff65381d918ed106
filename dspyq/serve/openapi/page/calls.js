// A call as code: curl, Python and TypeScript. The key is named by its environment variable, never written out.

/** The languages, each with a function from URL, body and `isStreamed` to code. */
export const LANGUAGES = {
  curl(url, body, isStreamed) {
    const lines = [
      `curl -sS${isStreamed ? "N" : ""} ${quoted(url)}`,
      '  -H "Authorization: Bearer $DSPYQ_KEY"',
      `  --json ${quoted(JSON.stringify(streamed(body, isStreamed)))}`,
    ];
    return lines.join(" \\\n");
  },
  Python(url, body, isStreamed) {
    const begin = ["import os", "", "import httpx", ""];
    const call = [
      `    ${JSON.stringify(url)},`,
      `    headers={"Authorization": f"Bearer {os.environ['DSPYQ_KEY']}"},`,
      `    json=${python(streamed(body, isStreamed), "    ")},`,
      "    timeout=60,",
    ];
    const end = isStreamed
      ? [
          "with httpx.stream(", '    "POST",', ...call, ") as response:", "    response.raise_for_status()",
          "    for line in response.iter_lines():", "        print(line)",
        ]
      : [
          "response = httpx.post(", ...call, ")", "response.raise_for_status()", "prediction = response.json()",
          'print(prediction["status"], prediction["outputs"])',
        ];
    return [...begin, ...end].join("\n");
  },
  TypeScript(url, body, isStreamed) {
    const begin = [
      `const response = await fetch(${JSON.stringify(url)}, {`,
      '  method: "POST",',
      "  headers: {",
      '    "Authorization": `Bearer ${process.env.DSPYQ_KEY}`,',
      '    "Content-Type": "application/json",',
      "  },",
      `  body: JSON.stringify(${indented(JSON.stringify(streamed(body, isStreamed), null, 2))}),`,
      "});",
      "if (!response.ok) throw new Error(await response.text());",
    ];
    const end = isStreamed
      ? [
          "const reader = response.body!.pipeThrough(new TextDecoderStream()).getReader();",
          "for (let part = await reader.read(); !part.done; part = await reader.read()) {",
          "  console.log(part.value);",
          "}",
        ]
      : ["const prediction = await response.json();", "console.log(prediction.status, prediction.outputs);"];
    return [...begin, ...end].join("\n");
  },
};

function streamed(body, isStreamed) {
  return isStreamed ? { ...body, stream: true } : body;
}

/** Return a text as one word of a shell. */
function quoted(text) {
  return `'${text.replaceAll("'", "'\\''")}'`;
}

/** Return JSON whose lines but the first begin where a member of an argument does. */
function indented(json) {
  return json.replaceAll("\n", "\n  ");
}

/** Return a JSON value as Python writes it, in lines that begin with an indent. */
function python(value, indent) {
  if (value === null) return "None";
  if (value === true) return "True";
  if (value === false) return "False";
  if (typeof value !== "object") return JSON.stringify(value);
  const inner = `${indent}    `;
  const [open, close, parts] = Array.isArray(value)
    ? ["[", "]", value.map((own) => python(own, inner))]
    : ["{", "}", Object.entries(value).map(([name, own]) => `${JSON.stringify(name)}: ${python(own, inner)}`)];
  return parts.length ? `${open}\n${parts.map((part) => `${inner}${part},\n`).join("")}${indent}${close}` : open + close;
}
