// The Transcript: text as the image writes it, the newest at the bottom. It keeps the last 100,000 characters.

export interface TranscriptView {
  append(text: string, isError: boolean): void;
  clear(): void;
}

const kept = 100_000;

export function transcript(element: HTMLElement): TranscriptView {
  const document = element.ownerDocument;
  const text = document.createElement("pre");
  text.className = "transcript";
  text.tabIndex = 0;
  text.setAttribute("role", "log");
  text.setAttribute("aria-label", "Transcript");
  element.append(text);
  let length = 0;
  return {
    append(added, isError) {
      const atEnd = text.scrollHeight - text.scrollTop - text.clientHeight < 20;
      const span = document.createElement("span");
      if (isError) span.className = "stderr";
      span.textContent = added;
      text.append(span);
      length += added.length;
      while (length > kept && text.firstChild && text.firstChild !== span) {
        length -= text.firstChild.textContent?.length ?? 0;
        text.firstChild.remove();
      }
      if (atEnd) text.scrollTop = text.scrollHeight;
    },
    clear() {
      text.replaceChildren();
      length = 0;
    },
  };
}
