// A matrix of numbers from 0 to 1 as colours, with the text of each cell where there is one. The colour scale is
// viridis: perceptually uniform, and readable without seeing hues. Arrow keys move a cursor over the cells, Enter or a
// click sends row and column. Cells without text are gathered into one path for each of 64 shades, so that a pattern
// of 256 x 256 is 64 elements and not 65,536.

import { color as parseColor, interpolateViridis, select, type Selection } from "d3";
import { pictureButtons } from "./save.ts";
import { tokenLabel } from "./token_label.ts";
import type { HeatMapPart, ViewFunction } from "./view.ts";

const shades = 64;
const fontSize = 11;
const characterWidth = 6.7;
/** Longer labels are cut; the readout below has them whole. */
const longestLabel = 12;

/** Extents in pixels of the viewBox. */
interface Layout {
  readonly cellWidth: number;
  readonly cellHeight: number;
  readonly left: number;
  readonly top: number;
  readonly width: number;
  readonly height: number;
}

export const heatMap: ViewFunction<HeatMapPart> = (element, data, emit) => {
  const document = element.ownerDocument;
  const figure = document.createElement("figure");
  const caption = document.createElement("figcaption");
  const scroll = document.createElement("div");
  scroll.className = "scroll";
  const status = document.createElement("p");
  status.className = "readout";
  status.setAttribute("aria-live", "polite");
  const svg = select(scroll).append("svg").attr("class", "heat-map").attr("tabindex", 0).attr("role", "img");
  const picture = svg.node() as SVGSVGElement;
  figure.append(caption, scroll, status, pictureButtons(document, () => picture, "heat-map"));
  element.append(figure);

  let current = data;
  let layout = layOut(data);
  let cursor: readonly [number, number] = [data.rows.length - 1, data.columns.length - 1];

  svg.on("click", (event: MouseEvent) => {
    const cell = cellAt(event);
    if (!cell) return;
    moveTo(cell);
    emit(current.id, cell);
  });
  svg.on("pointermove", (event: PointerEvent) => {
    const cell = cellAt(event);
    if (cell) describe(cell);
  });
  svg.on("keydown", (event: KeyboardEvent) => {
    const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (step) {
      event.preventDefault();
      moveTo([clamp(cursor[0] + step[0]!, current.rows.length), clamp(cursor[1] + step[1]!, current.columns.length)]);
    } else if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      emit(current.id, cursor);
    }
  });

  /** Row labels and legend stay in sight when a wide matrix is scrolled. */
  function stay(): void {
    svg.select(".stays").attr("transform", `translate(${scroll.scrollLeft}, 0)`);
  }
  scroll.addEventListener("scroll", stay);

  function cellAt(event: MouseEvent): [number, number] | null {
    const box = picture.getBoundingClientRect();
    const x = ((event.clientX - box.left) / box.width) * layout.width - layout.left;
    const y = ((event.clientY - box.top) / box.height) * layout.height - layout.top;
    const row = Math.floor(y / layout.cellHeight);
    const column = Math.floor(x / layout.cellWidth);
    const inside = row >= 0 && row < current.rows.length && column >= 0 && column < current.columns.length;
    return inside ? [row, column] : null;
  }

  function moveTo(cell: readonly [number, number]): void {
    cursor = cell;
    const x = layout.left + cell[1] * layout.cellWidth;
    svg.select(".cursor").attr("x", x).attr("y", layout.top + cell[0] * layout.cellHeight);
    // A view is built before it is in the page; only then it has a width to scroll in.
    queueMicrotask(() => {
      const outside = x < scroll.scrollLeft || x + layout.cellWidth > scroll.scrollLeft + scroll.clientWidth;
      if (outside) scroll.scrollLeft = x + layout.cellWidth + 8 - scroll.clientWidth;
    });
    describe(cell);
  }

  function describe([row, column]: readonly [number, number]): void {
    const value = current.values[row]?.[column];
    const text = current.texts?.[row]?.[column];
    status.textContent = [
      `${current.rows[row]}, ${tokenLabel(current.columns[column] ?? "")}:`,
      text === undefined ? "" : `“${tokenLabel(text)}”`,
      value === null || value === undefined ? "none" : value.toFixed(4),
    ].join(" ");
  }

  const update = (next: HeatMapPart): void => {
    current = next;
    layout = layOut(next);
    caption.textContent = next.title;
    svg
      .classed("fits", next.texts === null && next.columns.length <= 32)
      .attr("viewBox", `0 0 ${layout.width} ${layout.height}`)
      .attr("width", layout.width)
      .attr("height", layout.height)
      .attr("aria-label", `${next.title}. ${next.rows.length} rows, ${next.columns.length} columns; arrow keys read the cells.`);
    svg.selectAll("*").remove();
    drawColumnLabels(svg, next, layout);
    if (next.texts) drawTexts(svg, next, next.texts, layout);
    else drawShades(svg, next, layout);
    drawRowLabels(svg.append("g").attr("class", "stays"), next, layout);
    stay();
    svg.append("rect").attr("class", "cursor").attr("width", layout.cellWidth).attr("height", layout.cellHeight);
    moveTo([clamp(cursor[0], next.rows.length), clamp(cursor[1], next.columns.length)]);
  };
  update(data);
  return { update, destroy: () => figure.remove() };
};

type Svg = Selection<SVGSVGElement, unknown, null, undefined>;
type Group = Selection<SVGGElement, unknown, null, undefined>;

function layOut(data: HeatMapPart): Layout {
  const longest = (texts: readonly string[]): number =>
    Math.max(1, ...texts.map((text) => Math.min(longestLabel, [...tokenLabel(text)].length)));
  const cellWidth = data.texts
    ? Math.max(longest(data.columns), ...data.texts.map(longest)) * characterWidth + 6
    : data.columns.length > 64 ? 6 : 18;
  const cellHeight = data.texts ? 30 : cellWidth;
  const left = longest(data.rows) * characterWidth + 12;
  // Column labels stand upright where cells are too narrow for them.
  const top = data.texts ? 22 : longest(data.columns) * characterWidth + 12;
  return {
    cellWidth,
    cellHeight,
    left,
    top,
    width: Math.max(left + data.columns.length * cellWidth + 4, 260),
    height: top + data.rows.length * cellHeight + 40,
  };
}

function shorten(text: string): string {
  const letters = [...tokenLabel(text)];
  return letters.length > longestLabel ? `${letters.slice(0, longestLabel - 1).join("")}…` : letters.join("");
}

function drawColumnLabels(svg: Svg, data: HeatMapPart, layout: Layout): void {
  if (layout.cellWidth < 12) return;
  data.columns.forEach((text, column) => {
    const x = layout.left + (column + 0.5) * layout.cellWidth;
    const label = svg.append("text").attr("class", "label").attr("font-size", fontSize).text(shorten(text));
    if (data.texts) label.attr("text-anchor", "middle").attr("x", x).attr("y", layout.top - 7);
    else label.attr("transform", `translate(${x + 4}, ${layout.top - 6}) rotate(-90)`);
  });
}

function drawRowLabels(group: Group, data: HeatMapPart, layout: Layout): void {
  group.append("rect").attr("class", "paper").attr("width", layout.left - 2).attr("height", layout.height);
  if (layout.cellHeight >= 12) {
    data.rows.forEach((text, row) => {
      group.append("text").attr("class", "label").attr("text-anchor", "end").attr("font-size", fontSize)
        .attr("x", layout.left - 6).attr("y", layout.top + (row + 0.5) * layout.cellHeight + 4).text(shorten(text));
    });
  }
  drawLegend(group, data, layout);
}

function drawTexts(svg: Svg, data: HeatMapPart, texts: readonly (readonly string[])[], layout: Layout): void {
  data.values.forEach((line, row) =>
    line.forEach((value, column) => {
      const fill = interpolateViridis(value ?? 0);
      const x = layout.left + column * layout.cellWidth;
      const y = layout.top + row * layout.cellHeight;
      svg.append("rect").attr("x", x).attr("y", y).attr("width", layout.cellWidth - 1).attr("height", layout.cellHeight - 1).attr("fill", fill);
      svg.append("text").attr("class", "value").attr("text-anchor", "middle").attr("font-size", fontSize)
        .attr("fill", isDark(fill) ? "#fff" : "#111")
        .attr("x", x + layout.cellWidth / 2).attr("y", y + 13).text(shorten(texts[row]?.[column] ?? ""));
      svg.append("text").attr("class", "value").attr("text-anchor", "middle").attr("font-size", 9)
        .attr("fill", isDark(fill) ? "#fff" : "#111")
        .attr("x", x + layout.cellWidth / 2).attr("y", y + 25).text(value === null ? "none" : value.toFixed(2));
    }),
  );
}

function drawShades(svg: Svg, data: HeatMapPart, layout: Layout): void {
  const paths: string[] = new Array(shades).fill("");
  const gap = layout.cellWidth > 8 ? 1 : 0;
  data.values.forEach((line, row) =>
    line.forEach((value, column) => {
      const shade = Math.min(shades - 1, Math.floor((value ?? 0) * shades));
      const x = layout.left + column * layout.cellWidth;
      const y = layout.top + row * layout.cellHeight;
      paths[shade] += `M${x},${y}h${layout.cellWidth - gap}v${layout.cellHeight - gap}h${gap - layout.cellWidth}z`;
    }),
  );
  paths.forEach((path, shade) => {
    if (path) svg.append("path").attr("d", path).attr("fill", interpolateViridis((shade + 0.5) / shades));
  });
}

function drawLegend(group: Group, data: HeatMapPart, layout: Layout): void {
  const y = layout.height - 30;
  const width = 120;
  const steps = 24;
  for (let step = 0; step < steps; step++) {
    group.append("rect").attr("x", layout.left + (step * width) / steps).attr("y", y).attr("width", width / steps + 0.5)
      .attr("height", 8).attr("fill", interpolateViridis((step + 0.5) / steps));
  }
  const label = (x: number, anchor: string, text: string) =>
    group.append("text").attr("class", "label").attr("font-size", 10).attr("text-anchor", anchor).attr("x", x).attr("y", y + 20).text(text);
  label(layout.left, "start", "0");
  label(layout.left + width, "end", "1");
  label(layout.left + width / 2, "middle", data.unit);
}

function isDark(fill: string): boolean {
  const rgb = parseColor(fill)?.rgb();
  return !rgb || 0.299 * rgb.r + 0.587 * rgb.g + 0.114 * rgb.b < 140;
}

function clamp(index: number, extent: number): number {
  return Math.max(0, Math.min(extent - 1, index));
}
