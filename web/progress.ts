// A line for each thing that is being loaded: bytes, and the time left, from the speed so far; and a button that ends
// it, where it can be ended.

export interface Progress {
  update(loaded: number, total: number): void;
  done(): void;
}

export function progress(element: HTMLElement, label: string, cancel?: () => void): Progress {
  const document = element.ownerDocument;
  const line = document.createElement("div");
  line.className = "progress";
  const caption = document.createElement("label");
  const bar = document.createElement("progress");
  const amount = document.createElement("span");
  caption.append(`${label} `, bar, " ", amount);
  line.append(caption);
  if (cancel) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = "Cancel";
    button.setAttribute("aria-label", `Cancel: ${label}`);
    button.addEventListener("click", cancel);
    line.append(" ", button);
  }
  element.append(line);
  const started = performance.now();
  return {
    update(loaded, total) {
      bar.max = Math.max(total, 1);
      bar.value = loaded;
      const seconds = (performance.now() - started) / 1000;
      const left = loaded > 0 ? (seconds * (total - loaded)) / loaded : Infinity;
      amount.textContent =
        `${megabytes(loaded)} of ${megabytes(total)} MB` + (left < Infinity && left >= 1 ? `, ${Math.ceil(left)} s left` : "");
    },
    done: () => line.remove(),
  };
}

function megabytes(bytes: number): string {
  return (bytes / 1e6).toFixed(1);
}
