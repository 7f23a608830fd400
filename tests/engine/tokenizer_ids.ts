// Encodes a JSON list of texts from standard input with the tokenizer of a folder: ids, text again, text of each id.

import { readFile } from "node:fs/promises";
import { Tokenizer } from "../../js_bridge/tokenizer/tokenizer.ts";

const folder = process.argv[2];
const read = async (name: string) => JSON.parse(await readFile(`${folder}/${name}`, "utf8")) as Record<string, unknown>;
const tokenizer = new Tokenizer(await read("tokenizer.json"), await read("tokenizer_config.json"));

const pieces: Buffer[] = [];
for await (const piece of process.stdin) pieces.push(piece);
const texts = JSON.parse(Buffer.concat(pieces).toString()) as string[];
const results = texts.map((text) => {
  const ids = tokenizer.encode(text);
  return { ids, text: tokenizer.decode(ids), tokens: tokenizer.textsOf(ids) };
});
process.stdout.write(JSON.stringify({ results, size: tokenizer.size, bos: tokenizer.bos, eos: tokenizer.eos }));
