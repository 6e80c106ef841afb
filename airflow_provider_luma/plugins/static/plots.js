// Draws the plots: their data is on the elements, their colours are the style sheet's.
"use strict";

const DAY = 86400;

function draw(place) {
  const data = JSON.parse(place.dataset.plot);
  const bars = place.dataset.kind === "bars";
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const axis = { stroke: colour("--faint"), grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false } };
  const edge = bars ? DAY / 2 : 0;
  const span = data[0].at(-1) - data[0][0];
  const when = new Intl.DateTimeFormat("en-GB", {
    timeZone: "UTC",
    ...(bars || span > 2 * DAY ? { day: "numeric", month: "short" } : { hour: "2-digit", minute: "2-digit" }),
  });
  place.replaceChildren();
  place.uplot = new uPlot(
    {
      width: place.clientWidth,
      height: 190,
      legend: { show: false },
      cursor: { show: false },
      tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), "Etc/UTC"),
      scales: {
        x: { range: (_, low, high) => [low - edge, high + edge + (low === high && !edge ? 1 : 0)] },
        y: { range: (_, low, high) => [0, (high || 1) * 1.1] },
      },
      axes: [
        {
          ...axis,
          ...(bars ? { incrs: [1, 2, 7, 14, 28].map((days) => days * DAY) } : {}),
          values: (_, moments) => moments.map((seconds) => when.format(seconds * 1000)),
        },
        { ...axis, size: 48, values: (_, sums) => sums.map((sum) => sum.toFixed(sum % 1 ? 2 : 0)) },
      ],
      series: [
        {},
        {
          label: place.dataset.label,
          stroke: colour("--accent"),
          fill: bars ? colour("--accent") : undefined,
          width: bars ? 0 : 2,
          paths: bars ? uPlot.paths.bars({ size: [0.7, 40] }) : uPlot.paths.stepped({ align: 1 }),
          points: { show: !bars && data[0].length < 2 },
        },
      ],
    },
    data,
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
