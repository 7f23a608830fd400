// Bars side by side for each label: one series beside another, clean beside ablated. The scale is from 0 to the largest
// number shown, and the number itself stands at each bar.

import { max, scaleLinear, select } from "d3";
import { pictureButtons } from "./save.ts";
import { tokenLabel } from "./token_label.ts";
import type { BarsPart, ViewFunction } from "./view.ts";

const barHeight = 13;
const groupGap = 8;
const left = 96;
const barWidth = 240;
const width = left + barWidth + 60;

export const bars: ViewFunction<BarsPart> = (element, data) => {
  const document = element.ownerDocument;
  const figure = document.createElement("figure");
  const caption = document.createElement("figcaption");
  const scroll = document.createElement("div");
  scroll.className = "scroll";
  const svg = select(scroll).append("svg").attr("class", "bars fits").attr("role", "img");
  figure.append(caption, scroll, pictureButtons(document, () => svg.node() as SVGSVGElement, "bars"));
  element.append(figure);

  const update = (next: BarsPart): void => {
    const groupHeight = next.series.length * barHeight + groupGap;
    const height = 22 + next.labels.length * groupHeight;
    const scale = scaleLinear([0, max(next.series.flatMap((series) => series.values)) || 1], [0, barWidth]);
    caption.textContent = next.unit;
    svg.attr("viewBox", `0 0 ${width} ${height}`).attr("width", width).attr("height", height);
    svg.attr("aria-label", describe(next));
    svg.selectAll("*").remove();
    next.series.forEach((series, index) => {
      const x = left + index * 90;
      svg.append("rect").attr("class", `series-${index}`).attr("x", x).attr("y", 4).attr("width", 10).attr("height", 10);
      svg.append("text").attr("class", "label").attr("font-size", 11).attr("x", x + 15).attr("y", 13).text(series.name);
    });
    next.labels.forEach((text, row) => {
      const y = 22 + row * groupHeight;
      svg.append("text").attr("class", "label").attr("font-size", 12).attr("text-anchor", "end")
        .attr("x", left - 8).attr("y", y + (groupHeight - groupGap) / 2 + 4).text(tokenLabel(text));
      next.series.forEach((series, index) => {
        const value = series.values[row] ?? 0;
        const top = y + index * barHeight;
        svg.append("rect").attr("class", `series-${index}`).attr("x", left).attr("y", top)
          .attr("width", Math.max(scale(value), 0.5)).attr("height", barHeight - 2);
        svg.append("text").attr("class", "label number").attr("font-size", 10)
          .attr("data-series", series.name).attr("data-label", text)
          .attr("x", left + scale(value) + 5).attr("y", top + 9).text(value.toFixed(4));
      });
    });
  };
  update(data);
  return { update, destroy: () => figure.remove() };
};

function describe(data: BarsPart): string {
  const rows = data.labels.map((label, row) =>
    `${tokenLabel(label)}: ${data.series.map((series) => `${series.name} ${(series.values[row] ?? 0).toFixed(4)}`).join(", ")}`,
  );
  return `${data.unit}. ${rows.join("; ")}`;
}
