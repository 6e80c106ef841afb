// Draws the plots: their data is on the elements, their colours are the style sheet's.
"use strict";

function draw(place) {
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const bars = place.dataset.kind === "bars";
  const money = (_, values) => values.map((value) => value.toFixed(value % 1 ? 2 : 0));
  const axis = { stroke: colour("--faint"), grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false } };
  place.replaceChildren();
  place.uplot = new uPlot(
    {
      width: place.clientWidth,
      height: 190,
      tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), "Etc/UTC"),
      legend: { show: false },
      cursor: { drag: { x: false, y: false } },
      scales: { y: { range: (_, low, high) => [0, (high || 1) * 1.1] } },
      axes: [axis, { ...axis, size: 48, values: money }],
      series: [
        {},
        {
          label: place.dataset.label,
          stroke: colour("--accent"),
          fill: bars ? colour("--accent") : undefined,
          width: bars ? 0 : 2,
          paths: bars ? uPlot.paths.bars({ size: [0.7, 40] }) : uPlot.paths.stepped({ align: 1 }),
          points: { show: !bars && JSON.parse(place.dataset.plot)[0].length < 2 },
        },
      ],
    },
    JSON.parse(place.dataset.plot),
    place,
  );
}

const drawAll = () => document.querySelectorAll(".plot").forEach(draw);
drawAll();
new MutationObserver(drawAll).observe(document.documentElement, { attributes: true, attributeFilter: ["data-theme"] });
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
new ResizeObserver(() => {
  for (const place of document.querySelectorAll(".plot")) if (place.uplot.width !== place.clientWidth) draw(place);
}).observe(document.body);
