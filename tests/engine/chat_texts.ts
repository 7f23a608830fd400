// Renders chats by templates: cases from standard input; for each chat of each case the text, or the error.

import { ChatTemplate, type ChatMessage } from "../../js_bridge/tokenizer/chat.ts";

interface Case {
  readonly config: Record<string, unknown>;
  readonly file: string | null;
  readonly chats: readonly { messages: ChatMessage[]; prompt: boolean }[];
}

const pieces: Buffer[] = [];
for await (const piece of process.stdin) pieces.push(piece);
const cases = JSON.parse(Buffer.concat(pieces).toString()) as Case[];
const results = cases.map(({ config, file, chats }) => {
  const template = new ChatTemplate(config, file);
  return chats.map(({ messages, prompt }) => {
    try {
      return { text: template.render(messages, prompt) };
    } catch (error) {
      return { error: (error as Error).message };
    }
  });
});
process.stdout.write(JSON.stringify(results));
