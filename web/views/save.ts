// Buttons that save what a view shows: a picture as SVG or PNG, a table as CSV or JSON.

export interface Saved {
  readonly name: string;
  readonly type: string;
  readonly content: string | Promise<Blob>;
}

export function saveButtons(document: Document, kinds: Record<string, () => Saved>): HTMLElement {
  const bar = document.createElement("div");
  bar.className = "save";
  for (const [label, make] of Object.entries(kinds)) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = label;
    button.setAttribute("aria-label", `Save as ${label}`);
    button.addEventListener("click", () => void save(document, make()));
    bar.append(button);
  }
  return bar;
}

async function save(document: Document, saved: Saved): Promise<void> {
  const blob = typeof saved.content === "string" ? new Blob([saved.content], { type: saved.type }) : await saved.content;
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = saved.name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

/** A picture by itself, with the colours that it has on the page written into it. */
export function pictureButtons(document: Document, picture: () => SVGSVGElement, name: string): HTMLElement {
  return saveButtons(document, {
    SVG: () => ({ name: `${name}.svg`, type: "image/svg+xml", content: standalone(picture()) }),
    PNG: () => ({ name: `${name}.png`, type: "image/png", content: rasterize(standalone(picture()), picture()) }),
  });
}

function standalone(picture: SVGSVGElement): string {
  const copy = picture.cloneNode(true) as SVGSVGElement;
  const originals = [picture, ...picture.querySelectorAll("*")];
  [copy, ...copy.querySelectorAll("*")].forEach((node, index) => {
    const style = getComputedStyle(originals[index] as Element);
    for (const property of ["fill", "stroke", "font-family", "font-size", "text-anchor"]) {
      (node as SVGElement).style.setProperty(property, style.getPropertyValue(property));
    }
  });
  copy.setAttribute("xmlns", "http://www.w3.org/2000/svg");
  return new XMLSerializer().serializeToString(copy);
}

async function rasterize(source: string, picture: SVGSVGElement): Promise<Blob> {
  const image = new Image();
  image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(source)}`;
  await image.decode();
  const { width, height } = picture.viewBox.baseVal;
  const scale = 2; // sharp on a screen with two device pixels to one
  const canvas = document.createElement("canvas");
  canvas.width = width * scale;
  canvas.height = height * scale;
  const context = canvas.getContext("2d");
  if (!context) throw new Error("This browser gives no 2D canvas; save the picture as SVG.");
  context.fillStyle = getComputedStyle(document.body).backgroundColor;
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(image, 0, 0, canvas.width, canvas.height);
  return new Promise((resolve, reject) =>
    canvas.toBlob((blob) => (blob ? resolve(blob) : reject(new Error("The canvas gave no PNG; save the picture as SVG.")))),
  );
}
